// The trace of -v, on stderr: every batch, event and change of the kqueue, and what the server did.
#pragma once

struct kevent;

namespace echod::trace {
extern bool on;  // while it is false, nothing is printed
void batch(int events);
void event(const struct kevent& event);
/// `error` is the errno with which the kernel refused it, or 0.
void change(const struct kevent& change, int error);
/// What the server did about a descriptor, as in printf(3). Needs no memory.
void line(int descriptor, const char* format, ...) __attribute__((format(printf, 2, 3)));
}  // namespace echod::trace
