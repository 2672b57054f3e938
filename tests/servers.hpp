// Servers with time limits that a test can wait for, and the server's end of a connection.
#pragma once

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "client.hpp"
#include "echod/event_loop.hpp"
#include "echod/protocol.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "patience.hpp"
#include "transcript.hpp"

inline std::uint16_t port_of(const echod::Socket& listener) {
  return port_of(listener.local_address());
}

inline void wait_for_input(const echod::Socket& socket) {
  pollfd entry{socket.descriptor(), POLLIN, 0};
  if (::poll(&entry, 1, static_cast<int>(patience.count())) != 1)
    throw std::runtime_error("no input");
}

/// Accepts a client, and waits for it if it has not arrived yet.
inline echod::Socket accept_from(echod::Socket& listener) {
  wait_for_input(listener);
  return std::move(listener.accept().socket);
}

/// Both ends of a connection: the client, and the socket that the server has accepted.
struct Pair {
  echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
  Client client{port_of(listener)};
  echod::Socket accepted = accept_from(listener);
};

/// A Server on a loop in this process. It takes over the signals.
struct LocalServer {
  explicit LocalServer(echod::TimeLimits limits = {},
                       echod::Socket socket = echod::Socket::listen("127.0.0.1", 0))
      : listener(socket.descriptor()),
        port(port_of(socket)),
        server(loop, std::move(socket), echod::Protocol(), limits) {}

  int listener;  // the descriptor
  std::uint16_t port;
  echod::EventLoop loop;
  echod::Server server;
};

/// A Server in a process of its own.
class ServerProcess {
 public:
  explicit ServerProcess(echod::TimeLimits limits,
                         echod::Socket listener = echod::Socket::listen("127.0.0.1", 0))
      : port_(port_of(listener)) {
    int ready[2];
    if (::pipe(ready) != 0) throw std::runtime_error("no pipe for a server");
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("no process for a server");
    if (pid_ == 0) {
      std::signal(SIGPIPE, SIG_IGN);
      // Both may have been ignored when the tests were started. The server would leave that alone.
      std::signal(SIGHUP, SIG_DFL);
      std::signal(SIGINT, SIG_DFL);
      LocalServer local(limits, std::move(listener));
      ::close(ready[1]);
      local.loop.run(local.server);
      _exit(0);
    }
    ::close(ready[1]);
    char byte = 0;
    // Until it has taken over the signals.
    while (::read(ready[0], &byte, 1) < 0 && errno == EINTR) {
    }
    ::close(ready[0]);
  }
  ServerProcess(const ServerProcess&) = delete;
  ~ServerProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  void signal(int number) const {
    transcript::note("server", "gets signal " + std::to_string(number));
    ::kill(pid_, number);
  }
  /// Waits until it ends. Returns 0 after a stop.
  int wait() {
    int status = -1;
    const auto start = std::chrono::steady_clock::now();
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() - start > patience)
        throw std::runtime_error("the server does not end");
      ::usleep(1000);
    }
    pid_ = -1;
    return status;
  }
  std::uint16_t port() const { return port_; }

 private:
  std::uint16_t port_;
  pid_t pid_ = -1;
};
