// Processes: the program under test is the file that the environment variable ECHOD names, otherwise the one that was
// built with the tests.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

/// How to start a process.
struct Start {
  std::vector<std::string> options = {};  // an Echod appends its address and port
  rlim_t descriptors = 0;                 // if not 0: the limit of open descriptors, soft and hard
  rlim_t memory = 0;                      // if not 0: the limit of its address space in bytes
  std::string program = {};               // if not empty: another program than echod
  int ignored = 0;                        // if not 0: a signal that is ignored from the start
  bool closed = false;                    // without standard input, output and error
};

/// A process whose standard output and error come to us through one pipe.
class Process {
 public:
  explicit Process(const Start& start);
  Process(const Process&) = delete;
  /// Kills it if it is still running.
  ~Process();

  void signal(int number) const;
  /// The next line of its output, without the newline; what is left of it at the end.
  std::string line();
  /// The next line of its output that contains `text`, or the empty string at the end.
  std::string line_with(const std::string& text);
  /// All of its output to the end.
  std::string output();
  /// Waits for its end. Returns the exit status, or minus the number of the signal that killed it.
  int wait();
  /// SIGTERM, and wait().
  int stop();

  /// The CPU time that it used, after wait().
  double cpu_seconds() const;
  /// The most memory that it has used so far, before wait(). 0 if the system does not tell (only Linux does), or if the
  /// address sanitizer changes it.
  double peak_kilobytes() const;
  pid_t pid() const { return pid_; }

 private:
  bool read_more();

  pid_t pid_;
  int pipe_ = -1;
  std::string unread_;
  rusage used_{};
};

/// echod, or another program like it, on a free port of 127.0.0.1. It listens already.
class Echod : public Process {
 public:
  explicit Echod(Start start = {});
  std::uint16_t port() const { return port_; }

 private:
  std::uint16_t port_;
};

struct Result {
  int status;
  std::string output;
};

/// Runs echod to its end.
Result run_echod(const std::vector<std::string>& options);

#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer);
#else
constexpr bool sanitized = false;
#endif
