// Tests the time limits of Server, how it stops, and stale events.
#include "echod/server.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "servers.hpp"

using namespace std::chrono_literals;

namespace {

/// Sends until the server cuts the connection off. Returns the errno of the write, or 0 if it takes
/// too long.
int send_until_cut_off(Client& client) {
  try {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < patience) {
      client.send("x");
      client.hears_within(1ms);
    }
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

/// Returns the lowest free descriptor number.
int next_descriptor() {
  const int next = ::dup(STDERR_FILENO);
  ::close(next);
  return next;
}

struct kevent event_of(int ident, short filter) {
  struct kevent event;
  EV_SET(&event, static_cast<std::uintptr_t>(ident), filter, 0, 0, 1, nullptr);
  return event;
}

}  // namespace

TEST_CASE("a client that never stops sending after the empty line is cut off when its time is up",
          "[E5]") {
  const ServerProcess server({.linger = 300ms});
  Client client(server.port());
  client.send("a\n\n");
  CHECK(client.receive_all() == "a\n");
  CHECK(send_until_cut_off(client) != 0);
}

TEST_CASE("a client that stays silent after the empty line is cut off when its time is up",
          "[E5]") {
  const ServerProcess server({.linger = 300ms});
  Client client(server.port());
  client.send("\n");
  CHECK(client.receive_all().empty());
  std::this_thread::sleep_for(400ms);
  CHECK(send_until_cut_off(client) != 0);
}

TEST_CASE("the linger, not the idle limit, holds after the end of the echo", "[E5][M6]") {
  const ServerProcess server({.linger = 300ms, .idle = 1h});
  Client client(server.port());
  client.send("\n");
  CHECK(client.receive_all().empty());
  CHECK(send_until_cut_off(client) != 0);
}

TEST_CASE("an idle client to which the server owes nothing has an orderly end", "[M6][E6]") {
  const ServerProcess server({.idle = 200ms});
  Client silent(server.port());
  Client client(server.port());
  CHECK(client.echoes("whole\n"));
  CHECK(client.how_it_ends() == "end-of-file");
  CHECK(silent.how_it_ends() == "end-of-file");
}

TEST_CASE("an idle client with an unfinished line is reset", "[M6][E6]") {
  const ServerProcess server({.idle = 200ms});
  Client client(server.port());
  client.send("whole\nunfinished");
  CHECK(client.receive(6) == "whole\n");
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("an idle client that does not read its echo is reset", "[M6][E6]") {
  const ServerProcess server({.idle = 2s});
  StuckClient client(server.port(), 20ms);
  CHECK(client.breaks());
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("the idle limit, not the linger, holds for output that is pending after an empty line",
          "[M6][E6]") {
  echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
  const int small = 4096;  // accepted sockets inherit it
  REQUIRE(::setsockopt(listener.descriptor(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
  const ServerProcess server({.linger = 1h, .idle = 500ms}, std::move(listener));
  Client client(server.port(), "127.0.0.1", small);
  server.signal(SIGSTOP);  // so that one read takes everything
  client.send(std::string(40'000, 'x') + "\n\n");
  server.signal(SIGCONT);
  CHECK(client.breaks());
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("bytes received give a client its time again, and no other client", "[M6]") {
  const ServerProcess server({.idle = 2s});
  Client silent(server.port());
  Client active(server.port());
  while (!silent.hears_within(50ms)) active.send("x");  // an unfinished line, so nothing comes back
  CHECK(silent.receive_all().empty());
  for (int i = 0; i < 20; ++i) {
    active.send("x");
    CHECK_FALSE(active.hears_within(50ms));
  }
  active.send("\n");
  CHECK(active.receive(1) == "x");
}

TEST_CASE("bytes sent give a client its time again", "[M6]") {
  const ServerProcess server({.idle = 3s});
  StuckClient client(server.port(), 20ms);
  const std::size_t lines = client.sent() / StuckClient::line_size * StuckClient::line_size;
  std::this_thread::sleep_for(2s);
  CHECK(client.receive(lines).size() == lines);
  std::this_thread::sleep_for(2s);
  client.send("\n");
  CHECK(client.receive_all().size() <= StuckClient::line_size);
}

TEST_CASE("a client that reads its echo slowly has its time again with each piece", "[M6]") {
  echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
  const int small = 4096;  // accepted sockets inherit it
  REQUIRE(::setsockopt(listener.descriptor(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
  const ServerProcess server({.idle = 1500ms}, std::move(listener));
  Client client(server.port(), "127.0.0.1", small);
  server.signal(SIGSTOP);  // so that one read takes everything
  client.send(std::string(39'999, 'x') + "\n");
  server.signal(SIGCONT);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(150ms);
    REQUIRE(client.receive(2000).size() == 2000);
  }
}

TEST_CASE("without an idle limit a silent client may stay", "[M6]") {
  const ServerProcess server({});
  Client client(server.port());
  CHECK_FALSE(client.hears_within(500ms));
  CHECK(client.exchange("x") == "x");
}

TEST_CASE("at a stop an idle client and a lingering one are closed at once", "[C3]") {
  ServerProcess server({.stop = 1h});
  Client idle(server.port());
  CHECK(idle.echoes("line\n"));
  Client lingering(server.port());
  lingering.send("\n");
  CHECK(lingering.how_it_ends() == "end-of-file");
  server.signal(SIGTERM);
  CHECK(server.wait() == 0);  // although both are still there
  CHECK(idle.how_it_ends() == "end-of-file");
}

TEST_CASE("a second signal soon after the first is a duplicate", "[C3]") {
  ServerProcess server({.linger = 1h, .stop = 1h, .duplicate = 1h});
  StuckClient client(server.port());
  const std::size_t arrived = client.arrived();
  for (const int number : {SIGTERM, SIGTERM, SIGINT, SIGHUP}) server.signal(number);
  const std::string echo = client.receive_all();  // throws if it is reset
  CHECK(client.has_sent(echo));
  CHECK(echo.size() >= arrived);
  client.close();
  CHECK(server.wait() == 0);
}

TEST_CASE("a later signal cuts off the remaining clients", "[C3][E6]") {
  for (const int later : {SIGINT, SIGTERM, SIGHUP}) {
    ServerProcess server({.stop = 1h, .duplicate = 0ms});
    StuckClient client(server.port(), 100ms);
    server.signal(SIGTERM);
    wait_until_refused(server.port());
    server.signal(later);
    CHECK(server.wait() == 0);
    CHECK(client.how_it_ends() == "reset");
  }
}

TEST_CASE("after a stop the events of one client do not end another that lingers", "[C3][E5]") {
  const ServerProcess server({.linger = 1h, .stop = 1h});
  StuckClient stuck(server.port(), 100ms);
  Client client(server.port());
  CHECK(client.echoes("line\n"));
  client.send("held");
  std::this_thread::sleep_for(100ms);
  server.signal(SIGTERM);
  CHECK(client.receive_all() == "held");
  stuck.receive(1'000'000);  // so that there are events
  for (int i = 0; i < 3; ++i) {
    client.send("still sending");
    std::this_thread::sleep_for(50ms);
  }
  CHECK(client.how_it_ends() == "end-of-file");
}

TEST_CASE("one event of the listener accepts at most 64 clients", "[M1]") {
  LocalServer local;
  std::vector<Client> clients;
  while (clients.size() < 70) clients.emplace_back(local.port);
  const int before = next_descriptor();
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  CHECK(next_descriptor() - before == 64);
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  CHECK(next_descriptor() - before == 70);
}

TEST_CASE("a pause ends when a client leaves, and otherwise after a second", "[M4]") {
  LocalServer local;
  Client client(local.port);
  const int accepted = next_descriptor();
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  const Client waiting(local.port);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{static_cast<rlim_t>(next_descriptor()), before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  ::setrlimit(RLIMIT_NOFILE, &before);
  const auto deadline = local.server.before_wait();
  REQUIRE(deadline.has_value());
  CHECK(*deadline <= echod::EventLoop::Clock::now() + 1s);
  client.reset();
  pollfd entry{accepted, POLLIN, 0};
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  local.server.on_event(event_of(accepted, EVFILT_READ));
  CHECK(local.server.before_wait() == echod::EventLoop::Clock::time_point::max());
}

TEST_CASE("a stop reads what is there, and echoes an unfinished line, too", "[C3]") {
  LocalServer local;
  Client client(local.port);
  const int next = next_descriptor();  // the accepted socket will get it
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  client.send("line\nheld");
  pollfd entry{next, POLLIN, 0};
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  local.server.on_event(event_of(SIGTERM, EVFILT_SIGNAL));
  local.server.before_wait();
  CHECK(client.receive_all() == "line\nheld");
}

// A read stops at the mark of urgent data. So a read that returns less than it asked for does not
// prove that the input is empty.
TEST_CASE("a stop reads on behind urgent data", "[C3][E6]") {
  LocalServer local;
  Client client(local.port);
  const int accepted = next_descriptor();
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  client.send("one\n");
  client.send_urgent('2');
  client.send("two\n");
  int waiting = 0;
  for (const auto start = std::chrono::steady_clock::now(); waiting < 9; ::usleep(1000)) {
    REQUIRE(std::chrono::steady_clock::now() - start < patience);
    REQUIRE(::ioctl(accepted, FIONREAD, &waiting) == 0);
  }
  local.server.on_event(event_of(SIGTERM, EVFILT_SIGNAL));
  local.server.before_wait();
  pollfd entry{accepted, POLLIN, 0};
  while (::poll(&entry, 1, 0) == 1) local.server.on_event(event_of(accepted, EVFILT_READ));
  CHECK(client.receive_all() == "one\n2two\n");
}

TEST_CASE("a protocol that may hold more than the read buffer is refused", "[E6]") {
  echod::EventLoop loop;
  CHECK_THROWS_AS(
      echod::Server(loop, echod::Socket::listen("127.0.0.1", 0), echod::Protocol(200'000), {}),
      std::invalid_argument);
}

TEST_CASE("at a stop a client that is still sending after its empty line is not cut off",
          "[C3][E5]") {
  LocalServer local;
  Client client(local.port);
  const int accepted = next_descriptor();
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  pollfd entry{accepted, POLLIN, 0};
  client.send("\n");
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  local.server.on_event(event_of(accepted, EVFILT_READ));
  CHECK(client.receive_all().empty());
  client.send("still sending");
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  local.server.on_event(event_of(SIGTERM, EVFILT_SIGNAL));
  CHECK(local.server.before_wait() != std::nullopt);  // it waits for the client
  client.send("and on");
  CHECK(client.how_it_ends() == "end-of-file");
}

TEST_CASE("the listener's event follows a signal to stop in one batch", "[C3]") {
  LocalServer local;
  Client client(local.port);
  local.server.on_event(event_of(SIGTERM, EVFILT_SIGNAL));
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  CHECK(local.server.before_wait() == std::nullopt);
  CHECK(client.hears_within(patience));
  CHECK_THROWS_AS(Client(local.port), std::system_error);
}

TEST_CASE("a descriptor is closed after the batch in which its connection ended", "[M5]") {
  LocalServer local;
  Client client(local.port);
  const int accepted = next_descriptor();
  local.server.on_event(event_of(local.listener, EVFILT_READ));
  client.reset();
  pollfd entry{accepted, POLLIN, 0};
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  local.server.on_event(event_of(accepted, EVFILT_READ));
  CHECK(::fcntl(accepted, F_GETFD) >= 0);  // no new socket can get its number
  local.server.before_wait();
  CHECK(::fcntl(accepted, F_GETFD) == -1);
}

TEST_CASE("an event of a descriptor that is not a client's is an error of the program", "[M5]") {
  LocalServer local;
  CHECK_THROWS_AS(local.server.on_event(event_of(local.listener + 100, EVFILT_READ)),
                  std::logic_error);
}
