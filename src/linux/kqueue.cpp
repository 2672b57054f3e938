// kqueue(2) on epoll(7), timerfd and eventfd: how one would build the one from the other.
//
// The two differ in their unit. A kqueue holds knotes: one for every (ident, filter), each with its own udata
// and flags. epoll holds one entry for a descriptor, with one mask and one word of data. So beside each epoll
// descriptor stands a table (Queue) with the knotes, and the mask of an entry is made of its two filters:
//
//   knotes of descriptor 7                         epoll's entry for 7
//   EVFILT_READ   enabled    udata = A   \___      EPOLLIN | EPOLLRDHUP | EPOLLOUT
//   EVFILT_WRITE  enabled    udata = B   /
//
// A timer is a timerfd, a signal an eventfd that a signal handler adds to: two more descriptors for epoll.
//
// close() takes a descriptor out of a kqueue, and out of epoll, but not out of our table, and we are not told.
// The next change for that number tells: EPOLL_CTL_MOD fails with ENOENT if it is not the file that was added.
// Then both knotes are forgotten, and the change is made as if for a new descriptor. To keep that witness, the
// entry stays while both filters are disabled. epoll reports EPOLLHUP and EPOLLERR even with an empty mask, so
// such an entry is EPOLLONESHOT: it can wake us once, for nothing, and then sleeps.
//
// Limits, next to what a BSD gives:
//   - For one thread. Several kqueues may be open, but a signal goes to the one that asked for it last.
//   - Of a descriptor's events `data` is 1 and `fflags` 0: the number of bytes would cost a system call for each
//     event, and asking for the error of a socket clears it, so that read() would no longer report it.
//   - A timer takes milliseconds only; so does the time-out, which may begin again once, after waking for nothing.
//   - A watched signal is not acted on, whatever its disposition was; and signals that another process sends before we
//     run once count as one, as always on Linux.
//   - A descriptor closed while a duplicate of it is open stays in epoll. A kqueue is inherited over fork().
//   - What is not done at all (another filter, flag or note, or a regular file) fails with EINVAL.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <map>
#include <vector>

namespace {

struct Knote {
  void* udata = nullptr;
  bool added = false;
  bool enabled = false;
  bool oneshot = false;

  bool active() const { return added && enabled; }

  /// Does what the change says; returns 0 or the errno of a kqueue. Every change brings its udata along.
  int change(const struct kevent& change) {
    if ((change.flags & EV_ADD) == 0 && !added) return ENOENT;
    if ((change.flags & EV_DELETE) != 0) {
      *this = {};
      return 0;
    }
    if (!added) enabled = true;
    added = true;
    udata = change.udata;
    if ((change.flags & EV_ADD) != 0) oneshot = (change.flags & EV_ONESHOT) != 0;
    if ((change.flags & EV_DISABLE) != 0) enabled = false;
    if ((change.flags & EV_ENABLE) != 0) enabled = true;
    return 0;
  }
};

struct Descriptor {  // what one entry of epoll stands for
  Knote read;
  Knote write;

  bool known() const { return read.added || write.added; }
  std::uint32_t mask() const {
    const std::uint32_t mask = (read.active() ? EPOLLIN | EPOLLRDHUP : 0U) | (write.active() ? EPOLLOUT : 0U);
    return mask != 0 ? mask : EPOLLONESHOT;
  }
};

struct Source {  // a timer or a signal: a descriptor of our own
  std::uintptr_t ident = 0;
  short filter = 0;
  Knote knote;
};

struct Queue {
  std::vector<Descriptor> descriptors;  // by number
  std::map<int, Source> sources;        // by our own descriptor's number
};

std::map<int, Queue> queues;  // by the epoll descriptor's number

// epoll gives back one word for an entry: the descriptor, and whether it is a Source.
constexpr std::uint64_t is_source = std::uint64_t{1} << 32;

int control(int kq, int operation, int fd, std::uint32_t mask, std::uint64_t word) {
  epoll_event entry{};
  entry.events = mask;
  entry.data.u64 = word;
  if (epoll_ctl(kq, operation, fd, &entry) == 0) return 0;
  return errno == EPERM ? EINVAL : errno;  // EPERM: a regular file
}

int change_descriptor(int kq, Queue& queue, const struct kevent& change) {
  if (change.fflags != 0) return EINVAL;
  if (change.ident > INT_MAX) return EBADF;
  const int fd = static_cast<int>(change.ident);
  if (change.ident >= queue.descriptors.size()) {
    if ((change.flags & EV_ADD) == 0) return ENOENT;
    if (fcntl(fd, F_GETFD) < 0) return EBADF;
    queue.descriptors.resize(change.ident + 1);
  }
  Descriptor& now = queue.descriptors[change.ident];
  for (;;) {
    Descriptor next = now;
    const int refused = (change.filter == EVFILT_READ ? next.read : next.write).change(change);
    if (refused != 0) return refused;
    const int operation = !now.known() ? EPOLL_CTL_ADD : next.known() ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    const int error = control(kq, operation, fd, next.mask(), change.ident);
    if (error == 0) now = next;
    if (error != ENOENT && error != EBADF) return error;
    now = {};  // it was closed since
    if (error == EBADF) return error;
  }
}

volatile std::sig_atomic_t counter_of[NSIG];  // the eventfd of a watched signal
struct sigaction disposition_of[NSIG];        // and what it did before it was watched

extern "C" void count_signal(int number) {
  const int saved = errno;
  const std::uint64_t one = 1;
  if (write(static_cast<int>(counter_of[number]), &one, sizeof one) < 0) abort();
  errno = saved;
}

bool watched(std::uintptr_t number) {
  struct sigaction current {};
  return sigaction(static_cast<int>(number), nullptr, &current) == 0 && current.sa_handler == count_signal;
}

int open_signal(std::uintptr_t number) {
  if (number == 0 || number >= NSIG) return errno = EINVAL, -1;
  const int counter = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (counter < 0) return -1;
  counter_of[number] = counter;
  struct sigaction action {};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART;
  if (!watched(number)) sigaction(static_cast<int>(number), &action, &disposition_of[number]);
  return counter;
}

void close_source(int fd, const Source& source) {
  const int number = static_cast<int>(source.ident);
  if (source.filter == EVFILT_SIGNAL && counter_of[number] == fd) {
    if (watched(source.ident)) sigaction(number, &disposition_of[number], nullptr);
    counter_of[number] = -1;
  }
  close(fd);
}

int arm_timer(int fd, const struct kevent& change) {
  const std::int64_t milliseconds = std::max<std::int64_t>(change.data, 1);
  itimerspec span{};
  span.it_value = {milliseconds / 1000, milliseconds % 1000 * 1'000'000};
  if ((change.flags & EV_ONESHOT) == 0) span.it_interval = span.it_value;
  return timerfd_settime(fd, 0, &span, nullptr) == 0 ? 0 : errno;
}

int change_source(int kq, Queue& queue, const struct kevent& change) {
  if (change.fflags != 0 || (change.filter == EVFILT_TIMER && change.data < 0)) return EINVAL;
  auto found = std::find_if(queue.sources.begin(), queue.sources.end(), [&](const auto& entry) {
    return entry.second.ident == change.ident && entry.second.filter == change.filter;
  });
  if (found == queue.sources.end()) {
    if ((change.flags & EV_ADD) == 0) return ENOENT;
    const int fd = change.filter == EVFILT_SIGNAL ? open_signal(change.ident)
                                                  : timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) return errno;
    found = queue.sources.emplace(fd, Source{change.ident, change.filter, {}}).first;
    const int error = control(kq, EPOLL_CTL_ADD, fd, 0, is_source | static_cast<std::uint32_t>(fd));
    if (error != 0) {
      close_source(fd, found->second);
      queue.sources.erase(found);
      return error;
    }
  }
  auto& [fd, source] = *found;
  int error = source.knote.change(change);
  if (error == 0 && change.filter == EVFILT_TIMER && (change.flags & EV_ADD) != 0) error = arm_timer(fd, change);
  if (error == 0 && source.knote.added)
    return control(kq, EPOLL_CTL_MOD, fd, source.knote.enabled ? EPOLLIN : 0U,
                   is_source | static_cast<std::uint32_t>(fd));
  close_source(fd, source);
  queue.sources.erase(found);
  return error;
}

int make_change(int kq, Queue& queue, const struct kevent& change) {
  if ((change.flags & ~(EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_ONESHOT)) != 0) return EINVAL;
  switch (change.filter) {
    case EVFILT_READ:
    case EVFILT_WRITE: return change_descriptor(kq, queue, change);
    case EVFILT_SIGNAL:
    case EVFILT_TIMER: return change_source(kq, queue, change);
    default: return EINVAL;
  }
}

/// Writes the event of one knote, and deletes the knote if it was to fire once.
void deliver(int kq, Queue& queue, const Knote& knote, struct kevent& event) {
  const bool oneshot = knote.oneshot;
  event.udata = knote.udata;
  if (!oneshot) return;
  struct kevent removal;
  EV_SET(&removal, event.ident, event.filter, EV_DELETE, 0, 0, nullptr);
  make_change(kq, queue, removal);
}

/// One epoll event is up to two events of a kqueue, for which there is `room`; returns how many.
int deliver_descriptor(int kq, Queue& queue, const epoll_event& entry, struct kevent* events, int room) {
  Descriptor& descriptor = queue.descriptors[entry.data.u64];
  const bool broken = (entry.events & (EPOLLHUP | EPOLLERR)) != 0;
  const bool ended = broken || (entry.events & EPOLLRDHUP) != 0;
  const bool readable = descriptor.read.active() && (ended || (entry.events & EPOLLIN) != 0);
  const bool writable = descriptor.write.active() && (broken || (entry.events & EPOLLOUT) != 0);
  int count = 0;
  if (readable) {
    EV_SET(&events[count], entry.data.u64, EVFILT_READ, ended ? EV_EOF : 0, 0, 1, nullptr);
    deliver(kq, queue, descriptor.read, events[count++]);
  }
  if (writable && count < room) {
    EV_SET(&events[count], entry.data.u64, EVFILT_WRITE, broken ? EV_EOF : 0, 0, 1, nullptr);
    deliver(kq, queue, descriptor.write, events[count++]);
  }
  return count;
}

int deliver_source(int kq, Queue& queue, int fd, struct kevent* event) {
  const Source& source = queue.sources.at(fd);
  std::uint64_t times = 0;  // how often it fired, or was sent, since we read it last
  if (read(fd, &times, sizeof times) < 0) return 0;
  EV_SET(event, source.ident, source.filter, EV_CLEAR, 0, static_cast<std::int64_t>(times), nullptr);
  deliver(kq, queue, source.knote, *event);
  return 1;
}

}  // namespace

int kqueue() {
  const int fd = epoll_create1(0);
  if (fd < 0) return -1;
  Queue& queue = queues[fd];  // may hold what a kqueue of the same number, closed since, has left
  for (const auto& [number, source] : queue.sources) close_source(number, source);
  queue = {};
  return fd;
}

int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist, int nevents,
           const struct timespec* timeout) {
  const auto found = queues.find(kq);
  if (found == queues.end()) return errno = EBADF, -1;
  Queue& queue = found->second;
  int count = 0;
  for (int i = 0; i < nchanges; ++i) {
    const int error = make_change(kq, queue, changelist[i]);
    if (error == 0) continue;
    if (count == nevents) return errno = error, -1;
    EV_SET(&eventlist[count], changelist[i].ident, changelist[i].filter, EV_ERROR, 0, error, changelist[i].udata);
    ++count;
  }
  if (count > 0 || nevents == 0) return count;

  epoll_event ready[256];
  const int room = std::clamp(nevents / 2, 1, 256);
  const int milliseconds =
      timeout == nullptr ? -1 : static_cast<int>(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999'999) / 1'000'000);
  while (count == 0) {
    int n = epoll_wait(kq, ready, room, milliseconds);
    if (n < 0 && errno == EINTR) {  // a signal that we watch is an event, any other ends the call
      n = epoll_wait(kq, ready, room, 0);
      if (n == 0) return errno = EINTR, -1;
    }
    if (n <= 0) return n;
    for (int i = 0; i < n; ++i)
      count += (ready[i].data.u64 & is_source) != 0
                   ? deliver_source(kq, queue, static_cast<int>(ready[i].data.u64 & ~is_source), &eventlist[count])
                   : deliver_descriptor(kq, queue, ready[i], &eventlist[count], nevents - count);
  }
  return count;
}
