// What kqueue promises: the rules that echod relies on, each as a small program, in an order to learn them in.
//
// Nothing here is of echod. Every case holds on macOS and FreeBSD as their kqueue(2) says, and on Linux for the adapter
// in src/linux; where the systems differ, the case says so and asserts what is common.
#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace {

#ifdef __linux__
constexpr bool real_kqueue = false;  // the adapter on epoll: for descriptors, `data` is 1 and `fflags` 0
#else
constexpr bool real_kqueue = true;
#endif

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

  /// One change, with no room for events: 0, or the errno it failed with.
  int change(std::intptr_t ident, short filter, unsigned short flags, std::int64_t data = 0, void* udata = nullptr) {
    Event change;
    EV_SET(&change, static_cast<std::uintptr_t>(ident), filter, flags, 0, data, udata);
    return ::kevent(descriptor, &change, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
  }

  /// What is ready, with room for `room` events, waiting for `milliseconds` at the most.
  Events wait(int milliseconds, int room = 16) {
    Events events(static_cast<std::size_t>(room));
    const timespec time{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
    const int count = ::kevent(descriptor, nullptr, 0, events.data(), room, &time);
    REQUIRE(count >= 0);
    events.resize(static_cast<std::size_t>(count));
    return events;
  }
  /// Waits for as long as it takes. (On failure: a minute.)
  Events wait() { return wait(60'000); }
  Events ready_now() { return wait(0); }
};

struct Pair {
  Descriptor first;
  Descriptor second;
};

Pair pipe_pair() {  // first is the end to read from
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

Pair tcp_pair() {  // first is the one to be watched, non-blocking
  const Listener listener;
  Descriptor client = listener.connect();
  Descriptor accepted(::accept(listener.descriptor, nullptr, nullptr));
  REQUIRE(::fcntl(accepted, F_SETFL, O_NONBLOCK) == 0);
  return {std::move(accepted), std::move(client)};
}

void send(int descriptor, const std::string& bytes) {
  REQUIRE(::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
}

std::string receive(int descriptor) {
  char buffer[4096];
  const ssize_t count = ::read(descriptor, buffer, sizeof buffer);
  return {buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

/// Fills a non-blocking socket, so that it cannot be written to until the other end reads.
void fill(int descriptor) {
  std::signal(SIGPIPE, SIG_IGN);
  const std::string much(1 << 16, 'x');
  while (::write(descriptor, much.data(), much.size()) > 0) {
  }
  REQUIRE(errno == EAGAIN);
}

void reset(Descriptor& descriptor) {
  const linger at_once{1, 0};
  REQUIRE(::setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
  descriptor.close();
}

void check_one(const Events& events, std::intptr_t ident, short filter) {
  REQUIRE(events.size() == 1);
  CHECK(events[0].ident == static_cast<std::uintptr_t>(ident));
  CHECK(events[0].filter == filter);
}

/// Puts a `replacement` under the number of `old`, as the kernel does for the next descriptor after a close.
void reuse_number(Descriptor& old, Descriptor replacement) {
  const int number = old;
  old.close();
  if (replacement == number) {
    old = std::move(replacement);
    return;
  }
  old = Descriptor(::fcntl(replacement, F_DUPFD, number));
  REQUIRE(old == number);
}

}  // namespace

// Reading

TEST_CASE("nothing is ready until there is something to read") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  CHECK(kq.ready_now().empty());
  send(writer, "x");
  check_one(kq.wait(), reader, EVFILT_READ);
}

TEST_CASE("a socket with input is ready, and data is the number of bytes") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  send(peer, "hello");
  const Events events = kq.wait();
  check_one(events, socket, EVFILT_READ);
  CHECK(events[0].data > 0);
  if (real_kqueue) CHECK(events[0].data == 5);
  CHECK((events[0].flags & EV_EOF) == 0);
}

TEST_CASE("a listener with somebody in its queue is ready for EVFILT_READ, and data is how many") {
  const Listener listener;
  Kqueue kq;
  REQUIRE(kq.change(listener.descriptor, EVFILT_READ, EV_ADD) == 0);
  CHECK(kq.ready_now().empty());
  const Descriptor one = listener.connect();
  const Descriptor two = listener.connect();
  Events events = kq.wait();
  check_one(events, listener.descriptor, EVFILT_READ);
  CHECK(events[0].data > 0);
  while (real_kqueue && events.at(0).data < 2) events = kq.wait();
}

TEST_CASE("read is level-triggered: what is not read is reported again, what is read is not") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  CHECK(kq.wait().size() == 1);
  CHECK(kq.ready_now().size() == 1);
  CHECK(receive(reader) == "x");
  CHECK(kq.ready_now().empty());
}

TEST_CASE("a filter added when its condition holds already reports it") {
  const auto [reader, writer] = pipe_pair();
  send(writer, "x");
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  check_one(kq.ready_now(), reader, EVFILT_READ);
}

// The end

TEST_CASE("EV_EOF comes as soon as the peer has shut its side, with bytes still to be read") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  send(peer, "last words");
  REQUIRE(::shutdown(peer, SHUT_WR) == 0);
  Events events = kq.wait();
  while ((events[0].flags & EV_EOF) == 0) events = kq.wait();
  CHECK(receive(socket) == "last words");
  CHECK(receive(socket).empty());
}

TEST_CASE("EV_EOF stays, also when everything is read, until the filter goes") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(::shutdown(peer, SHUT_WR) == 0);
  for (int i = 0; i < 3; ++i) {
    const Events events = kq.wait();
    check_one(events, socket, EVFILT_READ);
    CHECK((events[0].flags & EV_EOF) != 0);
  }
}

TEST_CASE("the end of a pipe is EV_EOF, too") {
  auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  writer.close();
  const Events events = kq.wait();
  check_one(events, reader, EVFILT_READ);
  CHECK((events[0].flags & EV_EOF) != 0);
}

TEST_CASE("after a reset fflags has the error, and read fails with it") {
  auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  reset(peer);
  const Events events = kq.wait();
  check_one(events, socket, EVFILT_READ);
  CHECK((events[0].flags & EV_EOF) != 0);
  CHECK(events[0].fflags == (real_kqueue ? ECONNRESET : 0));
  char byte = 0;
  CHECK(::read(socket, &byte, 1) == -1);
  CHECK(errno == ECONNRESET);
}

// Writing

TEST_CASE("a socket is ready for writing at once, and stays so") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  check_one(kq.wait(), socket, EVFILT_WRITE);
  check_one(kq.ready_now(), socket, EVFILT_WRITE);
}

TEST_CASE("it is not while its buffer is full, and is again when the peer has read") {
  const auto [socket, peer] = tcp_pair();
  fill(socket);
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  Events events = kq.wait(100);
  while (!events.empty()) {  // the kernels still move bytes from one side to the other
    fill(socket);
    events = kq.wait(100);
  }
  while (kq.ready_now().empty()) REQUIRE_FALSE(receive(peer).empty());
  check_one(kq.wait(), socket, EVFILT_WRITE);
}

TEST_CASE("after a reset the write filter is ready with EV_EOF, so that write can tell") {
  auto [socket, peer] = tcp_pair();
  fill(socket);
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  reset(peer);
  Events events = kq.wait();
  while ((events.at(0).flags & EV_EOF) == 0) events = kq.wait();
  check_one(events, socket, EVFILT_WRITE);
  CHECK(::write(socket, "x", 1) == -1);
}

// Filters of their own

TEST_CASE("two filters on one descriptor are two events, each with its own udata") {
  const auto [socket, peer] = tcp_pair();
  int reading = 0;
  int writing = 0;
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, 0, &reading) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD, 0, &writing) == 0);
  send(peer, "x");
  Events events = kq.wait();
  while (events.size() < 2) events = kq.wait();
  for (const Event& event : events) {
    CHECK(event.ident == static_cast<std::uintptr_t>(static_cast<int>(socket)));
    CHECK(event.udata == (event.filter == EVFILT_READ ? &reading : &writing));
  }
  CHECK(events[0].filter != events[1].filter);
}

TEST_CASE("filters are numbers, not bits: EVFILT_WRITE and EVFILT_READ have bits in common") {
  CHECK((EVFILT_WRITE & EVFILT_READ) != 0);
  CHECK(EVFILT_READ < 0);
}

TEST_CASE("a disabled filter keeps silent, an enabled one speaks again") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DISABLE) == 0);
  CHECK(kq.ready_now().empty());
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ENABLE) == 0);
  CHECK(kq.ready_now().size() == 1);
}

TEST_CASE("a disabled filter keeps silent about the end, too") {
  auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD | EV_DISABLE) == 0);
  reset(peer);
  CHECK(kq.wait(50).empty());
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ENABLE) == 0);
  check_one(kq.wait(), socket, EVFILT_READ);
}

TEST_CASE("EV_ADD leaves a disabled filter disabled") {  // the manuals read otherwise, the kernels do this
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DISABLE) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  CHECK(kq.ready_now().empty());
}

TEST_CASE("to disable one filter of a descriptor is not to disable the other") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_DISABLE) == 0);
  send(peer, "x");
  check_one(kq.wait(), socket, EVFILT_READ);
}

TEST_CASE("every change overwrites udata, EV_ENABLE and EV_DISABLE as well as EV_ADD") {
  const auto [reader, writer] = pipe_pair();
  int one = 0;
  int other = 0;
  send(writer, "x");
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD, 0, &one) == 0);
  CHECK(kq.ready_now().at(0).udata == &one);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD, 0, &other) == 0);
  CHECK(kq.ready_now().at(0).udata == &other);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ENABLE, 0, nullptr) == 0);
  CHECK(kq.ready_now().at(0).udata == nullptr);
}

TEST_CASE("a one-shot filter is gone after its event") {
  const auto [reader, writer] = pipe_pair();
  send(writer, "x");
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD | EV_ONESHOT) == 0);
  CHECK(kq.ready_now().size() == 1);
  CHECK(kq.ready_now().empty());
  CHECK(kq.change(reader, EVFILT_READ, EV_DELETE) == ENOENT);
}

// What is gone

TEST_CASE("a deleted filter is gone; to delete, enable or disable what is not there is ENOENT") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  send(writer, "x");
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DELETE) == 0);
  CHECK(kq.ready_now().empty());
  CHECK(kq.change(reader, EVFILT_READ, EV_DELETE) == ENOENT);
  CHECK(kq.change(reader, EVFILT_READ, EV_ENABLE) == ENOENT);
  CHECK(kq.change(reader, EVFILT_READ, EV_DISABLE) == ENOENT);
}

TEST_CASE("a closed descriptor cannot be watched") {
  Kqueue kq;
  auto [reader, writer] = pipe_pair();
  const int number = reader;
  reader.close();
  CHECK(kq.change(number, EVFILT_READ, EV_ADD) == EBADF);
}

TEST_CASE("a closed descriptor takes its filters along") {
  auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  send(peer, "x");
  socket.close();
  CHECK(kq.wait(50).empty());
}

TEST_CASE("its number's next owner inherits nothing: no filter, no udata, no disabled state") {
  for (const bool disabled : {false, true}) {
    auto [socket, peer] = tcp_pair();
    auto [heir, heirs_peer] = tcp_pair();
    int old = 0;
    int fresh = 0;
    Kqueue kq;
    REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, 0, &old) == 0);
    REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD, 0, &old) == 0);
    if (disabled) {
      REQUIRE(kq.change(socket, EVFILT_READ, EV_DISABLE, 0, &old) == 0);
      REQUIRE(kq.change(socket, EVFILT_WRITE, EV_DISABLE, 0, &old) == 0);
    }
    reuse_number(socket, std::move(heir));
    CHECK(kq.ready_now().empty());
    CHECK(kq.change(socket, EVFILT_WRITE, EV_ENABLE) == ENOENT);
    REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, 0, &fresh) == 0);
    send(heirs_peer, "x");
    const Events events = kq.wait();
    check_one(events, socket, EVFILT_READ);
    CHECK(events[0].udata == &fresh);
    CHECK(kq.change(socket, EVFILT_WRITE, EV_DELETE) == ENOENT);
  }
}

// Changes that fail

TEST_CASE("a failed change with no room for events is -1 and errno") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  Event change;
  EV_SET(&change, static_cast<std::uintptr_t>(static_cast<int>(reader)), EVFILT_READ, EV_DELETE, 0, 0, nullptr);
  CHECK(::kevent(kq.descriptor, &change, 1, nullptr, 0, nullptr) == -1);
  CHECK(errno == ENOENT);
}

TEST_CASE("with room it is an EV_ERROR event with errno in data, and the changes after it are made") {
  const auto [reader, writer] = pipe_pair();
  const auto ident = static_cast<std::uintptr_t>(static_cast<int>(reader));
  send(writer, "x");
  Kqueue kq;
  Event changes[2];
  EV_SET(&changes[0], ident, EVFILT_READ, EV_DELETE, 0, 0, nullptr);
  EV_SET(&changes[1], ident, EVFILT_READ, EV_ADD, 0, 0, nullptr);
  Event result;
  REQUIRE(::kevent(kq.descriptor, changes, 2, &result, 1, nullptr) == 1);
  CHECK((result.flags & EV_ERROR) != 0);
  CHECK(result.data == ENOENT);
  CHECK(result.ident == ident);
  check_one(kq.ready_now(), reader, EVFILT_READ);
}

TEST_CASE("an unknown filter is EINVAL") {
  Kqueue kq;
  CHECK(kq.change(0, -99, EV_ADD) == EINVAL);
}

// Timers: FreeBSD may be late by some per cent, macOS puts timers together, and any machine may be slow.

TEST_CASE("a one-shot timer fires once, after its milliseconds, and is gone") {
  Kqueue kq;
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(kq.change(7, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 20) == 0);
  const Events events = kq.wait();
  check_one(events, 7, EVFILT_TIMER);
  CHECK(events[0].data == 1);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(19));
  CHECK(kq.wait(60).empty());
  CHECK(kq.change(7, EVFILT_TIMER, EV_DELETE) == ENOENT);
}

TEST_CASE("a periodic timer goes on, and data is how often it fired") {
  Kqueue kq;
  REQUIRE(kq.change(1, EVFILT_TIMER, EV_ADD, 10) == 0);
  CHECK(kq.wait().at(0).data >= 1);
  timespec pause{0, 100'000'000};
  ::nanosleep(&pause, nullptr);
  CHECK(kq.wait().at(0).data > 1);
}

TEST_CASE("adding a timer again sets it anew") {
  Kqueue kq;
  REQUIRE(kq.change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 60'000) == 0);
  REQUIRE(kq.change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 1) == 0);
  check_one(kq.wait(10'000), 1, EVFILT_TIMER);
}

TEST_CASE("a timer's ident is a number of its own, it has nothing to do with descriptors") {
  const auto [reader, writer] = pipe_pair();
  send(writer, "x");
  Kqueue kq;
  int timer = 0;
  REQUIRE(kq.change(reader, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 1, &timer) == 0);
  const Events events = kq.wait();
  check_one(events, reader, EVFILT_TIMER);
  CHECK(events[0].udata == &timer);
}

// Signals. Sent with kill(): macOS counts only those that are sent to the process.

TEST_CASE("a signal is an event although it is ignored") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR1);
  const Events events = kq.wait();
  check_one(events, SIGUSR1, EVFILT_SIGNAL);
  CHECK(events[0].data == 1);
}

TEST_CASE("two signals before the next call are one event with data 2") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR1);
  ::kill(::getpid(), SIGUSR1);
  const Events events = kq.wait();
  check_one(events, SIGUSR1, EVFILT_SIGNAL);
  CHECK(events[0].data == 2);
  CHECK(kq.ready_now().empty());
}

TEST_CASE("a signal of before it was watched is not seen, nor one after it is deleted") {
  std::signal(SIGUSR1, SIG_IGN);
  ::kill(::getpid(), SIGUSR1);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  CHECK(kq.ready_now().empty());
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_DELETE) == 0);
  ::kill(::getpid(), SIGUSR1);
  CHECK(kq.ready_now().empty());
}

// The call itself

TEST_CASE("a time-out of zero asks, one of some milliseconds waits, none at all waits for an event") {
  Kqueue kq;
  const auto start = std::chrono::steady_clock::now();
  CHECK(kq.ready_now().empty());
  CHECK(kq.wait(30).empty());
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(29));
  REQUIRE(kq.change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 30) == 0);
  Event event;
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, nullptr) == 1);
}

TEST_CASE("a signal handler that runs ends the wait with EINTR") {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  REQUIRE(::sigaction(SIGALRM, &action, nullptr) == 0);
  Kqueue kq;
  Event event;
  ::alarm(1);
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, nullptr) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("more events than room come one call after the other, none is forgotten") {
  std::vector<Pair> pipes;
  Kqueue kq;
  for (int i = 0; i < 5; ++i) {
    pipes.push_back(pipe_pair());
    REQUIRE(kq.change(pipes.back().first, EVFILT_READ, EV_ADD) == 0);
    send(pipes.back().second, "x");
  }
  std::size_t seen = 0;
  while (seen < pipes.size()) {
    const Events events = kq.wait(60'000, 2);
    REQUIRE_FALSE(events.empty());
    for (const Event& event : events) CHECK(receive(static_cast<int>(event.ident)) == "x");
    seen += events.size();
  }
  CHECK(kq.ready_now().empty());
}

TEST_CASE("with room for one event, two filters of one descriptor come one after the other") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  send(peer, "x");
  while (kq.wait().size() < 2) {
  }
  const short first = kq.wait(60'000, 1).at(0).filter;
  REQUIRE(kq.change(socket, first, EV_DISABLE) == 0);
  check_one(kq.wait(60'000, 1), socket, first == EVFILT_READ ? EVFILT_WRITE : EVFILT_READ);
}

TEST_CASE("two kqueues watch one descriptor, each with its own filters") {
  const auto [reader, writer] = pipe_pair();
  Kqueue one;
  Kqueue other;
  REQUIRE(one.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(other.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(other.change(reader, EVFILT_READ, EV_DISABLE) == 0);
  send(writer, "x");
  CHECK(one.ready_now().size() == 1);
  CHECK(other.ready_now().empty());
}

TEST_CASE("what is not a kqueue is EBADF or EINVAL") {
  const auto [reader, writer] = pipe_pair();
  const timespec none{};
  Event event;
  CHECK(::kevent(reader, nullptr, 0, &event, 1, &none) == -1);
  CHECK((errno == EBADF || errno == EINVAL));
}

TEST_CASE("close-on-exec can be set on a kqueue") {  // where it is not set from the start: FreeBSD before 15, macOS
  Kqueue kq;
  REQUIRE(::fcntl(kq.descriptor, F_SETFD, FD_CLOEXEC) == 0);
  CHECK((::fcntl(kq.descriptor, F_GETFD) & FD_CLOEXEC) != 0);
}
