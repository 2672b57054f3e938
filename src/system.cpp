#include "system.hpp"

#include <poll.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <unistd.h>

namespace echod {
ssize_t system::read(int descriptor, void* buffer, std::size_t size) {
  return ::read(descriptor, buffer, size);
}
ssize_t system::write(int descriptor, const void* bytes, std::size_t size) {
  return ::write(descriptor, bytes, size);
}
int system::accept(int descriptor) { return ::accept(descriptor, nullptr, nullptr); }
int system::poll(pollfd& entry) { return ::poll(&entry, 1, 0); }
int system::change(int kqueue, const struct kevent& change) {
  return ::kevent(kqueue, &change, 1, nullptr, 0, nullptr);
}
int system::wait(int kqueue, std::span<struct kevent> events, const timespec* time) {
  return ::kevent(kqueue, nullptr, 0, events.data(), static_cast<int>(events.size()), time);
}
}  // namespace echod
