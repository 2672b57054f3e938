#include "echod/event_loop.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "echod/system.hpp"
#include "echod/trace.hpp"

namespace echod {

namespace {

[[noreturn]] void fail(const char* call) { throw std::system_error(errno, std::generic_category(), call); }

}  // namespace

EventLoop::EventLoop() : kqueue_(::kqueue()) {
  if (kqueue_ < 0) fail("kqueue");
  ::fcntl(kqueue_, F_SETFD, FD_CLOEXEC);
}

EventLoop::~EventLoop() { ::close(kqueue_); }

void EventLoop::change(std::uintptr_t ident, short filter, unsigned short flags, EventHandler& handler,
                       std::int64_t data) {
  struct kevent change;
  EV_SET(&change, ident, filter, flags, 0, data, &handler);
  // One change a call, at once: changes kept for later could meet another file under the same number. With no room for
  // events, kevent does not wait, and returns -1 for a change that is refused.
  const int error = ::kevent(kqueue_, &change, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
  if (trace::on) trace::change(change, error);
  if (error != 0) throw std::system_error(error, std::generic_category(), "kevent");
}

void EventLoop::run(const std::function<bool()>& after_batch) {
  do {
    const int count = system::wait(kqueue_, batch_.data(), static_cast<int>(batch_.size()));
    if (count < 0 && errno != EINTR) fail("kevent");
    if (trace::on && count > 0) trace::batch(count);
    for (int i = 0; i < count; ++i) {
      const struct kevent& event = batch_[static_cast<std::size_t>(i)];
      if (trace::on) trace::event(event);
      static_cast<EventHandler*>(event.udata)->on_event(event);
    }
  } while (after_batch());
}

}  // namespace echod
