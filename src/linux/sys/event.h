// <sys/event.h> for Linux: a part of kqueue(2), on epoll(7). See kqueue.cpp in the folder above.
// Names, values and meanings are those of FreeBSD. Names that are missing here do not work.
#pragma once

#include <cstdint>
#include <ctime>

struct kevent {
  std::uintptr_t ident;  // a descriptor, or a signal number
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

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_SIGNAL (-6)

#define EV_ADD 0x0001  // in a change
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_CLEAR 0x0020  // in every event of a signal
#define EV_EOF 0x8000
#define EV_ERROR 0x4000

/// Returns a new kqueue, or -1 and errno. It is not close-on-exec.
int kqueue();

/// Makes the changes, then waits for events, as in kqueue(2). kqueue.cpp lists the limits.
int kevent(int kq, const struct kevent* changelist, int nchanges, struct kevent* eventlist,
           int nevents, const struct timespec* timeout);
