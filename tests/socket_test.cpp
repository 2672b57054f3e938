// Tests what the rest of the program expects of Socket.
#include "echod/socket.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "catch.hpp"
#include "descriptors.hpp"
#include "servers.hpp"

using echod::Socket;

namespace {

int option_of(const Socket& socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(socket.descriptor(), level, name, &value, &size) == 0);
  return value;
}

linger linger_of(const Socket& socket) {
  linger value{};
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(socket.descriptor(), SOL_SOCKET, SO_LINGER, &value, &size) == 0);
  return value;
}

bool has_flags(const Socket& socket) {
  return (::fcntl(socket.descriptor(), F_GETFL) & O_NONBLOCK) != 0 &&
         (::fcntl(socket.descriptor(), F_GETFD) & FD_CLOEXEC) != 0;
}

std::string text_of(const std::string& host, std::uint16_t port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

/// Returns the message of Socket::listen if it fails, otherwise an empty string.
std::string why_not(const std::string& host, std::uint16_t port) {
  try {
    (void)Socket::listen(host, port);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

/// Returns the errno with which read fails, or 0.
int error_of_read(Socket& socket) {
  std::array<char, 16> buffer{};
  try {
    (void)socket.read(buffer);
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

}  // namespace

/// Replaces getaddrinfo(3) in this program. It does not know "no-such-host.test". A name like
/// "192.0.2.1+127.0.0.1" has these addresses, in this order. "no-family" and "no-protocol" stand
/// for addresses of a kind that the system does not have.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* req,
                           addrinfo** pai) {
  static const auto real =
      reinterpret_cast<decltype(&::getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  std::string left = name;
  if (left == "no-such-host.test") return EAI_NONAME;
  while (!left.empty()) {
    const std::string next = left.substr(0, left.find('+'));
    left.erase(0, next.size() + 1);
    const bool is_odd = next == "no-family" || next == "no-protocol";
    const int status = real(is_odd ? "127.0.0.1" : next.c_str(), service, req, pai);
    if (status != 0) return status;
    if (next == "no-family") (*pai)->ai_family = AF_UNSPEC;
    if (next == "no-protocol") (*pai)->ai_protocol = 253;  // RFC 3692: nobody has it
    while (*pai != nullptr) pai = &(*pai)->ai_next;
  }
  return 0;
}

/// Replaces getpeername(2) in this program.
bool peer_has_no_address = false;
extern "C" int getpeername(int fd, sockaddr* addr, socklen_t* len) {
  static const auto real =
      reinterpret_cast<decltype(&::getpeername)>(::dlsym(RTLD_NEXT, "getpeername"));
  if (!peer_has_no_address) return real(fd, addr, len);
  *len = 0;  // as macOS does it
  return 0;
}

TEST_CASE("a listener on port 0 has a real port and tells it", "[C1][C2]") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK(listener.local_address() == "127.0.0.1:" + std::to_string(port_of(listener)));
  CHECK(port_of(listener) != 0);
}

TEST_CASE("an IPv6 address is written in brackets and serves IPv6 only", "[C1][C2]") {
  Socket listener;
  try {
    listener = Socket::listen("::1", 0);
  } catch (const std::runtime_error&) {
    WARN("no IPv6 on this machine");
    return;
  }
  CHECK(listener.local_address() == "[::1]:" + std::to_string(port_of(listener)));
  CHECK(option_of(listener, IPPROTO_IPV6, IPV6_V6ONLY) != 0);
  // For "::1", Linux sets it itself.
  CHECK(option_of(Socket::listen("::", 0), IPPROTO_IPV6, IPV6_V6ONLY) != 0);
}

TEST_CASE("accept on an empty queue does not wait", "[M1]") {
  Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK_FALSE(listener.accept());
  CHECK(errno == EAGAIN);
}

TEST_CASE("a client that has gone before accept does not end the program", "[M5]") {
  Socket listener = Socket::listen("127.0.0.1", 0);
  Client client(port_of(listener));
  wait_for_input(listener);
  client.reset();
  CHECK_NOTHROW((void)listener.accept());  // a dead connection, or none
}

TEST_CASE("a listener and an accepted socket are non-blocking and close-on-exec", "[M1][M5]") {
  const Pair pair;
  CHECK(has_flags(pair.listener));
  CHECK(has_flags(pair.accepted));
}

TEST_CASE("an accepted socket has the listener's options", "[M5]") {
  const Pair pair;
  CHECK(option_of(pair.accepted, IPPROTO_TCP, TCP_NODELAY) != 0);
  CHECK(option_of(pair.accepted, SOL_SOCKET, SO_KEEPALIVE) != 0);
  CHECK(option_of(pair.accepted, SOL_SOCKET, SO_OOBINLINE) != 0);
}

#ifndef __APPLE__  // macOS turns an inherited time of 0 into 120 s
// A process that is killed right after accept must not show its client an orderly end.
TEST_CASE("a connection is reset by default before it is touched", "[E6]") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  Client client(port_of(listener));
  wait_for_input(listener);
  {
    const Socket raw(::accept(listener.descriptor(), nullptr, nullptr));
    CHECK(linger_of(raw).l_onoff != 0);
    CHECK(linger_of(raw).l_linger == 0);
  }
  CHECK(client.how_it_ends() == "reset");
}
#endif

TEST_CASE("closing an accepted socket resets the connection", "[E6]") {
  Pair pair;
  CHECK(linger_of(pair.accepted).l_onoff != 0);
  CHECK(linger_of(pair.accepted).l_linger == 0);
  REQUIRE(pair.accepted.write("part of an echo") == 15);
  pair.accepted = Socket();
  CHECK(pair.client.how_it_ends() == "reset");
}

TEST_CASE("closing a socket that may end orderly does not reset the connection", "[E6]") {
  Pair pair;
  REQUIRE(pair.accepted.write("echo") == 4);
  pair.accepted.allow_orderly_end();
  CHECK(linger_of(pair.accepted).l_onoff == 0);
  pair.accepted = Socket();
  CHECK(pair.client.receive_all() == "echo");
}

TEST_CASE("a listener knows whether a descriptor is free", "[M4]") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  const int next = next_descriptor();
  CHECK(listener.descriptor_available());
  CHECK(next_descriptor() == next);  // it has not kept one
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  // All below it are open.
  const rlimit none{static_cast<rlim_t>(listener.descriptor()) + 1, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  const bool available = listener.descriptor_available();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK_FALSE(available);
  CHECK(listener.descriptor_available());
}

TEST_CASE("read returns what is there, nothing if nothing is, and 0 at the end", "[E4]") {
  Pair pair;
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == std::nullopt);

  pair.client.send("hello");
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.read(buffer) == 5);
  CHECK(std::string(buffer.data(), 5) == "hello");

  pair.client.shut_down_sending();
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.read(buffer) == 0);
}

TEST_CASE("a socket has input if read would return at once", "[C3]") {
  Pair pair;
  CHECK_FALSE(pair.accepted.has_input());
  pair.client.send("x");
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.has_input());
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == 1);
  CHECK_FALSE(pair.accepted.has_input());
  pair.client.shut_down_sending();
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.has_input());
  CHECK(pair.accepted.read(buffer) == 0);
}

TEST_CASE("an error counts as input, and is still there for read", "[C3]") {
  Pair pair;
  pair.client.reset();
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.has_input());
  CHECK(error_of_read(pair.accepted) == ECONNRESET);
}

TEST_CASE("write returns how much the kernel takes, and 0 if that is nothing", "[M2]") {
  Pair pair;
  const std::string much(1 << 20, 'x');
  std::size_t total = 0;
  std::size_t count = pair.accepted.write(much);
  while (count > 0) {
    total += count;
    count = pair.accepted.write(much);
  }
  CHECK(pair.client.receive(total).size() == total);
}

TEST_CASE("after the sending side is shut down, the peer can still send", "[E5]") {
  Pair pair;
  REQUIRE(pair.accepted.write("bye") == 3);
  pair.accepted.allow_orderly_end();
  pair.accepted.shut_down_sending();
  CHECK(pair.client.receive_all() == "bye");
  pair.client.send("well");
  wait_for_input(pair.accepted);
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == 4);
}

TEST_CASE("many clients can wait in the accept queue", "[M4]") {
  if (!can_open(120)) return;
  const Socket listener = Socket::listen("127.0.0.1", 0);
  std::vector<Client> clients;
  while (clients.size() < 100) clients.emplace_back(port_of(listener));
}

TEST_CASE("the first address of a host that can be bound is used", "[C1]") {
  if (why_not("192.0.2.1", 0).empty()) {
    WARN("this machine can have any address");
    return;
  }
  for (const std::string absent : {"192.0.2.1", "no-family", "no-protocol"}) {
    const std::string address = Socket::listen(absent + "+127.0.0.1", 0).local_address();
    CHECK(address.rfind("127.0.0.1:", 0) == 0);
  }
}

TEST_CASE("an address is passed over only if this machine does not have it", "[C1][C6]") {
  const Socket first = Socket::listen("127.0.0.1", 0);
  const std::uint16_t port = port_of(first);
  for (const std::string host :
       {"127.0.0.1+::1", "no-family+127.0.0.1", "127.0.0.1+no-family+no-protocol"}) {
    CHECK(why_not(host, port) ==
          "cannot listen on " + text_of(host, port) + ": " + std::strerror(EADDRINUSE));
  }
}

TEST_CASE("the addresses of both ends are text", "[C2][C5]") {
  for (const char* const host : {"127.0.0.1", "::1"}) {
    Socket listener;
    try {
      listener = Socket::listen(host, 0);
    } catch (const std::runtime_error&) {
      WARN("no IPv6 on this machine");
      continue;
    }
    const Client client(port_of(listener), host);
    const Socket accepted = accept_from(listener);
    CHECK(accepted.local_address() == text_of(host, port_of(listener)));
    CHECK(accepted.peer_address() == text_of(host, client.port()));
  }
}

TEST_CASE("a peer without an address is text, too", "[C5]") {
  CHECK(Socket().peer_address() == "an unknown address");
  const Pair pair;
  peer_has_no_address = true;
  const std::string address = pair.accepted.peer_address();
  peer_has_no_address = false;
  CHECK(address == "an unknown address");
}

TEST_CASE("a Socket closes its descriptor, and one that was moved from does not", "[M5]") {
  Socket socket = Socket::listen("127.0.0.1", 0);
  const int descriptor = socket.descriptor();
  Socket heir = std::move(socket);
  CHECK(heir.descriptor() == descriptor);
  CHECK(::fcntl(descriptor, F_GETFD) >= 0);
  errno = ERANGE;
  heir = Socket();
  CHECK(errno == ERANGE);
  {
    const Socket closed(1'000'000);  // close(2) fails
  }
  CHECK(errno == ERANGE);
  CHECK_FALSE(heir);
  CHECK(::fcntl(descriptor, F_GETFD) == -1);
  {
    Socket first = Socket::listen("127.0.0.1", 0);
    Socket second = std::move(first);
    second = Socket();
    REQUIRE(::dup(STDERR_FILENO) == descriptor);  // the number has another owner now
  }
  CHECK(::close(descriptor) == 0);
}
