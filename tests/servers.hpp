// Servers with time limits that a test can wait for, and the server's end of a connection.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "client.hpp"
#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "patience.hpp"
#include "transcript.hpp"

inline std::uint16_t port_of(const echod::Socket& listener) {
  return port_of(listener.local_address());
}

inline void wait_for_input(int descriptor) {
  pollfd entry{descriptor, POLLIN, 0};
  if (::poll(&entry, 1, static_cast<int>(patience.count())) != 1)
    throw std::runtime_error("no input");
}
inline void wait_for_input(const echod::Socket& socket) { wait_for_input(socket.descriptor()); }

/// Returns the lowest free descriptor number, which the next descriptor will get.
inline int next_descriptor() {
  const int next = ::dup(STDERR_FILENO);
  ::close(next);
  return next;
}

/// Accepts a client, and waits for it if it has not arrived yet.
inline echod::Socket accept_from(echod::Socket& listener) {
  wait_for_input(listener);
  return listener.accept();
}

/// Both ends of a connection: the client, and the socket that the server has accepted.
struct Pair {
  echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
  Client client{port_of(listener)};
  echod::Socket accepted = accept_from(listener);
};

/// Gives the signals to stop their default action. A test framework may have a handler there, which
/// would run as well, because EVFILT_SIGNAL only observes; and one that is ignored stays ignored.
struct DefaultActions {
  DefaultActions() {
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) std::signal(number, SIG_DFL);
  }
};

/// Returns true, or throws when the patience is over.
struct Patience {
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  bool operator()() const {
    if (std::chrono::steady_clock::now() - start > patience)
      throw std::runtime_error("it takes too long");
    return true;
  }
};

/// A Server on a loop in this process. It takes over the signals. A test passes it events of its
/// own making, or runs the loop. Client and server share one thread then, so neither can be late: a
/// slow machine slows down both.
class LocalServer : public echod::EventLoop::Handler {
 public:
  using Clock = echod::EventLoop::Clock;

  explicit LocalServer(echod::TimeLimits limits = {},
                       echod::Socket socket = echod::Socket::listen("127.0.0.1", 0))
      : listener_(socket.descriptor()),
        port_(port_of(socket)),
        server_(loop_, std::move(socket), limits) {}

  std::uint16_t port() const { return port_; }
  int listener() const { return listener_; }

  void pass_event(int ident, short filter) {
    struct kevent event;
    EV_SET(&event, static_cast<std::uintptr_t>(ident), filter, 0, 0, 1, nullptr);
    on_event(event);
  }
  /// Waits for a client, and accepts it. Returns the descriptor of its connection.
  int accept_client() {
    wait_for_input(listener_);
    const int accepted = next_descriptor();
    pass_event(listener_, EVFILT_READ);
    return accepted;
  }
  /// Waits for input of a client, and does one step of its connection.
  void serve(int connection) {
    wait_for_input(connection);
    pass_event(connection, EVFILT_READ);
  }
  /// Returns when the server wants to act next, also without an event (time_point::max(): never).
  /// Returns nullopt when it has stopped.
  virtual std::optional<Clock::time_point> end_batch() { return server_.before_wait(); }

  /// Runs the loop until `goes_on` returns false or the server has stopped. `goes_on` is called
  /// after each batch. No batch waits longer than `pause`.
  void run(std::function<bool()> goes_on, Clock::duration pause = std::chrono::milliseconds(1)) {
    goes_on_ = std::move(goes_on);
    pause_ = pause;
    loop_.run(*this);
  }
  void run_until_stopped() { loop_.run(server_); }
  /// Runs the loop until the server has closed a connection. No batch is cut short, so it shows
  /// whether the server wakes up in time.
  void run_until_closed(int connection) {
    const auto start = Clock::now();
    const auto is_open = [&] {
      if (Clock::now() - start >= patience) throw std::runtime_error("a connection stays open");
      return ::fcntl(connection, F_GETFD) >= 0;
    };
    run(is_open, patience);
  }

  void on_event(const struct kevent& event) override { server_.on_event(event); }
  std::optional<Clock::time_point> before_wait() override {
    const auto deadline = end_batch();
    if (!deadline || !goes_on_()) return std::nullopt;
    return std::min(*deadline, Clock::now() + pause_);
  }

 private:
  const DefaultActions actions_;  // before the Server watches them
  int listener_;                  // the descriptor
  std::uint16_t port_;
  echod::EventLoop loop_;
  echod::Server server_;
  std::function<bool()> goes_on_;
  Clock::duration pause_{};
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
      LocalServer local(limits, std::move(listener));
      ::close(ready[1]);
      local.run_until_stopped();
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
    transcript::note("server", "gets " + transcript::name_of_signal(number));
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
