#include "echod/event_loop.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

#include "system.hpp"
#include "trace.hpp"

namespace echod {
namespace {
/// The time until `deadline`, as kevent(2) takes it. For a time in the past it is zero, and kevent
/// does not wait.
timespec time_until(EventLoop::Clock::time_point deadline) {
  const auto now = EventLoop::Clock::now();
  const std::int64_t left = deadline <= now ? 0 : std::chrono::nanoseconds(deadline - now).count();
  return {static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
}
}  // namespace

EventLoop::EventLoop() : kqueue_(::kqueue()) {
  if (kqueue_ < 0) throw std::system_error(errno, std::generic_category(), "kqueue");
  ::fcntl(kqueue_, F_SETFD, FD_CLOEXEC);  // some systems have set it already
}
EventLoop::~EventLoop() { ::close(kqueue_); }

void EventLoop::change(int ident, short filter, unsigned short flags) {
  struct kevent change;
  // udata is not used: a change overwrites it, so every change would have to bring it again.
  // Server finds a client by `ident`.
  EV_SET(&change, static_cast<std::uintptr_t>(ident), filter, flags, 0, 0, nullptr);
  // One change per call, at once. If it waited in a list, the descriptor could be closed meanwhile,
  // and the change would meet a new socket with the same number.
  const int error = system::change(kqueue_, change) == 0 ? 0 : errno;  // kevent(2)
  trace::change(change, error);
  if (error != 0) throw std::system_error(error, std::generic_category(), "kevent");
}

/// The other filter must not stay enabled. A read filter would make the loop spin while nobody
/// reads, and a write filter while there is nothing to write, because a socket is nearly always
/// ready for writing.
///
/// The read filter comes back soon, so it is only disabled. It takes EV_ENABLE to bring it back:
/// EV_ADD would leave it disabled. The write filter is needed rarely, so it is deleted, and most
/// clients have one knote.
void EventLoop::switch_filter(int descriptor, short to) {
  if (to == EVFILT_WRITE) {
    change(descriptor, EVFILT_READ, EV_DISABLE);
    change(descriptor, EVFILT_WRITE, EV_ADD);
  } else {
    change(descriptor, EVFILT_WRITE, EV_DELETE);
    change(descriptor, EVFILT_READ, EV_ENABLE);
  }
}

void EventLoop::run(Handler& handler) {
  while (const auto deadline = handler.before_wait()) {
    const bool endless = *deadline == Clock::time_point::max();
    const timespec time = endless ? timespec{} : time_until(*deadline);
    const int count = system::wait(kqueue_, batch_, endless ? nullptr : &time);  // kevent(2)
    // These two mean that there are no events, and the loop below does nothing then. EINTR: a
    // signal handler has run. ETIMEDOUT: macOS has been seen to report the end of the wait so.
    if (count < 0 && errno != EINTR && errno != ETIMEDOUT)
      throw std::system_error(errno, std::generic_category(), "kevent");
    trace::batch(count);
    for (int i = 0; i < count; ++i) {
      const struct kevent& event = batch_[static_cast<std::size_t>(i)];
      trace::event(event);
      handler.on_event(event);
    }
  }
}
}  // namespace echod
