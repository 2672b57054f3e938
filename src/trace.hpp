// The trace of -v, on stderr: every batch, event and change of the kqueue, and what the server did.
#pragma once

struct kevent;

namespace echod {
class Connection;
struct Moved;

namespace trace {
extern bool on;  // while it is false, nothing is printed
void batch(int events);
void event(const struct kevent& event);
// The errno with which the kernel refused it, or 0.
void change(const struct kevent& change, int error);
void step(const Connection& client, const Moved& moved);
void action(int descriptor, const char* what);
}  // namespace trace
}  // namespace echod
