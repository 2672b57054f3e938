// What kqueue_test.cpp and kqueue_adapter_test.cpp need besides kqueue(2): descriptors that close
// themselves, pipes and TCP connections, and a struct Kqueue that makes one change or waits once.
#pragma once

#include <sys/types.h>
// <sys/types.h> comes first, as in the synopsis of kqueue(2).
#include <sys/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using Event = struct kevent;
using Events = std::vector<Event>;

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) { REQUIRE(number >= 0); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() { close(); }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }
  operator int() const { return number_; }

 private:
  int number_;
};

struct Kqueue {
  Descriptor descriptor{::kqueue()};

  /// Makes one change, with no room for events. Returns 0, or the errno if it fails.
  int change(std::intptr_t ident, short filter, unsigned short flags, void* udata = nullptr) {
    Event change;
    EV_SET(&change, static_cast<std::uintptr_t>(ident), filter, flags, 0, 0, udata);
    return ::kevent(descriptor, &change, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
  }

  /// Waits at most `milliseconds` for events, with room for `room` of them.
  Events wait(int milliseconds, int room = 16) {
    Events events(static_cast<std::size_t>(room));
    const timespec time{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
    const int count = ::kevent(descriptor, nullptr, 0, events.data(), room, &time);
    REQUIRE(count >= 0);
    REQUIRE(count <= room);
    events.resize(static_cast<std::size_t>(count));
    return events;
  }
  /// Waits until something is ready. Only a failing test waits the whole minute.
  Events wait() { return wait(60'000); }
  Events ready_now() { return wait(0); }
};

/// Checks only `ident` and `filter`. On macOS, `flags` also holds the actions of the filter, such
/// as EV_ADD.
inline void check_one(const Events& events, std::intptr_t ident, short filter) {
  REQUIRE(events.size() == 1);
  CHECK(events[0].ident == static_cast<std::uintptr_t>(ident));
  CHECK(events[0].filter == filter);
}

struct Pair {
  Descriptor first;
  Descriptor second;
};

/// `first` is the end to read from.
inline Pair pipe_pair() {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

struct Listener {
  Descriptor descriptor{::socket(AF_INET, SOCK_STREAM, 0)};
  sockaddr_in address{};

  Listener() {
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(descriptor, 16) == 0);
    REQUIRE(::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  }
  Descriptor connect() const {
    Descriptor client(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return client;
  }
};

/// Both ends of a TCP connection. `first` is non-blocking. It is the one to watch.
inline Pair tcp_pair() {
  const Listener listener;
  Descriptor client = listener.connect();
  Descriptor accepted(::accept(listener.descriptor, nullptr, nullptr));
  REQUIRE(::fcntl(accepted, F_SETFL, O_NONBLOCK) == 0);
  return {std::move(accepted), std::move(client)};
}

inline void send(int descriptor, const std::string& bytes) {
  REQUIRE(::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
}

inline std::string receive(int descriptor) {
  char buffer[4096];
  const ssize_t count = ::read(descriptor, buffer, sizeof buffer);
  return {buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

/// Fills the send buffer of a non-blocking socket, so that it is not ready for writing until the
/// other end reads.
inline void fill(int descriptor) {
  std::signal(SIGPIPE, SIG_IGN);
  const std::string much(1 << 16, 'x');
  while (::write(descriptor, much.data(), much.size()) > 0) {
  }
  REQUIRE(errno == EAGAIN);
}

/// Closes a socket, and its peer meets a reset.
inline void reset(Descriptor& descriptor) {
  const linger at_once{1, 0};
  REQUIRE(::setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  descriptor.close();
}

/// Closes `old` and gives its number to `replacement`, as the kernel does for the next descriptor
/// after a close.
inline void reuse_number(Descriptor& old, Descriptor replacement) {
  const int number = old;
  old.close();
  if (replacement == number) {
    old = std::move(replacement);
    return;
  }
  old = Descriptor(::fcntl(replacement, F_DUPFD, number));
  REQUIRE(old == number);
}

/// Runs a signal handler ten times a second, so that a kevent call that waits ends with EINTR.
class Interruptions {
 public:
  Interruptions() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    REQUIRE(::sigaction(SIGALRM, &action, nullptr) == 0);
    const itimerval often{{0, 100'000}, {0, 100'000}};
    REQUIRE(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
  }
  Interruptions(const Interruptions&) = delete;
  Interruptions& operator=(const Interruptions&) = delete;
  ~Interruptions() {
    const itimerval never{};
    ::setitimer(ITIMER_REAL, &never, nullptr);
  }
};
