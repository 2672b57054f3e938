// Server, with a linger span that a test can wait for. [E5] [C3]
#include "echod/server.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string>
#include <utility>

#include "catch.hpp"
#include "client.hpp"

using namespace std::chrono_literals;

namespace {

/// A Server in a process of its own: it takes the signals over, and a kqueue is not inherited.
class ServerProcess {
 public:
  explicit ServerProcess(std::chrono::milliseconds linger) {
    echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
    const std::string address = listener.local_address();
    port_ = static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
    pid_ = ::fork();
    if (pid_ != 0) return;
    std::signal(SIGPIPE, SIG_IGN);
    echod::EventLoop loop;
    echod::Server server(loop, std::move(listener), linger);
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
  const ServerProcess server(300ms);
  Client client(server.port());
  client.send("a\n\n");
  CHECK(client.receive_all() == "a\n");
  CHECK_THROWS([&] {
    for (;;) client.send("x");
  }());
}

TEST_CASE("[E5] one that stays silent is, too") {
  const ServerProcess server(300ms);
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
