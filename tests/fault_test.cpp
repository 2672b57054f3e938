// The server when its system calls fail: this program links its own src/system.cpp, in which they do, at random.
// Random clients on real sockets, in the same thread, compare every byte with the model.
#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

#include "catch.hpp"
#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "client.hpp"
#include "echod/system.hpp"
#include "sessions.hpp"

namespace {

struct Faults {
  std::mt19937_64 random;
  Sessions* clients = nullptr;
  int shortage = 0;      // the errno of every accept
  unsigned accepts = 0;  // how many there were
  std::uint64_t injected = 0;

  bool one_in(unsigned n) { return random() % n == 0; }

  /// Sets errno to one of `errors`, with a chance of one in `n`.
  bool fail(unsigned n, std::initializer_list<int> errors) {
    if (clients == nullptr || !one_in(n)) return false;
    ++injected;
    errno = errors.begin()[random() % errors.size()];
    return true;
  }

  /// A connection breaks. Its client will notice, and is told not to mind.
  bool break_connection(int descriptor) {
    if (!fail(2000, {ECONNRESET})) return false;
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &length) == 0)
      clients->excuse(ntohs(peer.sin_port));
    errno = ECONNRESET;
    return true;
  }

  std::size_t shorten(std::size_t size) { return clients != nullptr && one_in(3) ? 1 + random() % size : size; }
};

Faults faults;

}  // namespace

namespace echod::system {

ssize_t read(int descriptor, void* buffer, std::size_t size) {
  if (faults.fail(5, {EINTR, EAGAIN}) || faults.break_connection(descriptor)) return -1;
  return ::read(descriptor, buffer, faults.shorten(size));
}

ssize_t write(int descriptor, const struct iovec* parts, int count) {
  if (faults.fail(5, {EINTR, EAGAIN}) || faults.break_connection(descriptor)) return -1;
  iovec part = parts[0];
  if (part.iov_len == 0) throw std::logic_error("a write of nothing");
  if (faults.one_in(2)) return ::writev(descriptor, parts, count);
  part.iov_len = faults.shorten(part.iov_len);
  return ::writev(descriptor, &part, 1);
}

int accept(int descriptor) {
  ++faults.accepts;
  if (faults.shortage != 0) return errno = faults.shortage, -1;
  if (faults.clients == nullptr) return ::accept(descriptor, nullptr, nullptr);
  if (faults.fail(5, {EINTR, EAGAIN, ECONNABORTED})) return -1;
  if (faults.fail(100, {EMFILE, ENFILE, ENOBUFS, ENOMEM})) return -1;
  return ::accept(descriptor, nullptr, nullptr);
}

/// Never waits long: the clients take their turn in the same thread.
int wait(int kqueue, struct kevent* events, int room) {
  if (faults.fail(10, {EINTR})) return -1;
  const timespec moment{0, 1'000'000};
  return ::kevent(kqueue, nullptr, 0, events, static_cast<int>(faults.shorten(static_cast<std::size_t>(room))),
                  &moment);
}

}  // namespace echod::system

TEST_CASE("[M4] a shortage in accept pauses the listener; a second later it tries again, and loses nobody") {
  for (const int shortage : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    echod::EventLoop loop;
    echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
    const std::string address = listener.local_address();
    echod::Server server(loop, std::move(listener), {});
    faults = {};
    faults.shortage = shortage;
    Client client(port_of(address));
    client.send("a line\n");
    const auto start = std::chrono::steady_clock::now();
    loop.run([&] {
      const auto time = std::chrono::steady_clock::now() - start;
      if (time > std::chrono::milliseconds(1500)) faults.shortage = 0;
      if (time > std::chrono::minutes(1)) throw std::runtime_error("nobody listens any more");
      server.after_batch();
      return !client.hears_within(std::chrono::milliseconds(0));
    });
    CHECK(client.receive(7) == "a line\n");
    CHECK(faults.accepts >= 3);
    CHECK(faults.accepts <= 5);
  }
}

TEST_CASE("[E1] to [E5], [M1] to [M5]: thousands of random clients and failing system calls, and no byte is lost") {
  const char* const given = std::getenv("ECHOD_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::printf("ECHOD_SEED=%llu\n", static_cast<unsigned long long>(seed));
  constexpr std::uint64_t total = 10'000;

  std::signal(SIGPIPE, SIG_IGN);
  echod::EventLoop loop;
  echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
  const std::string address = listener.local_address();
  echod::Server server(loop, std::move(listener),
                       {.linger = std::chrono::minutes(10)});  // a slow machine may take long
  Sessions clients(port_of(address), seed, 40);
  faults = {};
  faults.random.seed(seed);
  faults.clients = &clients;

  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(8);
  loop.run([&] {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("a client waits for ever");
    server.after_batch();
    return clients.step(total);
  });
  CHECK(clients.started() == total);
  std::printf("%llu clients, %llu bytes echoed, %llu faults\n", static_cast<unsigned long long>(clients.started()),
              static_cast<unsigned long long>(clients.bytes_echoed()),
              static_cast<unsigned long long>(faults.injected));
}
