// Starts the program under test. It is the file that the environment variable ECHOD names,
// otherwise the one that was built with the tests.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "client.hpp"

/// How to start a process.
struct Start {
  std::vector<std::string> options = {};  // Echod appends an address and a port
  rlim_t descriptors = 0;                 // if not 0: the limit of open descriptors, soft and hard
  rlim_t memory = 0;                      // if not 0: the limit of its address space in bytes
  std::string program = {};               // if not empty: another program than echod
  int ignored = 0;                        // if not 0: a signal that is ignored from the start
  // If true: starts without standard input, output and error.
  bool closed = false;
  // If not empty: what the new process does last, before it becomes the program.
  std::function<void()> before_exec = {};
};

/// A process. This class reads its standard output and standard error through one pipe.
class Process {
 public:
  explicit Process(const Start& start);
  Process(const Process&) = delete;
  /// Kills it if it is still running.
  ~Process();

  void signal(int number) const;
  /// Returns the next line of its output, without the newline. At the end, returns what is left of
  /// the output.
  std::string line();
  /// Returns the next line of its output that contains `text`, or an empty string at the end.
  std::string line_with(const std::string& text);
  /// Returns the rest of its output, up to the end.
  std::string output();
  /// Waits until it ends. Returns the exit status, or minus the number of the signal that killed
  /// it.
  int wait();
  /// Sends SIGTERM, then does the same as wait().
  int stop();

  /// Returns the CPU time that it used. Valid only after wait().
  double cpu_seconds() const;
  /// Returns the most memory that it has used so far. Valid only before wait(). Returns 0 with the
  /// address sanitizer, which changes the number, and on all systems except Linux, which do not
  /// report it.
  double peak_kilobytes() const;
  pid_t pid() const { return pid_; }

 private:
  bool read_more();

  pid_t pid_;
  int pipe_ = -1;
  std::string unread_;
  rusage used_{};
};

/// A running echod, or another program like it. It listens on a free port of 127.0.0.1.
class Echod : public Process {
 public:
  explicit Echod(Start start = {});
  std::uint16_t port() const { return port_; }

 private:
  std::uint16_t port_;
};

/// Returns a port that is free and stays free: a connection of an earlier server is in TIME_WAIT,
/// so no client gets this port as its own.
std::uint16_t free_port();

/// Connects to a server as soon as it listens. For a server whose announcement nobody can read.
Client connect_when_listening(std::uint16_t port);

/// Returns whether a child process ends within `time`. It can still be waited for.
bool ends_within(pid_t child, std::chrono::milliseconds time);

/// Returns the CPU time of a running process so far, in seconds. Returns a negative number if it is
/// not known: macOS does not have clock_getcpuclockid(3).
double cpu_of(pid_t pid);

struct Result {
  int status;
  std::string output;
};

/// Runs echod until it ends.
Result run_echod(const std::vector<std::string>& options);

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer);
#else
constexpr bool sanitized = false;
#endif
