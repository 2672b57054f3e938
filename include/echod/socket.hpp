// Socket: owns one TCP socket, close-on-exec and non-blocking. What a server meets in its ordinary
// work is a result: no client in the queue, nothing to read, no room to send. A connection that is
// broken is an exception.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace echod {
class Socket {
 public:
  /// Takes ownership of `descriptor`. -1 means none.
  explicit Socket(int descriptor = -1) noexcept : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  /// Closes the descriptor and preserves errno. Resets an accepted connection, unless
  /// allow_orderly_end() was called.
  ~Socket();

  /// Listens on `host`, with the kernel's largest backlog. Tries the addresses of a name in turn,
  /// getaddrinfo(3), but only past one that this machine does not have. Port 0 picks a free port.
  /// Throws std::runtime_error with address and reason (std::system_error if it has an errno).
  [[nodiscard]] static Socket listen(const std::string& host, std::uint16_t port);
  /// Takes a connection from the accept queue. Closing it resets it (SO_LINGER {1, 0}), so its
  /// client can tell when the server ends early, even by a crash. Before it touches the queue, it
  /// asks whether a descriptor is free. Returns an empty Socket and sets errno if it has no client:
  /// EAGAIN when the queue is empty, ECONNABORTED for a client that has gone. accept(2)
  [[nodiscard]] Socket accept();
  /// Returns whether a descriptor is free. If not, errno is the reason. fcntl(2), F_DUPFD_CLOEXEC
  [[nodiscard]] bool descriptor_available() const noexcept;

  /// Reads at most `buffer.size()` bytes, which must not be 0, because a result of 0 is the end of
  /// input. Returns nothing if there is no input now (EAGAIN). Throws std::system_error if the
  /// connection is broken. read(2)
  [[nodiscard]] std::optional<std::size_t> read(std::span<char> buffer);
  /// Writes as much of `bytes` as the kernel takes now and returns how much, which can be 0
  /// (EAGAIN). Throws std::system_error if the connection is broken. SIGPIPE must be ignored.
  /// write(2)
  [[nodiscard]] std::size_t write(std::string_view bytes);
  /// Returns whether read() would return at once: with input, the end of input or an error. Also
  /// returns true if it cannot find out. Takes nothing away from the socket. poll(2)
  [[nodiscard]] bool has_input() const noexcept;
  /// From now on a close sends end-of-file, SO_LINGER {0, 0}. With unread input it still resets
  /// (FreeBSD: if more comes).
  void allow_orderly_end() noexcept;
  /// Sends end-of-file after the bytes written so far. Input still arrives. shutdown(2)
  void shut_down_sending() noexcept;
  /// Return the address of this end or of the other end as text: "127.0.0.1:8080" or "[::1]:8080".
  /// If the system does not know it: "an unknown address".
  [[nodiscard]] std::string local_address() const;
  [[nodiscard]] std::string peer_address() const;
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  explicit operator bool() const noexcept { return descriptor_ >= 0; }

 private:
  int descriptor_;
};
}  // namespace echod
