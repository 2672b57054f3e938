// EventLoop: the kqueue, and the loop that waits on it.
//
// The model, in words of kqueue(2):
//
//   A kqueue is a kernel object that is asked to watch things. Each watch is a knote, named by an ident (what is
//   watched: a descriptor, a signal's number, a timer's number of our choice) and a filter (what about it:
//   EVFILT_READ, EVFILT_WRITE, EVFILT_SIGNAL, EVFILT_TIMER). A knote carries a word of ours, udata, and brings it back
//   with every event: here always the EventHandler to call.
//
//   One call of kevent(2) waits and copies out a batch: what is ready now (256 at most), one event for each knote. The
//   read and write filters are level-triggered, like poll(2): as long as there is something to read, every batch says
//   so. A handler may thus do one step and return; but a filter whose event it does not act on has to be disabled.
//
//   Closing a descriptor takes its knotes out of the kqueue, but not the events already copied out. A handler can
//   therefore be called, later in the batch, for something that an earlier handler has ended. So nothing is destroyed
//   inside a batch: neither the handler, which would be called after its end, nor the descriptor, whose number
//   would go to the next accepted connection. That waits for `after_batch`. (But for the listener, when
//   the server stops: nothing is accepted after that, so its number goes to nobody.)
#pragma once

#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>

#include <array>
#include <cstdint>
#include <functional>

namespace echod {

/// Something that has events. It is registered by its address, hence cannot be copied.
class EventHandler {
 public:
  EventHandler() = default;
  EventHandler(const EventHandler&) = delete;
  EventHandler& operator=(const EventHandler&) = delete;

  /// One event that was asked for; see struct kevent in kqueue(2). An exception ends EventLoop::run.
  virtual void on_event(const struct kevent& event) = 0;

 protected:
  ~EventHandler() = default;
};

class EventLoop {
 public:
  /// Throws std::system_error if there is no kqueue to be had.
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Adds a knote, or alters or deletes one: EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE, EV_ONESHOT. Takes effect at
  /// once. The handler is not owned, and goes with every change, because every change overwrites udata.
  /// `data` is what the filter takes: for EVFILT_TIMER the span in milliseconds.
  /// Throws std::system_error, with kevent's errno, if the kernel refuses.
  void change(std::uintptr_t ident, short filter, unsigned short flags, EventHandler& handler, std::int64_t data = 0);

  /// Waits for events and hands each to its handler, batch after batch. After each batch it calls `after_batch`,
  /// and returns when that says false. Throws std::system_error if kevent fails, and what handlers throw.
  void run(const std::function<bool()>& after_batch);

 private:
  int kqueue_;
  std::array<struct kevent, 256> batch_;
};

}  // namespace echod
