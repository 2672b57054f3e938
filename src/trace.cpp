#include "echod/trace.hpp"

#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>

namespace echod::trace {

bool on = false;

namespace {

struct Name {
  int value;
  const char* name;
};

constexpr Name flag_names[] = {{EV_ADD, "EV_ADD"},         {EV_DELETE, "EV_DELETE"},   {EV_ENABLE, "EV_ENABLE"},
                               {EV_DISABLE, "EV_DISABLE"}, {EV_ONESHOT, "EV_ONESHOT"}, {EV_CLEAR, "EV_CLEAR"},
                               {EV_EOF, "EV_EOF"},         {EV_ERROR, "EV_ERROR"}};

std::string names_of(int flags) {
  std::string names;
  for (const auto& [value, name] : flag_names) {
    if ((flags & value) == 0) continue;
    names.append(names.empty() ? "" : "|").append(name);
    flags &= ~value;
  }
  if (flags != 0) names.append(names.empty() ? "" : "|").append(std::to_string(flags));
  return names.empty() ? "-" : names;
}

void line(const char* what, const struct kevent& kev) {
  const char* filter = "?";
  const char* ident = "ident";
  switch (kev.filter) {
    case EVFILT_READ: filter = "EVFILT_READ", ident = "fd"; break;
    case EVFILT_WRITE: filter = "EVFILT_WRITE", ident = "fd"; break;
    case EVFILT_SIGNAL: filter = "EVFILT_SIGNAL", ident = "signal"; break;
    case EVFILT_TIMER: filter = "EVFILT_TIMER", ident = "timer"; break;
    default: break;
  }
  const std::string subject = std::string(ident).append(" ").append(std::to_string(kev.ident));
  std::fprintf(stderr, "%-7s %-13s %-14s %-16s data %lld", what, subject.c_str(), filter, names_of(kev.flags).c_str(),
               static_cast<long long>(kev.data));
  if (kev.fflags != 0) std::fprintf(stderr, " fflags %u", kev.fflags);
}

}  // namespace

void batch(int events) { std::fprintf(stderr, "batch   %d event%s\n", events, events == 1 ? "" : "s"); }

void event(const struct kevent& event) {
  line("event", event);
  std::fputc('\n', stderr);
}

void change(const struct kevent& change, int error) {
  line("change", change);
  std::fprintf(stderr, error == 0 ? "\n" : ": %s\n", std::strerror(error));
}

void action(int descriptor, const char* format, ...) {
  std::fprintf(stderr, "  fd %d: ", descriptor);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
}

}  // namespace echod::trace
