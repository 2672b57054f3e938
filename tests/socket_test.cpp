// Socket: what the rest of the program relies on.
#include "echod/socket.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <csignal>
#include <stdexcept>
#include <string>

#include "catch.hpp"
#include "client.hpp"

using echod::Socket;

namespace {

std::uint16_t port_of(const Socket& listener) { return ::port_of(listener.local_address()); }

void wait_for_input(const Socket& socket) {
  pollfd entry{socket.descriptor(), POLLIN, 0};
  REQUIRE(::poll(&entry, 1, 60'000) == 1);
}

struct Pair {  // a listener, a client, and the server's end of their connection
  Socket listener = Socket::listen("127.0.0.1", 0);
  Client client{port_of(listener)};
  Socket accepted;

  Pair() {
    wait_for_input(listener);
    accepted = listener.accept();
    REQUIRE(accepted);
  }
};

int option_of(const Socket& socket, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(socket.descriptor(), level, name, &value, &size) == 0);
  return value;
}

std::string why_not(const std::string& host, std::uint16_t port) {
  try {
    Socket::listen(host, port);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a listener on port 0 has a real port, and says so in words") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK(listener.local_address() == "127.0.0.1:" + std::to_string(port_of(listener)));
  CHECK(port_of(listener) != 0);
}

TEST_CASE("an IPv6 address is written in brackets, and serves IPv6 only") {
  Socket listener;
  try {
    listener = Socket::listen("::1", 0);
  } catch (const std::runtime_error&) {
    WARN("no IPv6 on this machine");
    return;
  }
  CHECK(listener.local_address() == "[::1]:" + std::to_string(port_of(listener)));
  CHECK(option_of(listener, IPPROTO_IPV6, IPV6_V6ONLY) != 0);
}

TEST_CASE("a host name is resolved") { CHECK(port_of(Socket::listen("localhost", 0)) != 0); }

TEST_CASE("a listener that cannot be names the address and the reason") {
  const Socket first = Socket::listen("127.0.0.1", 0);
  const std::string address = first.local_address();
  CHECK(why_not("127.0.0.1", port_of(first)) == "cannot listen on " + address + ": " + std::strerror(EADDRINUSE));
  CHECK(why_not("192.0.2.1", 1) == std::string("cannot listen on 192.0.2.1:1: ") + std::strerror(EADDRNOTAVAIL));
  CHECK(why_not("no-such-host.invalid", 80).rfind("cannot listen on no-such-host.invalid:80: ", 0) == 0);
}

TEST_CASE("accept on an empty queue would have to wait") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK_FALSE(listener.accept());
  CHECK(errno == EAGAIN);
}

TEST_CASE("an accepted socket is non-blocking, close-on-exec, and has the listener's options") {
  const Pair pair;
  CHECK((::fcntl(pair.accepted.descriptor(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(pair.accepted.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(option_of(pair.accepted, IPPROTO_TCP, TCP_NODELAY) != 0);
  CHECK(option_of(pair.accepted, SOL_SOCKET, SO_KEEPALIVE) != 0);
}

TEST_CASE("the listener itself is non-blocking and close-on-exec") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK((::fcntl(listener.descriptor(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(listener.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("[M4] a listener can tell whether there is a descriptor left") {
  const Socket listener = Socket::listen("127.0.0.1", 0);
  CHECK(listener.descriptor_available());
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit none{static_cast<rlim_t>(listener.descriptor()) + 1, limit.rlim_max};  // all below it are open
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  const bool available = listener.descriptor_available();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK_FALSE(available);
  CHECK(listener.descriptor_available());
}

TEST_CASE("read: what is there, EAGAIN for nothing, 0 for the end") {
  Pair pair;
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == -1);
  CHECK(errno == EAGAIN);

  pair.client.send("hello");
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.read(buffer) == 5);
  CHECK(std::string(buffer.data(), 5) == "hello");

  pair.client.shut_down_sending();
  wait_for_input(pair.accepted);
  CHECK(pair.accepted.read(buffer) == 0);
}

TEST_CASE("write: as much as the kernel takes, then EAGAIN") {
  Pair pair;
  const std::string much(1 << 20, 'x');
  std::size_t total = 0;
  ssize_t count = 0;
  while ((count = pair.accepted.write(much)) > 0) total += static_cast<std::size_t>(count);
  CHECK(errno == EAGAIN);
  CHECK(pair.client.receive(total).size() == total);
}

TEST_CASE("after shut_down_sending the peer is at the end, and can still send") {
  Pair pair;
  pair.accepted.write("bye");
  pair.accepted.shut_down_sending();
  CHECK(pair.client.receive_all() == "bye");
  pair.client.send("well");
  wait_for_input(pair.accepted);
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == 4);
}

TEST_CASE("a reset is an error of read, not its end") {
  Pair pair;
  pair.client.reset();
  wait_for_input(pair.accepted);
  std::array<char, 16> buffer{};
  CHECK(pair.accepted.read(buffer) == -1);
  CHECK(errno == ECONNRESET);
}

TEST_CASE("a Socket closes its descriptor, and a moved one does not") {
  Socket socket = Socket::listen("127.0.0.1", 0);
  const int descriptor = socket.descriptor();
  Socket heir = std::move(socket);
  CHECK(heir.descriptor() == descriptor);
  CHECK(::fcntl(descriptor, F_GETFD) >= 0);
  heir = Socket();
  CHECK_FALSE(heir);
  CHECK(::fcntl(descriptor, F_GETFD) == -1);
}

TEST_CASE("addresses in words: of the peer, and of nobody") {
  const Pair pair;
  CHECK(pair.accepted.peer_address().rfind("127.0.0.1:", 0) == 0);
  CHECK(Socket().peer_address() == "an unknown address");
}
