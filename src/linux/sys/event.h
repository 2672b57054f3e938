// <sys/event.h> for Linux: the part of kqueue(2) that kqueue.cpp, beside this folder, gives on epoll(7).
// Names, values and meanings are those of FreeBSD; what is not declared here is not to be had.
#pragma once

#include <cstdint>
#include <ctime>

struct kevent {
  std::uintptr_t ident;  // descriptor, signal number, or a timer's number
  short filter;
  unsigned short flags;
  unsigned int fflags;
  std::int64_t data;
  void* udata;
};

#define EV_SET(kev, ident_, filter_, flags_, fflags_, data_, udata_) \
  do {                                                               \
    struct kevent* const kev_ = (kev);                               \
    kev_->ident = (ident_);                                          \
    kev_->filter = (filter_);                                        \
    kev_->flags = (flags_);                                          \
    kev_->fflags = (fflags_);                                        \
    kev_->data = (data_);                                            \
    kev_->udata = (udata_);                                          \
  } while (0)

// Filters
#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_SIGNAL (-6)
#define EVFILT_TIMER (-7)

// Actions, in a change
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_ONESHOT 0x0010

// Flags, in an event. EV_CLEAR is what timers and signals have by themselves; it cannot be asked for.
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000
#define EV_ERROR 0x4000

/// A new kqueue, or -1 and errno. Not close-on-exec, as on macOS and FreeBSD before 15.
int kqueue();

/// Makes the changes, then waits for events: see kqueue(2), and kqueue.cpp for what differs.
int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist, int nevents,
           const struct timespec* timeout);
