// The trace of -v: every batch, event and change of the kqueue as it happens, and what came of it, a line each, to
// stderr.
//
//   batch   1 event
//   event   fd 9          EVFILT_READ    EV_EOF           data 6
//     fd 9: read 6 bytes
//
// Callers ask `trace::on` first, so that it costs nothing when it is off.
#pragma once

struct kevent;

namespace echod::trace {

extern bool on;

void batch(int events);
/// An event as it was delivered.
void event(const struct kevent& event);
/// A change that was asked for, and the errno it failed with, or 0.
void change(const struct kevent& change, int error);
/// What was done with a descriptor: format and arguments are those of printf(3).
void action(int descriptor, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace echod::trace
