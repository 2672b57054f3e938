// The system calls that fail in a server's ordinary work. Tests link other versions of them, which
// fail on purpose.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <ctime>
#include <span>

struct kevent;
struct pollfd;

namespace echod::system {
ssize_t read(int descriptor, void* buffer, std::size_t size);
ssize_t write(int descriptor, const void* bytes, std::size_t size);
int accept(int descriptor);
int poll(pollfd& entry);  // poll(2) with one entry, which does not wait
// Makes one change, and does not wait. kevent(2)
int change(int kqueue, const struct kevent& change);
// Waits for events; without end, if `time` is null. kevent(2)
int wait(int kqueue, std::span<struct kevent> events, const timespec* time);
}  // namespace echod::system
