#include "echod/socket.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "system.hpp"

namespace echod {
namespace {
constexpr linger reset_at_close{1, 0};

template <typename Value>
bool set_option(const Socket& socket, int level, int name, Value value) {
  return ::setsockopt(socket.descriptor(), level, name, &value, sizeof value) == 0;
}

/// accept4(2) could set both flags, but macOS does not have it. On a BSD an accepted socket
/// inherits O_NONBLOCK, on Linux it does not.
bool set_descriptor_flags(const Socket& socket) {
  return ::fcntl(socket.descriptor(), F_SETFD, FD_CLOEXEC) >= 0 &&
         ::fcntl(socket.descriptor(), F_SETFL, O_NONBLOCK) >= 0;
}

/// Returns an empty Socket and sets errno if it cannot listen on this address.
Socket listen_on(const addrinfo& address) {
  Socket socket(::socket(address.ai_family, address.ai_socktype, address.ai_protocol));
  // Non-blocking, because a connection can vanish between its event and accept(2), which must not
  // wait for the next one then.
  if (!socket || !set_descriptor_flags(socket)) return Socket();
  // A server that is started again can then bind although old connections are in TIME_WAIT.
  if (!set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1)) return Socket();
  // "::" would otherwise take the IPv4 port as well on Linux and macOS.
  const bool is_ipv6 = address.ai_family == AF_INET6;
  if (is_ipv6 && !set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY, 1)) return Socket();
  // Accepted sockets inherit the next four: on macOS, setting them after accept fails if the client
  // has gone. An echo is sent at once, also while the last one has not been acknowledged.
  if (!set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1)) return Socket();
  // Notices a client that disappeared without a word.
  if (!set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1)) return Socket();
  // A connection is then reset by default from its first moment, also if the process dies right
  // after accept(2). (Not on macOS, which turns an inherited time of 0 into 120 s: see accept().)
  if (!set_option(socket, SOL_SOCKET, SO_LINGER, reset_at_close)) return Socket();
  // Urgent data are input like any other. Without this, one byte would be missing in the echo.
  if (!set_option(socket, SOL_SOCKET, SO_OOBINLINE, 1)) return Socket();
  if (::bind(socket.descriptor(), address.ai_addr, address.ai_addrlen) != 0) return Socket();
  // Clients that connect at the same moment wait in this queue; a short one drops them. Every
  // system reduces it to its own limit.
  if (::listen(socket.descriptor(), INT_MAX) != 0) return Socket();
  return socket;
}

std::string as_text(const std::string& host, const std::string& port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? "[" + host + "]:" + port : host + ":" + port;
}

/// Only such an address of a name is passed over. Any other error is the answer: if the port is
/// taken on the first address, a second server must not start on another one.
bool is_not_of_this_machine(int error) {
  return error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == EPROTONOSUPPORT;
}

/// Returns an address that getsockname(2) or getpeername(2) finds, as text.
std::string address_of(const Socket& socket, decltype(::getsockname)* find) {
  sockaddr_storage storage{};
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  socklen_t length = sizeof storage;
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  // macOS can report a peer without an address: the length is 0 then.
  if (find(socket.descriptor(), address, &length) != 0 || length == 0) return "an unknown address";
  // Numbers, because to look up names can take long.
  const int numeric = NI_NUMERICHOST | NI_NUMERICSERV;
  if (::getnameinfo(address, length, host, sizeof host, port, sizeof port, numeric) != 0)
    return "an unknown address";
  return as_text(host, port);
}
}  // namespace

Socket::~Socket() {
  const int saved = errno;  // It says why listen_on() failed.
  if (descriptor_ >= 0) ::close(descriptor_);
  errno = saved;
}

Socket Socket::listen(const std::string& host, std::uint16_t port) {
  const std::string service = std::to_string(port);
  const std::string failure = "cannot listen on " + as_text(host, service);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (status == EAI_SYSTEM) throw std::system_error(errno, std::generic_category(), failure);
  if (status != 0) throw std::runtime_error(failure + ": " + ::gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  int error = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    Socket socket = listen_on(*address);
    if (socket) return socket;
    error = errno;
    if (!is_not_of_this_machine(error)) break;
  }
  throw std::system_error(error, std::generic_category(), failure);
}

Socket Socket::accept() {
  // Ask first: macOS takes a connection from the queue before it looks for a descriptor, and drops
  // it without one. (If the table of the whole system is full, ENFILE, it still does: F_DUPFD does
  // not look there.)
  if (!descriptor_available()) return Socket();
  Socket client(system::accept(descriptor_));
  if (!client) return client;
  // Again, because macOS does not pass on the 0. There it fails (EINVAL) if the client has gone.
  if (set_option(client, SOL_SOCKET, SO_LINGER, reset_at_close) && set_descriptor_flags(client))
    return client;
  errno = ECONNABORTED;
  return Socket();
}

bool Socket::descriptor_available() const noexcept {
  // Socket closes the new descriptor again.
  return static_cast<bool>(Socket(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0)));
}

std::optional<std::size_t> Socket::read(std::span<char> buffer) {
  ssize_t count = 0;
  do {
    count = system::read(descriptor_, buffer.data(), buffer.size());
  } while (count < 0 && errno == EINTR);
  if (count >= 0) return static_cast<std::size_t>(count);
  if (errno == EAGAIN) return std::nullopt;
  throw std::system_error(errno, std::generic_category(), "read");
}

std::size_t Socket::write(std::string_view bytes) {
  ssize_t count = 0;
  do {
    count = system::write(descriptor_, bytes.data(), bytes.size());
  } while (count < 0 && errno == EINTR);
  if (count >= 0) return static_cast<std::size_t>(count);
  if (errno == EAGAIN) return 0;
  throw std::system_error(errno, std::generic_category(), "write");
}

bool Socket::has_input() const noexcept {
  pollfd entry{descriptor_, POLLIN, 0};
  int count = 0;
  do {
    count = system::poll(entry);
  } while (count < 0 && errno == EINTR);
  return count != 0;  // POLLHUP and POLLERR are reported, too: read() returns at once then
}

// These two fail only if the connection is gone (macOS: EINVAL, ENOTCONN).
void Socket::allow_orderly_end() noexcept {
  set_option(*this, SOL_SOCKET, SO_LINGER, linger{0, 0});
}
void Socket::shut_down_sending() noexcept { ::shutdown(descriptor_, SHUT_WR); }

std::string Socket::local_address() const { return address_of(*this, ::getsockname); }
std::string Socket::peer_address() const { return address_of(*this, ::getpeername); }
}  // namespace echod
