// The four system calls that fail in the course of business, each in this one place, so that a test can link its own
// and see what the program does when they do (tests/fault_test.cpp).
#pragma once

#include <sys/types.h>

#include <cstddef>

struct iovec;
struct kevent;

namespace echod::system {

ssize_t read(int descriptor, void* buffer, std::size_t size);
ssize_t write(int descriptor, const struct iovec* parts, int count);  // write(2), writev(2)

/// accept(2), without asking for the peer's address.
int accept(int descriptor);

/// kevent(2) without changes: waits until there are events, however long that takes, and copies out `room` at the most.
int wait(int kqueue, struct kevent* events, int room);

}  // namespace echod::system
