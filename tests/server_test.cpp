// Server, with a linger span that a test can wait for. [E5] [C3]
#include "echod/server.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <string>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "client.hpp"

using namespace std::chrono_literals;

namespace {

/// A Server in a process of its own: it takes the signals over, and a kqueue is not inherited.
class ServerProcess {
 public:
  explicit ServerProcess(echod::Server::Spans spans) {
    echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
    const std::string address = listener.local_address();
    port_ = port_of(address);
    pid_ = ::fork();
    if (pid_ != 0) return;
    std::signal(SIGPIPE, SIG_IGN);
    echod::EventLoop loop;
    echod::Server server(loop, std::move(listener), spans);
    loop.run([&server] { return server.after_batch(); });
    _exit(0);
  }
  ServerProcess(const ServerProcess&) = delete;
  ~ServerProcess() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  std::uint16_t port() const { return port_; }

 private:
  std::uint16_t port_;
  pid_t pid_;
};

}  // namespace

TEST_CASE("[E5] a client that never stops sending after the empty line is cut off when its time is up") {
  const ServerProcess server({.linger = 300ms});
  Client client(server.port());
  client.send("a\n\n");
  CHECK(client.receive_all() == "a\n");
  CHECK_THROWS([&] {
    for (;;) client.send("x");
  }());
}

TEST_CASE("[E5] one that stays silent is, too") {
  const ServerProcess server({.linger = 300ms});
  Client client(server.port());
  client.send("\n");
  CHECK(client.receive_all().empty());
  CHECK_THROWS([&] {
    for (;;) {
      client.hears_within(10ms);
      client.send("x");
    }
  }());
}

TEST_CASE("[M6] a silent client is closed when its time is up, and its unfinished line dropped") {
  const ServerProcess server({.idle = 200ms});
  Client client(server.port());
  client.send("whole\nunfinished");
  CHECK(client.receive_all() == "whole\n");
}

TEST_CASE("[M6] a client that does not read is closed, too") {
  const ServerProcess server({.idle = 200ms});
  Client client(server.port(), "127.0.0.1", 32768);
  CHECK_THROWS([&] {
    for (;;) client.send(long_line);
  }());
}

TEST_CASE("[M6] so is one that does not read after its empty line: that is not the linger yet") {
  const ServerProcess server({.linger = std::chrono::hours(1), .idle = 200ms});
  Client client(server.port(), "127.0.0.1", 32768);
  client.send_until_stuck(long_line, 50ms);
  CHECK_THROWS([&] {
    for (;;) client.send("\n");
  }());
}

TEST_CASE("[M6] bytes received give a client its time anew, whoever else is silent") {
  const ServerProcess server({.idle = 2s});
  Client silent(server.port());
  Client active(server.port());
  while (!silent.hears_within(50ms)) active.send("x");  // no line yet, so nothing comes back
  CHECK(silent.receive_all().empty());
  for (int i = 0; i < 20; ++i) CHECK_FALSE((active.send("x"), active.hears_within(50ms)));
  active.send("\n");
  CHECK(active.receive(1) == "x");
}

TEST_CASE("[M6] so do bytes sent: a client may take longer in all, as long as it reads on") {
  const ServerProcess server({.idle = 3s});
  Client client(server.port(), "127.0.0.1", 32768);
  const std::size_t sent = client.send_until_stuck(long_line, 100ms);
  const std::size_t lines = sent / 1024 * 1024;
  std::this_thread::sleep_for(2s);
  CHECK(client.receive(lines).size() == lines);
  std::this_thread::sleep_for(2s);
  client.send("\n");
  CHECK(client.receive_all().size() <= sent % 1024 + 1);
  CHECK(client.wait_for_end() == 0);
}

TEST_CASE("[M6] without a limit a silent client may stay") {
  const ServerProcess server({});
  Client client(server.port());
  CHECK_FALSE(client.hears_within(500ms));
  CHECK(client.exchange("x") == "x");
}

TEST_CASE("[M4] the soft limit of descriptors is raised to the hard one") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit low{64, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  echod::raise_descriptor_limit();
  rlimit raised{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &raised) == 0);
  CHECK(raised.rlim_cur >= std::min<rlim_t>(before.rlim_max, 10240));  // macOS: no more than its OPEN_MAX
}
