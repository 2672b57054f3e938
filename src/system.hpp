// The system calls that fail in a server's ordinary work. Tests link other versions of them, which fail on purpose.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <ctime>
#include <span>

struct kevent;

namespace echod::system {
ssize_t read(int descriptor, void* buffer, std::size_t size);
ssize_t write(int descriptor, const void* bytes, std::size_t size);
/// Without the address of the peer.
int accept(int descriptor);
/// With one change and no room for events: it does not wait, and returns -1 if the kernel refuses the change.
int change(int kqueue, const struct kevent& change);
/// Without changes. `time` is null to wait without end.
int wait(int kqueue, std::span<struct kevent> events, const timespec* time);
}  // namespace echod::system
