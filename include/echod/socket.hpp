// Socket: one TCP socket of POSIX, owned.
//
// Every Socket is non-blocking (a call that would have to wait fails with EAGAIN instead) and close-on-exec.
// Calls that can fail in the course of business report as the system calls do, by their result and errno.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace echod {

class Socket {
 public:
  /// Owns nothing.
  Socket() noexcept = default;
  /// Takes ownership of `descriptor`; -1 is none.
  explicit Socket(int descriptor) noexcept : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  /// Closes the descriptor. With input unread this resets the connection (FreeBSD: when more arrives), and the peer may
  /// lose what was written to it: see Connection for how to close without that.
  ~Socket();

  /// A listening socket on the first of `host`'s addresses that can be bound (getaddrinfo(3)), with as long a queue
  /// (backlog) as the kernel allows. Port 0 takes a free one. The accepted sockets inherit TCP_NODELAY and
  /// SO_KEEPALIVE. Throws std::runtime_error whose what() names the address and the reason.
  static Socket listen(const std::string& host, std::uint16_t port);

  /// Takes the next connection from the queue. An empty Socket and errno if there is none (EAGAIN) or it cannot be had.
  /// accept(2)
  Socket accept() const;

  /// Whether the process has a descriptor left for accept() to use. To be asked before: macOS takes the connection
  /// from the queue first, and drops it if there is none. fcntl(2), F_DUPFD_CLOEXEC
  bool descriptor_available() const noexcept;

  /// Reads what is there, at most `buffer.size()` bytes, which must not be 0, since a result of 0 is the end of input.
  /// -1 and errno if nothing is there (EAGAIN) or the connection is broken; EINTR is not reported. read(2)
  ssize_t read(std::span<char> buffer) const;

  /// Writes what the kernel takes of `first`, which must not be empty, and then of `second`, and returns how much that
  /// was: it may be less than all. -1 and errno if it takes nothing now (EAGAIN) or the connection is broken; EINTR is
  /// not reported. SIGPIPE must be ignored. write(2), writev(2)
  ssize_t write(std::string_view first, std::string_view second = {}) const;

  /// Ends the output: the peer reads what was written, then end-of-file; input still arrives. shutdown(2), SHUT_WR
  void shut_down_sending() const noexcept;

  /// In words, "127.0.0.1:8080" or "[::1]:8080"; "an unknown address" if the system does not tell (any more).
  std::string local_address() const;
  std::string peer_address() const;

  /// Remains the Socket's: for registering with an EventLoop.
  int descriptor() const noexcept { return descriptor_; }
  explicit operator bool() const noexcept { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

}  // namespace echod
