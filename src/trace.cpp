#include "trace.hpp"

#include <sys/types.h>
#include <sys/event.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

namespace echod {
namespace {
constexpr std::pair<int, const char*> flag_names[] = {
    {EV_ADD, "EV_ADD"},         {EV_DELETE, "EV_DELETE"}, {EV_ENABLE, "EV_ENABLE"},
    {EV_DISABLE, "EV_DISABLE"}, {EV_CLEAR, "EV_CLEAR"},   {EV_EOF, "EV_EOF"}};

const char* name_of(short filter) {
  switch (filter) {
    case EVFILT_READ: return "EVFILT_READ";
    case EVFILT_WRITE: return "EVFILT_WRITE";
    default: return "EVFILT_SIGNAL";
  }
}

std::string names_of_flags(unsigned flags) {
  std::string names;
  for (const auto& [value, name] : flag_names) {
    if ((flags & static_cast<unsigned>(value)) == 0) continue;
    if (!names.empty()) names += "|";
    names += name;
  }
  return names.empty() ? "-" : names;
}

void print(const char* what, const struct kevent& kev, int error) {
  const char* const kind = kev.filter == EVFILT_SIGNAL ? "signal " : "fd ";
  const std::string subject = kind + std::to_string(kev.ident);
  std::fprintf(stderr, "%-7s %-13s %-14s %-16s data %lld%s%s\n", what, subject.c_str(),
               name_of(kev.filter), names_of_flags(kev.flags).c_str(),
               static_cast<long long>(kev.data), error != 0 ? ": " : "",
               error != 0 ? std::strerror(error) : "");
}
}  // namespace

bool trace::on = false;

void trace::batch(int events) {
  if (on && events > 0) std::fprintf(stderr, "batch   events: %d\n", events);
}
void trace::event(const struct kevent& event) {
  // With EV_EOF, fflags is the error of the socket.
  if (on) print("event", event, static_cast<int>(event.fflags));
}
void trace::change(const struct kevent& change, int error) {
  if (on) print("change", change, error);
}

void trace::line(int descriptor, const char* format, ...) {
  if (!on) return;
  std::fprintf(stderr, "  fd %d: ", descriptor);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
}
}  // namespace echod
