#include "trace.hpp"

#include <cstdio>
#include <cstring>
#include <string>

#include "echod/connection.hpp"

namespace echod {
namespace {
constexpr std::pair<int, const char*> flag_names[] = {
    {EV_ADD, "EV_ADD"},         {EV_DELETE, "EV_DELETE"}, {EV_ENABLE, "EV_ENABLE"},
    {EV_DISABLE, "EV_DISABLE"}, {EV_CLEAR, "EV_CLEAR"},   {EV_EOF, "EV_EOF"}};

void print(const char* what, const struct kevent& kev, int error) {
  const bool signal = kev.filter == EVFILT_SIGNAL;
  const std::string subject = (signal ? "signal " : "fd ") + std::to_string(kev.ident);
  const char* const filter = signal                      ? "EVFILT_SIGNAL"
                             : kev.filter == EVFILT_READ ? "EVFILT_READ"
                                                         : "EVFILT_WRITE";
  std::string flags;
  for (const auto& [value, name] : flag_names)
    if ((kev.flags & value) != 0) flags.append(flags.empty() ? "" : "|").append(name);
  std::fprintf(stderr, "%-7s %-13s %-14s %-16s data %lld%s%s\n", what, subject.c_str(), filter,
               flags.empty() ? "-" : flags.c_str(), static_cast<long long>(kev.data),
               error == 0 ? "" : ": ", error == 0 ? "" : std::strerror(error));
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

void trace::step(const Connection& client, const Moved& moved) {
  static constexpr const char* states[] = {"echoing", "at_end", "closing", "lingering", "ended"};
  if (!on) return;
  std::fprintf(stderr, "  fd %d: received %zu, sent %zu, unsent %zu, held %zu: %s%s%s\n",
               client.descriptor(), moved.received, moved.sent, client.unsent(), client.held(),
               states[static_cast<int>(client.state())], moved.error == 0 ? "" : ": ",
               moved.error == 0 ? "" : std::strerror(moved.error));
}
void trace::action(int descriptor, const char* what) {
  if (on) std::fprintf(stderr, "  fd %d: %s\n", descriptor, what);
}
}  // namespace echod
