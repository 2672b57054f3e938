#include "echod/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <system_error>
#ifdef __FreeBSD__
#include <sys/capsicum.h>
#endif

namespace echod {
namespace {
/// A descriptor below 3 that is closed would be given to a client, which then receives what is
/// meant for standard error.
void open_standard_descriptors() {
  for (int standard = STDIN_FILENO; standard <= STDERR_FILENO; ++standard) {
    if (::fcntl(standard, F_GETFD) >= 0) continue;
    // Takes the lowest number that is free, which is this one.
    if (::open("/dev/null", O_RDWR) >= 0) continue;
    throw std::system_error(
        errno, std::generic_category(),
        "cannot open /dev/null in place of descriptor " + std::to_string(standard));
  }
}
}  // namespace

void prepare_process() {
  open_standard_descriptors();
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;  // The soft limit is often 256 or 1024.
  ::setrlimit(RLIMIT_NOFILE, &limit);
  // What a write can raise: to a client that has gone; to a terminal that stops background jobs
  // (stty tostop); to a log at its size limit. Ignored, the write succeeds or fails instead.
  for (const int number : {SIGPIPE, SIGTTOU, SIGXFSZ}) std::signal(number, SIG_IGN);
  // Until the server watches it, a request for a status line must not end the process.
  std::signal(SIGUSR1, SIG_IGN);
  // A signal that was blocked when the process started, and has come, ends it here. Later it would
  // be lost: a kqueue does not see what was pending before.
  sigset_t stop;
  sigemptyset(&stop);  // no "::" here: on macOS, these are macros
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&stop, number);
  ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
}

void enter_capability_mode() {
#ifdef __FreeBSD__
  if (::cap_enter() < 0 && errno != ENOSYS)
    throw std::system_error(errno, std::generic_category(), "cap_enter");
#endif
}

std::string descriptor_limit_hint(const std::exception& error) {
  const auto* const refused = dynamic_cast<const std::system_error*>(&error);
  rlimit limit{};
  if (refused == nullptr || refused->code().value() != EMFILE) return {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
  return " (the limit is " + std::to_string(limit.rlim_cur) + ": see ulimit -n)";
}

bool say_waits = true;

void say(const char* format, ...) noexcept {
  // A pipe that poll(2) calls writable takes 512 bytes (_POSIX_PIPE_BUF).
  char line[512] = "echod: ";
  const std::size_t start = std::strlen(line);
  va_list arguments;
  va_start(arguments, format);
  // vsnprintf(3) returns the length of the whole text, also if there was no room for it.
  const int wanted = std::vsnprintf(line + start, sizeof line - start, format, arguments);
  va_end(arguments);
  const std::size_t text_length = static_cast<std::size_t>(std::max(wanted, 0));
  const std::size_t length = std::min(start + text_length, sizeof line - 1);
  line[length] = '\n';
  // Of a device, poll(2) of macOS says only POLLNVAL.
  pollfd entry{STDERR_FILENO, POLLOUT, 0};
  const bool has_room =
      ::poll(&entry, 1, say_waits ? 5000 : 0) == 1 && (entry.revents & (POLLOUT | POLLNVAL)) != 0;
  if (!has_room) return;
  // There is nowhere to report that standard error fails.
  [[maybe_unused]] const ssize_t count = ::write(STDERR_FILENO, line, length + 1);
}
}  // namespace echod
