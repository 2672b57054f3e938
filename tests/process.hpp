// Running the program: the file named by the environment variable ECHOD, else the one that was built with the tests.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

/// A process that writes to us: its standard output and error come through one pipe.
class Process {
 public:
  enum class Output { piped, closed };

  /// Starts it; `descriptors`, if not 0, is its limit of open descriptors, soft and hard; `program`, if not empty,
  /// another program; `closed` closes its standard input, output and error.
  explicit Process(const std::vector<std::string>& arguments, rlim_t descriptors = 0, std::string program = {},
                   Output output = Output::piped);
  Process(const Process&) = delete;
  /// Kills it if it is still running.
  ~Process();

  void signal(int number);
  /// The next line of its output, without the newline; what is left of it at the end.
  std::string line();
  /// All of its output to the end.
  std::string output();
  /// Waits for its end: the exit status, or minus the number of the signal that killed it.
  int wait();
  /// After wait(): what it used; the memory up to the last signal() at least.
  double cpu_seconds() const;
  double peak_kilobytes() const;
  pid_t pid() const { return pid_; }

 private:
  bool read_more();

  pid_t pid_;
  int pipe_ = -1;
  std::string unread_;
  rusage used_{};
  double peak_kilobytes_ = 0;
};

/// echod, or another `program` like it, on a free port of 127.0.0.1, listening.
class Echod : public Process {
 public:
  explicit Echod(const std::vector<std::string>& options = {}, rlim_t descriptors = 0, const std::string& program = {});
  std::uint16_t port() const { return port_; }
  /// SIGTERM, and wait().
  int stop();

 private:
  std::uint16_t port_;
};

struct Result {
  int status;
  std::string output;
};

/// Runs echod to its end.
Result run_echod(const std::vector<std::string>& arguments);

/// The address sanitizer changes what memory a process takes.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif
