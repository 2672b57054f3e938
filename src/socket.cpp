#include "echod/socket.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <memory>
#include <stdexcept>
#include <system_error>

#include "echod/system.hpp"

namespace echod {

namespace {

/// accept4(2) and SOCK_NONBLOCK could set these at once, but macOS has neither; and whether accept(2) hands on the
/// listener's O_NONBLOCK differs between systems, so it is always set.
bool set_descriptor_flags(const Socket& socket) {
  return ::fcntl(socket.descriptor(), F_SETFD, FD_CLOEXEC) >= 0 &&
         ::fcntl(socket.descriptor(), F_SETFL, O_NONBLOCK) >= 0;
}

bool set_option(const Socket& socket, int level, int name) {
  const int on = 1;
  return ::setsockopt(socket.descriptor(), level, name, &on, sizeof on) == 0;
}

/// An empty Socket and errno if this address will not do.
Socket listen_on(const addrinfo& address) {
  Socket socket(::socket(address.ai_family, address.ai_socktype, address.ai_protocol));
  if (!socket) return {};
  // TCP_NODELAY and SO_KEEPALIVE are set here, once, for all accepted sockets inherit them; on macOS setting them on an
  // accepted socket fails if the peer has gone already.
  const bool listens =
      set_descriptor_flags(socket) &&
      set_option(socket, SOL_SOCKET, SO_REUSEADDR) &&  // restart although old connections are in TIME_WAIT
      (address.ai_family != AF_INET6 || set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY)) &&
      set_option(socket, IPPROTO_TCP, TCP_NODELAY) && set_option(socket, SOL_SOCKET, SO_KEEPALIVE) &&
      ::bind(socket.descriptor(), address.ai_addr, address.ai_addrlen) == 0 &&
      ::listen(socket.descriptor(), INT_MAX) == 0;  // more than the kernel's limit means the limit, on all systems
  if (listens) return socket;
  const int reason = errno;
  socket = {};
  errno = reason;
  return {};
}

std::string in_words(const std::string& host, const std::string& port) {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port;
}

using AddressOf = int (*)(int, sockaddr*, socklen_t*);

std::string address_in_words(AddressOf address_of, int descriptor) {
  sockaddr_storage storage{};
  auto* const address = reinterpret_cast<sockaddr*>(&storage);
  socklen_t length = sizeof storage;
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (address_of(descriptor, address, &length) != 0 ||
      ::getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "an unknown address";
  return in_words(host, port);
}

}  // namespace

Socket::~Socket() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Socket Socket::listen(const std::string& host, std::uint16_t port) {
  const std::string service = std::to_string(port);
  const std::string failure = "cannot listen on " + in_words(host, service);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), service.c_str(), &hints, &found);
  if (status == EAI_SYSTEM) throw std::system_error(errno, std::generic_category(), failure);
  if (status != 0) throw std::runtime_error(failure + ": " + ::gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);

  for (const addrinfo* address = found; address != nullptr; address = address->ai_next)
    if (Socket socket = listen_on(*address)) return socket;
  throw std::system_error(errno, std::generic_category(), failure);
}

Socket Socket::accept() const {
  Socket accepted(system::accept(descriptor_));
  if (accepted && !set_descriptor_flags(accepted)) return {};
  return accepted;
}

bool Socket::descriptor_available() const noexcept {
  return static_cast<bool>(Socket(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0)));
}

ssize_t Socket::read(std::span<char> buffer) const {
  for (;;) {
    const ssize_t count = system::read(descriptor_, buffer.data(), buffer.size());
    if (count >= 0 || errno != EINTR) return count;
  }
}

ssize_t Socket::write(std::string_view first, std::string_view second) const {
  const auto part = [](std::string_view bytes) { return iovec{const_cast<char*>(bytes.data()), bytes.size()}; };
  const iovec parts[] = {part(first), part(second)};
  for (;;) {
    const ssize_t count = system::write(descriptor_, parts, second.empty() ? 1 : 2);
    if (count >= 0 || errno != EINTR) return count;
  }
}

void Socket::shut_down_sending() const noexcept {
  ::shutdown(descriptor_, SHUT_WR);  // fails only if there is nothing left to shut (macOS: ENOTCONN)
}

std::string Socket::local_address() const { return address_in_words(::getsockname, descriptor_); }

std::string Socket::peer_address() const { return address_in_words(::getpeername, descriptor_); }

}  // namespace echod
