// EventLoop: owns the kqueue, and runs the one loop around kevent(2).
//
// A kqueue is a kernel object that watches things for a process. Each watch is a knote, named by an
// ident (a descriptor or a signal number) and a filter (EVFILT_READ, EVFILT_WRITE, EVFILT_SIGNAL).
// kevent(2) waits, and then copies out a batch: one event for each knote that is ready.
//
// Read and write filters are level-triggered, like poll(2): unread input is in every batch, so a
// handler can read once and return. The price: a filter whose events nobody acts on must be
// disabled, or the loop spins. Why no other mode? With EV_CLEAR, a handler that reads once has to
// keep a list of those who have more; one that reads until EAGAIN lets a fast client keep the
// others waiting. An event with EV_ONESHOT deletes its knote, and one with EV_DISPATCH disables it,
// so each event would need one more change to bring the filter back.
//
// close(2) removes the knotes of a descriptor, but not the events already copied out. Such a stale
// event could reach a handler that is gone, or a new socket with the same number. So a descriptor
// that can have events must be closed only in before_wait().
#pragma once

#include <sys/types.h>
// <sys/types.h> comes first, as in the synopsis of kqueue(2).
#include <sys/event.h>

#include <array>
#include <chrono>
#include <optional>

namespace echod {
class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  class Handler {
   public:
    /// Handles one event, as kevent(2) delivered it.
    virtual void on_event(const struct kevent& event) = 0;
    /// Called before each wait for events: the batch before it, if any, has been handled. Returns
    /// the deadline of the wait (time_point::max(): none, wait until an event comes). With nullopt,
    /// run() returns.
    virtual std::optional<Clock::time_point> before_wait() = 0;
    virtual ~Handler() = default;
  };

  /// Throws std::system_error if kqueue(2) fails.
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Adds, deletes, enables or disables a knote (EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE), at
  /// once. Throws std::system_error with the errno of kevent(2): ENOMEM without memory for the
  /// knote, ENOENT if there is none.
  void change(int ident, short filter, unsigned short flags);

  /// Enables `to`, which is EVFILT_READ or EVFILT_WRITE, and switches off the other of the two. The
  /// other must be on, and EVFILT_READ must have been added before. Throws like change(); after an
  /// exception both can be off.
  void switch_filter(int descriptor, short to);

  /// Passes events to `handler` until before_wait() returns nullopt. Throws what these throw, or
  /// std::system_error.
  void run(Handler& handler);

 private:
  int kqueue_;
  // 8 KiB on macOS and 16 KiB on FreeBSD. A larger batch saves little under load: one call for 256
  // events is next to nothing.
  std::array<struct kevent, 256> batch_;
};
}  // namespace echod
