// Tests the time limits of Server, how it stops, and stale events.
#include "echod/server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "descriptors.hpp"
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
  LocalServer local({.idle = 200ms});
  Client silent(local.port());
  const int first = local.accept_client();
  Client client(local.port());
  const int second = local.accept_client();
  client.send("whole\n");
  client.wait_until_arrived();
  local.run_until_closed(first);
  local.run_until_closed(second);
  CHECK(silent.receive_all().empty());
  CHECK(client.receive_all() == "whole\n");
}

TEST_CASE("an idle client with an unfinished line is reset", "[M6][E6]") {
  LocalServer local({.idle = 200ms});
  Client client(local.port());
  const int accepted = local.accept_client();
  client.send("whole\nunfinished");
  client.wait_until_arrived();
  local.run_until_closed(accepted);
  CHECK(client.receive(6) == "whole\n");
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("bytes received give a client its time again, and no other client", "[M6]") {
  LocalServer local({.idle = 1h});
  Client one(local.port());
  const int first = local.accept_client();
  Client other(local.port());
  const int second = local.accept_client();
  const auto end_of_one = local.end_batch();
  other.send("x");
  local.serve(second);
  CHECK(local.end_batch() == end_of_one);
  one.send("x");
  local.serve(first);
  const auto end_of_other = local.end_batch();
  CHECK(end_of_other > end_of_one);
  other.send("x");
  local.serve(second);
  CHECK(local.end_batch() > end_of_other);
}

TEST_CASE("without an idle limit a silent client may stay", "[M6]") {
  LocalServer local;
  const Client client(local.port());
  local.accept_client();
  CHECK(local.end_batch() == LocalServer::Clock::time_point::max());
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

TEST_CASE("after a stop the events of one client do not end another that lingers", "[C3][E5]") {
  const ServerProcess server({.linger = 1h, .stop = 1h});
  StuckClient stuck(server.port());
  Client client(server.port());
  CHECK(client.echoes("line\n"));
  client.send("held");
  client.wait_until_arrived();
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
  if (!can_open(200)) return;
  LocalServer local;
  std::vector<Client> clients;
  while (clients.size() < 70) {
    Client& client = clients.emplace_back(local.port());
    client.send("x");
    client.wait_until_arrived();  // so that it is in the queue
  }
  const int before = next_descriptor();
  local.pass_event(local.listener(), EVFILT_READ);
  CHECK(next_descriptor() - before == 64);
  local.pass_event(local.listener(), EVFILT_READ);
  CHECK(next_descriptor() - before == 70);
}

TEST_CASE("a pause ends when a client leaves", "[M4]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  const Client waiting(local.port());
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{static_cast<rlim_t>(next_descriptor()), before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  local.pass_event(local.listener(), EVFILT_READ);
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(local.end_batch() < LocalServer::Clock::time_point::max());
  client.reset();
  local.serve(accepted);
  CHECK(local.end_batch() == LocalServer::Clock::time_point::max());
}

// A read stops at the mark of urgent data. So a read that returns less than it asked for does not
// prove that the input is empty.
TEST_CASE("a stop reads on behind urgent data", "[C3][E6]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  client.send("one\n");
  client.send_urgent('2');
  client.send("two\n");
  client.wait_until_arrived();
  local.pass_event(SIGTERM, EVFILT_SIGNAL);
  local.end_batch();
  pollfd entry{accepted, POLLIN, 0};
  while (::poll(&entry, 1, 0) == 1) local.pass_event(accepted, EVFILT_READ);
  CHECK(client.receive_all() == "one\n2two\n");
}

TEST_CASE("at a stop a client that is still sending after its empty line is not cut off",
          "[C3][E5]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  client.send("\n");
  local.serve(accepted);
  CHECK(client.receive_all().empty());
  client.send("still sending");
  client.wait_until_arrived();
  local.pass_event(SIGTERM, EVFILT_SIGNAL);
  CHECK(local.end_batch() != std::nullopt);  // it waits for the client
  client.send("and on");
  CHECK(client.how_it_ends() == "end-of-file");
}

TEST_CASE("the listener's event follows a signal to stop in one batch", "[C3]") {
  LocalServer local;
  Client client(local.port());
  local.pass_event(SIGTERM, EVFILT_SIGNAL);
  local.pass_event(local.listener(), EVFILT_READ);
  CHECK(local.end_batch() == std::nullopt);
  CHECK(client.how_it_ends() == "end-of-file");  // it was accepted
  CHECK_THROWS_AS(Client(local.port()), std::system_error);
}

TEST_CASE("a descriptor is closed after the batch in which its connection ended", "[M5]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  client.reset();
  local.serve(accepted);
  CHECK(::fcntl(accepted, F_GETFD) >= 0);  // no new socket can get its number
  local.end_batch();
  CHECK(::fcntl(accepted, F_GETFD) == -1);
}

TEST_CASE("an event of a client that has ended is ignored", "[M5][E6]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  client.reset();
  local.serve(accepted);
  local.pass_event(accepted, EVFILT_READ);  // a second step would end the program
  local.end_batch();
}

// A tool can copy a descriptor of the server for a moment. On Linux, epoll then goes on reporting
// the closed socket by its old number, which is nobody's.
TEST_CASE("a client whose socket somebody has copied ends only its own connection", "[M5]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  Client other(local.port());
  local.accept_client();
  const echod::Socket copy(::dup(accepted));
  client.reset();
  local.run_until_closed(accepted);
  other.send("line\n");
  local.run([waits = Patience(), &other] { return waits() && !other.hears_within(0ms); });
  CHECK(other.receive(5) == "line\n");
}

TEST_CASE("a server whose listener somebody has copied stops all the same", "[C3][M5]") {
  LocalServer local;
  Client client(local.port());
  const int accepted = local.accept_client();
  const echod::Socket copy(::dup(local.listener()));
  client.send("held");
  local.serve(accepted);
  local.pass_event(SIGTERM, EVFILT_SIGNAL);
  local.end_batch();
  CHECK(client.receive_all() == "held");
  const Client late(local.port());  // the copy still listens
  client.close();
  CHECK_NOTHROW(local.run_until_stopped());
}
