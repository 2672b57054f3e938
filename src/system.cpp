#include "echod/system.hpp"

#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace echod::system {

ssize_t read(int descriptor, void* buffer, std::size_t size) { return ::read(descriptor, buffer, size); }

ssize_t write(int descriptor, const struct iovec* parts, int count) {
  // For one part write is the cheaper call.
  return count == 1 ? ::write(descriptor, parts->iov_base, parts->iov_len) : ::writev(descriptor, parts, count);
}

int accept(int descriptor) { return ::accept(descriptor, nullptr, nullptr); }

int wait(int kqueue, struct kevent* events, int room) { return ::kevent(kqueue, nullptr, 0, events, room, nullptr); }

}  // namespace echod::system
