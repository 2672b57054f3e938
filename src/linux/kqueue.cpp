// kqueue(2) on epoll(7) and eventfd(2): what echod and the tutorial use, what the lessons of
// tests/kqueue_test.cpp show besides (udata, changes together with events), and what test programs
// need, which open many kqueues. tests/kqueue_adapter_test.cpp has what only this adapter does.
//
// A kqueue holds one knote per (ident, filter), each with its own udata. epoll holds one entry per
// descriptor, with one mask and one word of data. So a table holds the knotes, and both knotes of a
// descriptor make the mask of its entry:
//
//   knotes of descriptor 7                         epoll's entry for 7
//   EVFILT_READ   enabled    udata = A   \___      EPOLLIN | EPOLLRDHUP | EPOLLOUT
//   EVFILT_WRITE  enabled    udata = B   /
//
// close() removes a descriptor from epoll, but not from the table. The next change for that number
// finds out, because EPOLL_CTL_MOD fails with ENOENT for a new file. Then the knotes are discarded,
// and the change is made for the new file. (It is the same in a new kqueue, whose epoll knows
// nothing yet.) That is why the entry stays while both filters are disabled. epoll reports EPOLLHUP
// and EPOLLERR even with an empty mask; EPOLLONESHOT limits that to one wake-up, which kevent()
// does not report.
//
// A signal handler counts each watched signal and wakes epoll_wait() through one eventfd.
//
// Limits, compared with a BSD:
//   - A process has one kqueue at a time, for one thread. It can open another after it closed the
//     first.
//   - fork() passes the kqueue on. A child that calls kqueue() starts with nothing; the parent
//     keeps its own.
//   - A descriptor's event has data 1 and fflags 0. The number of bytes would cost a system call
//     per event. Asking for a socket's error clears it, and read() would then not report it.
//   - With room for one event, the read filter always comes before the write filter of the same
//     descriptor.
//   - A TCP socket that is not connected reports EV_EOF.
//   - A stop (SIGSTOP, Control-Z) and its continuation end a kevent() that waits, with EINTR.
//   - While a copy of a closed socket is open, epoll reports the closed number without end, also to
//     its next owner, and EV_DELETE comes too late. So a loop turns as long. Another process can
//     hold such a copy: new versions of lsfd do, with pidfd_getfd(2).
//   - A signal has EV_ADD only, which unblocks it, and reports it if it was pending. A watched
//     signal has no other effect. A later sigaction() ends the watch. The next kqueue() restores
//     the action, but not the mask.
//   - Linux merges pending signals of one number. Two that are sent to a stopped process count
//     once.
//   - Everything else (other filters, flags and fflags, EV_DELETE with another flag, regular files,
//     time-outs of more than 68 years) fails with EINVAL.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <new>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Knote {
  void* udata = nullptr;
  bool added = false;
  bool enabled = false;

  /// Applies a change and returns 0, or returns the errno that a BSD gives.
  int change(const struct kevent& change) {
    if (!added && (change.flags & EV_ADD) == 0) return ENOENT;
    if ((change.flags & EV_DELETE) != 0) {
      *this = {};
      return 0;
    }
    if (!added) enabled = true;  // EV_ADD leaves a disabled filter disabled.
    added = true;
    udata = change.udata;  // Every change overwrites it.
    if ((change.flags & EV_DISABLE) != 0) enabled = false;
    if ((change.flags & EV_ENABLE) != 0) enabled = true;
    return 0;
  }
};

struct Descriptor {
  Knote read;
  Knote write;

  bool known() const { return read.added || write.added; }
  std::uint32_t mask() const {
    std::uint32_t mask = 0;
    // EPOLLRDHUP: the peer has shut down its sending side, maybe with bytes unread.
    if (read.enabled) mask |= EPOLLIN | EPOLLRDHUP;
    if (write.enabled) mask |= EPOLLOUT;
    return mask != 0 ? mask : EPOLLONESHOT;
  }
};

struct Signal {
  void* udata = nullptr;
  struct sigaction original {};  // the action before EV_ADD
  std::atomic<int> count = 0;    // how many arrived since the last event
};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler needs it");

int queue = -1;                       // the epoll descriptor
std::atomic<int> wakeup = -1;         // the eventfd
std::vector<Descriptor> descriptors;  // by number
Signal signals[NSIG];                 // by number

/// Changes the entry of a descriptor in epoll. Returns 0, or the errno that a BSD gives.
int control(int operation, int fd, std::uint32_t mask) {
  epoll_event entry{mask, {.fd = fd}};
  if (epoll_ctl(queue, operation, fd, &entry) == 0) return 0;
  return errno == EPERM ? EINVAL : errno;  // EPERM: a regular file, or a device such as /dev/null
}

int change_descriptor(const struct kevent& change) {
  const int fd = static_cast<int>(change.ident);
  if (change.ident >= descriptors.size()) {
    // Not for any number, or a wrong one could take all memory.
    if (change.ident > INT_MAX || fcntl(fd, F_GETFD) < 0) return EBADF;
    try {
      descriptors.resize(change.ident + 1);
    } catch (const std::bad_alloc&) {
      return ENOMEM;
    }
  }
  Descriptor& now = descriptors[change.ident];
  for (;;) {
    Descriptor next = now;
    Knote& knote = change.filter == EVFILT_READ ? next.read : next.write;
    const int refused = knote.change(change);
    if (refused != 0) return refused;
    int operation = EPOLL_CTL_MOD;
    if (!now.known()) operation = EPOLL_CTL_ADD;
    if (!next.known()) operation = EPOLL_CTL_DEL;
    const int error = control(operation, fd, next.mask());
    if (error == 0) now = next;
    if (error != ENOENT) return error;
    // The descriptor that the table knew was closed, or was in an earlier kqueue.
    now = {};
  }
}

void wake() { eventfd_write(wakeup, 1); }

extern "C" void count_signal(int number) {
  const int saved = errno;
  ++signals[number].count;
  wake();
  errno = saved;
}

int watch_signal(const struct kevent& change) {
  if (change.flags != EV_ADD) return EINVAL;
  const int number = static_cast<int>(change.ident);
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART;  // On a BSD, an ignored signal does not interrupt a read either.
  if (sigaction(number, &action, &before) != 0) return errno;
  Signal& signal = signals[number];
  if (before.sa_handler != count_signal) signal.original = before;  // EV_ADD may come twice.
  signal.udata = change.udata;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, number);
  sigprocmask(SIG_UNBLOCK, &mask, nullptr);  // A BSD counts blocked signals, too.
  return 0;
}

/// Ends a watch, and restores the action of the signal if it is still ours.
void give_back_signal(int number) {
  Signal& signal = signals[number];
  struct sigaction current {};
  sigaction(number, nullptr, &current);
  if (current.sa_handler == count_signal) sigaction(number, &signal.original, nullptr);
  signal.count = 0;
}

/// Refuses what the adapter lacks. Code that needs it must not seem to work.
int make_change(const struct kevent& change) {
  if ((change.flags & ~(EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE)) != 0) return EINVAL;
  // The systems do not agree what EV_ADD|EV_DELETE does.
  if ((change.flags & EV_DELETE) != 0 && change.flags != EV_DELETE) return EINVAL;
  if (change.fflags != 0) return EINVAL;
  switch (change.filter) {
    case EVFILT_READ:
    case EVFILT_WRITE: return change_descriptor(change);
    case EVFILT_SIGNAL: return watch_signal(change);
    default: return EINVAL;
  }
}

/// Turns an epoll event into at most `room` events of a kqueue. Returns how many.
int deliver_descriptor(const epoll_event& entry, struct kevent* events, int room) {
  const auto ident = static_cast<std::uintptr_t>(entry.data.fd);
  const auto& [read, write] = descriptors[ident];
  const bool broken = (entry.events & (EPOLLHUP | EPOLLERR)) != 0;
  const bool ended = broken || (entry.events & EPOLLRDHUP) != 0;
  int count = 0;
  if (read.enabled && (ended || (entry.events & EPOLLIN) != 0) && count < room) {
    EV_SET(&events[count], ident, EVFILT_READ, ended ? EV_EOF : 0, 0, 1, read.udata);
    ++count;
  }
  if (write.enabled && (broken || (entry.events & EPOLLOUT) != 0) && count < room) {
    EV_SET(&events[count], ident, EVFILT_WRITE, broken ? EV_EOF : 0, 0, 1, write.udata);
    ++count;
  }
  return count;
}

/// Reports the signals that arrived, at most `room`. Returns how many.
int deliver_signals(struct kevent* events, int room) {
  eventfd_t wakeups = 0;
  // Before the counts are read: a signal that arrives in between wakes us again.
  eventfd_read(wakeup, &wakeups);
  int count = 0;
  for (std::uintptr_t number = 1; number < NSIG && count < room; ++number) {
    Signal& signal = signals[number];
    const int times = signal.count.exchange(0);
    if (times == 0) continue;
    EV_SET(&events[count], number, EVFILT_SIGNAL, EV_CLEAR, 0, times, signal.udata);
    ++count;
  }
  if (count == room) wake();  // More signals may be left for the next call.
  return count;
}

/// Fails as a system call does.
int fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

int kqueue() {
  // close() of an earlier kqueue did not give its signals back, nor close the eventfd.
  for (int number = 1; number < NSIG; ++number) give_back_signal(number);
  close(wakeup);  // In a child process, the parent keeps its own copy.
  queue = epoll_create1(0);
  wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (queue >= 0 && wakeup >= 0 && control(EPOLL_CTL_ADD, wakeup, EPOLLIN) == 0) return queue;
  const int error = errno;
  close(queue);
  queue = -1;
  return fail(error);
}

int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist,
           int nevents, const struct timespec* timeout) {
  if (kq < 0 || kq != queue) return fail(EBADF);
  int count = 0;
  for (int i = 0; i < nchanges; ++i) {
    const int error = make_change(changelist[i]);
    if (error == 0) continue;
    if (count == nevents) return fail(error);
    const struct kevent& refused = changelist[i];
    EV_SET(&eventlist[count], refused.ident, refused.filter, EV_ERROR, 0, error, refused.udata);
    ++count;
  }
  if (count > 0 || nevents == 0) return count;

  auto deadline = Clock::time_point::max();
  if (timeout != nullptr) {
    if (timeout->tv_sec < 0 || timeout->tv_sec > INT_MAX || timeout->tv_nsec < 0 ||
        timeout->tv_nsec >= 1'000'000'000)
      return fail(EINVAL);
    deadline = Clock::now() + std::chrono::seconds(timeout->tv_sec) +
               std::chrono::nanoseconds(timeout->tv_nsec);
  }
  epoll_event ready[256];
  const int room = std::clamp(nevents / 2, 1, 256);  // Each can become two events.
  for (;;) {
    // Rounded up, because kevent() must not return early.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    int n =
        epoll_wait(kq, ready, room, static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX)));
    if (n < 0 && errno == EINTR) {  // A watched signal is an event. Any other ends the call.
      n = epoll_wait(kq, ready, room, 0);
      if (n == 0) return fail(EINTR);
    }
    if (n < 0) return -1;
    for (int i = 0; i < n; ++i) {
      struct kevent* const events = &eventlist[count];
      const int left_room = nevents - count;
      if (ready[i].data.fd == wakeup)
        count += deliver_signals(events, left_room);
      else
        count += deliver_descriptor(ready[i], events, left_room);
    }
    // Without an event there can be time left: epoll also reports what is disabled, or nobody's,
    // and cannot wait longer than INT_MAX milliseconds.
    if (count > 0 || Clock::now() >= deadline) return count;
  }
}
