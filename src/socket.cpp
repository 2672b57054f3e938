#include "echod/socket.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <system_error>

#include "system.hpp"

namespace echod {
namespace {
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

/// Sorts the errors of accept(2).
Socket::Outcome outcome_of(int error) {
  switch (error) {
    case EAGAIN: return Socket::Outcome::queue_empty;
    // EINTR: a signal handler ran. Asking again is right then, too.
    case EINTR:
    // The client gave up while it waited in the queue. Some systems report ECONNRESET or EPROTO.
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    // Linux also reports errors of the network that are waiting for the new connection, accept(2).
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
#ifdef ENONET
    // Only Linux has ENONET. There, EPERM means that a firewall forbids this connection.
    case ENONET:
    case EPERM:
#endif
      return Socket::Outcome::client_gone;
    // To wait, or to go on, would hide the bug.
    case EBADF:
    case EFAULT:
    case ENOTSOCK: throw std::system_error(error, std::generic_category(), "accept");
    // Among them are EMFILE and ENOMEM, and whatever a socket filter of macOS says to one
    // connection, such as EINVAL. To wait a moment is never wrong.
    default: return Socket::Outcome::unable;
  }
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
  // Accepted sockets inherit the next three. On macOS, setting them after accept fails if the
  // client has gone. An echo is sent at once, also while the last one has not been acknowledged.
  if (!set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1)) return Socket();
  // Notices a client that disappeared without a word.
  if (!set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1)) return Socket();
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

/// A name of the DNS has at most 253 bytes. What is longer must not push the reason out of sight.
std::string shortened(const std::string& host) {
  constexpr std::size_t most = 256;
  return host.size() <= most ? host : host.substr(0, most) + "...";
}

/// What to say if `host` looks like an address with a port behind it, or with brackets.
std::string hint(const std::string& host) {
  const bool has_brackets = host.find_first_of("[]") != std::string::npos;
  const bool has_port = std::count(host.begin(), host.end(), ':') == 1;
  if (!has_brackets && !has_port) return {};
  return " (the address and the port are two arguments, without brackets)";
}

/// fe80::1 is an address of every network that the machine is in, so it needs the name of one.
bool lacks_zone(const addrinfo& address) {
  if (address.ai_family != AF_INET6) return false;
  sockaddr_in6 ipv6{};
  std::memcpy(&ipv6, address.ai_addr, sizeof ipv6);
  return IN6_IS_ADDR_LINKLOCAL(&ipv6.sin6_addr) && ipv6.sin6_scope_id == 0;
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
  const std::string failure = "cannot listen on " + as_text(shortened(host), service);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (status == EAI_SYSTEM) throw std::system_error(errno, std::generic_category(), failure);
  if (status != 0) throw std::runtime_error(failure + ": " + ::gai_strerror(status) + hint(host));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  int error = 0;
  bool zone_is_missing = false;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    Socket socket = listen_on(*address);
    if (socket) return socket;
    error = errno;
    zone_is_missing = lacks_zone(*address);
    if (!is_not_of_this_machine(error)) break;
  }
  if (zone_is_missing)
    throw std::runtime_error(failure + ": " + std::strerror(error) +
                             " (a link-local address needs a zone, as in " + host + "%en0)");
  throw std::system_error(error, std::generic_category(), failure);
}

Socket::Accepted Socket::accept() {
  // Ask first: macOS takes a connection from the queue before it looks for a descriptor, and drops
  // it without one. (If the table of the whole system is full, ENFILE, it still does: F_DUPFD does
  // not look there.)
  if (!descriptor_available()) return {.outcome = Outcome::unable, .error = errno};
  Socket client(system::accept(descriptor_));
  if (!client) return {.outcome = outcome_of(errno), .error = errno};
  // SO_LINGER cannot be inherited: macOS turns an inherited time of 0 into 120 s. On macOS, setting
  // it fails (EINVAL) if the client has already gone.
  const bool prepared =
      set_option(client, SOL_SOCKET, SO_LINGER, linger{1, 0}) && set_descriptor_flags(client);
  if (!prepared) return {.outcome = Outcome::client_gone};
  return {.outcome = Outcome::accepted, .socket = std::move(client)};
}

bool Socket::descriptor_available() const noexcept {
  // Socket closes the new descriptor again.
  return static_cast<bool>(Socket(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0)));
}

ssize_t Socket::read(std::span<char> buffer) {
  ssize_t count = 0;
  do {
    count = system::read(descriptor_, buffer.data(), buffer.size());
  } while (count < 0 && errno == EINTR);
  return count;
}

ssize_t Socket::write(std::string_view bytes) {
  ssize_t count = 0;
  do {
    count = system::write(descriptor_, bytes.data(), bytes.size());
  } while (count < 0 && errno == EINTR);
  return count;
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
