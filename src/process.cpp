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
void prepare_process() noexcept {
  int descriptor = 0;
  do {
    descriptor = ::open("/dev/null", O_RDWR);  // open(2) takes the lowest number that is free
  } while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  std::signal(SIGPIPE, SIG_IGN);
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

void say(const char* format, ...) noexcept {
  // A pipe that poll(2) calls writable takes 512 bytes (_POSIX_PIPE_BUF).
  char line[512] = "echod: ";
  const std::size_t start = std::strlen(line);
  va_list arguments;
  va_start(arguments, format);
  // vsnprintf(3) returns the length of the whole text, also if there was no room for it.
  const int wanted = std::vsnprintf(line + start, sizeof line - start, format, arguments);
  va_end(arguments);
  const std::size_t text = static_cast<std::size_t>(std::max(wanted, 0));
  const std::size_t length = std::min(start + text, sizeof line - 1);
  line[length] = '\n';
  pollfd error{STDERR_FILENO, POLLOUT, 0};
  const bool has_room = ::poll(&error, 1, 0) == 1 && (error.revents & POLLOUT) != 0;
  // The result is of no use: there is nowhere to report that standard error fails. But glibc wants
  // somebody to look at it.
  if (has_room && ::write(STDERR_FILENO, line, length + 1) < 0) return;
}
}  // namespace echod
