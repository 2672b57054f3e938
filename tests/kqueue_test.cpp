// The rules of kqueue that echod relies on, each as a small program. To learn them, read from top
// to bottom. kqueue_helpers.hpp has Kqueue, whose change() and wait() each call kevent(2) once, and
// makes pipes and connections.
//
// Nothing here uses echod. The cases hold on FreeBSD and macOS, and on Linux for the adapter in
// src/linux. Where the systems differ, a case says so and checks what they have in common.
// kqueue_adapter_test.cpp has what only the adapter does.
#include <sys/types.h>
// <sys/types.h> comes first, as in the synopsis of kqueue(2).
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <ctime>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "kqueue_helpers.hpp"

#ifdef __linux__
// The adapter reports data 1 and fflags 0 for every descriptor.
constexpr bool real_kqueue = false;
#else
constexpr bool real_kqueue = true;
#endif

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

TEST_CASE(
    "a listener with connections in its queue is ready for EVFILT_READ, and data is their number") {
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

TEST_CASE("read is level-triggered: unread input is reported again") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  CHECK(kq.wait().size() == 1);
  CHECK(kq.ready_now().size() == 1);
  CHECK(receive(reader) == "x");
  CHECK(kq.ready_now().empty());
}

TEST_CASE("a filter that is added when its condition already holds reports it") {
  const auto [reader, writer] = pipe_pair();
  send(writer, "x");
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  check_one(kq.ready_now(), reader, EVFILT_READ);
}

// The end

TEST_CASE("EV_EOF can come while input is unread") {
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

TEST_CASE("EV_EOF is reported again and again, even when everything has been read") {
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

TEST_CASE("after a reset fflags holds the error, and read fails with it") {
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

TEST_CASE("a socket is ready for writing at once, and stays ready") {
  const auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  check_one(kq.wait(), socket, EVFILT_WRITE);
  check_one(kq.ready_now(), socket, EVFILT_WRITE);
}

TEST_CASE("a socket with a full buffer is not ready for writing until the peer reads") {
  const auto [socket, peer] = tcp_pair();
  fill(socket);
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  Events events = kq.wait(100);
  while (!events.empty()) {  // The kernel still moves bytes from one side to the other.
    fill(socket);
    events = kq.wait(100);
  }
  while (kq.ready_now().empty()) REQUIRE_FALSE(receive(peer).empty());
  check_one(kq.wait(), socket, EVFILT_WRITE);
}

TEST_CASE("after a reset the write filter reports EV_EOF, and write fails") {
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

// Two filters of one descriptor

TEST_CASE("two filters on one descriptor are two events, each with its own udata") {
  const auto [socket, peer] = tcp_pair();
  int reading = 0;
  int writing = 0;
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, &reading) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD, &writing) == 0);
  send(peer, "x");
  Events events = kq.wait();
  while (events.size() < 2) events = kq.wait();
  for (const Event& event : events) {
    CHECK(event.ident == static_cast<std::uintptr_t>(static_cast<int>(socket)));
    CHECK(event.udata == (event.filter == EVFILT_READ ? &reading : &writing));
  }
  CHECK(events[0].filter != events[1].filter);
}

// They are negative on FreeBSD and macOS, and 0 and 1 on NetBSD. So `filter & EVFILT_READ` holds
// for both, or for neither.
TEST_CASE("a filter is a number to compare, not a bit") {
  const auto has_bit_of_read = [](int filter) { return (filter & EVFILT_READ) != 0; };
  CHECK(has_bit_of_read(EVFILT_READ) == has_bit_of_read(EVFILT_WRITE));
  CHECK(EVFILT_READ != EVFILT_WRITE);
}

TEST_CASE("a disabled filter reports nothing until it is enabled") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DISABLE) == 0);
  CHECK(kq.ready_now().empty());
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ENABLE) == 0);
  CHECK(kq.ready_now().size() == 1);
}

TEST_CASE("a disabled filter does not report a reset either") {
  auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD | EV_DISABLE) == 0);
  reset(peer);
  CHECK(kq.wait(50).empty());
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ENABLE) == 0);
  check_one(kq.wait(), socket, EVFILT_READ);
}

// The manuals suggest otherwise.
TEST_CASE("EV_ADD leaves a disabled filter disabled") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DISABLE) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  CHECK(kq.ready_now().empty());
}

// The trap: an EV_ENABLE without udata sets udata to null, and the next event arrives with null. So
// echod does not use udata at all. It finds a client by its descriptor, which is the ident of the
// event.
TEST_CASE("every change overwrites udata") {
  const auto [reader, writer] = pipe_pair();
  int one = 0;
  int other = 0;
  send(writer, "x");
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD, &one) == 0);
  CHECK(kq.ready_now().at(0).udata == &one);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD, &other) == 0);
  CHECK(kq.ready_now().at(0).udata == &other);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ENABLE, nullptr) == 0);
  CHECK(kq.ready_now().at(0).udata == nullptr);
}

// Filters that no longer exist

TEST_CASE("a deleted filter reports nothing; to delete, enable or disable it is ENOENT") {
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

TEST_CASE("a deleted filter can be added again") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_DELETE) == 0);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  send(writer, "x");
  check_one(kq.wait(), reader, EVFILT_READ);
}

TEST_CASE("to disable or delete one filter of a descriptor does not affect the other") {
  for (const auto action : {short{EV_DISABLE}, short{EV_DELETE}}) {
    const auto [socket, peer] = tcp_pair();
    Kqueue kq;
    REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
    REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
    REQUIRE(kq.change(socket, EVFILT_WRITE, static_cast<unsigned short>(action)) == 0);
    send(peer, "x");
    check_one(kq.wait(), socket, EVFILT_READ);
  }
}

TEST_CASE("a closed descriptor cannot be watched") {
  Kqueue kq;
  auto [reader, writer] = pipe_pair();
  const int number = reader;
  reader.close();
  CHECK(kq.change(number, EVFILT_READ, EV_ADD) == EBADF);
}

TEST_CASE("a number that is no descriptor is EBADF") {
  Kqueue kq;
  for (const int number : {-1, INT_MAX}) CHECK(kq.change(number, EVFILT_READ, EV_ADD) == EBADF);
}

TEST_CASE("closing a descriptor deletes its filters") {
  auto [socket, peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  send(peer, "x");
  socket.close();
  CHECK(kq.wait(50).empty());
}

TEST_CASE("the next owner of a descriptor number inherits nothing") {
  for (const bool disabled : {false, true}) {
    auto [socket, peer] = tcp_pair();
    auto [heir, heirs_peer] = tcp_pair();
    int old = 0;
    int fresh = 0;
    Kqueue kq;
    REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, &old) == 0);
    REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD, &old) == 0);
    if (disabled) {
      REQUIRE(kq.change(socket, EVFILT_READ, EV_DISABLE, &old) == 0);
      REQUIRE(kq.change(socket, EVFILT_WRITE, EV_DISABLE, &old) == 0);
    }
    reuse_number(socket, std::move(heir));
    CHECK(kq.ready_now().empty());
    CHECK(kq.change(socket, EVFILT_WRITE, EV_ENABLE) == ENOENT);
    REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD, &fresh) == 0);
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
  EV_SET(&change, static_cast<std::uintptr_t>(static_cast<int>(reader)), EVFILT_READ, EV_DELETE, 0,
         0, nullptr);
  CHECK(::kevent(kq.descriptor, &change, 1, nullptr, 0, nullptr) == -1);
  CHECK(errno == ENOENT);
}

TEST_CASE(
    "a failed change with room for events is an EV_ERROR event with errno in data, and later "
    "changes are made") {
  const auto [reader, writer] = pipe_pair();
  const auto ident = static_cast<std::uintptr_t>(static_cast<int>(reader));
  send(writer, "x");
  Kqueue kq;
  Event changes[2];
  EV_SET(&changes[0], ident, EVFILT_READ, EV_DELETE, 0, 0, nullptr);
  EV_SET(&changes[1], ident, EVFILT_READ, EV_ADD, 0, 0, nullptr);
  Event results[2];
  REQUIRE(::kevent(kq.descriptor, changes, 2, results, 2, nullptr) == 1);
  const Event& result = results[0];
  CHECK((result.flags & EV_ERROR) != 0);
  CHECK(result.data == ENOENT);
  CHECK(result.ident == ident);
  check_one(kq.ready_now(), reader, EVFILT_READ);
}

// Signals. The tests send them with kill(): macOS counts only signals that are sent to the process.

TEST_CASE("a signal that is ignored is an event") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR1);
  const Events events = kq.wait();
  check_one(events, SIGUSR1, EVFILT_SIGNAL);
  CHECK(events[0].data == 1);
  // Set by the kernel: the count starts again after each event.
  CHECK((events[0].flags & EV_CLEAR) != 0);
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

TEST_CASE("each signal is an event of its own, with its count and udata") {
  int once = 0;
  int twice = 0;
  std::signal(SIGUSR1, SIG_IGN);
  std::signal(SIGUSR2, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD, &once) == 0);
  REQUIRE(kq.change(SIGUSR2, EVFILT_SIGNAL, EV_ADD, &twice) == 0);
  for (const int number : {SIGUSR2, SIGUSR1, SIGUSR2}) ::kill(::getpid(), number);
  const Events events = kq.wait();
  REQUIRE(events.size() == 2);
  for (const Event& event : events) {
    CHECK(event.data == (event.ident == SIGUSR1 ? 1 : 2));
    CHECK(event.udata == (event.ident == SIGUSR1 ? &once : &twice));
  }
  CHECK(events[0].ident != events[1].ident);
}

TEST_CASE("a signal is not seen before EV_ADD") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  ::kill(::getpid(), SIGUSR1);
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  CHECK(kq.ready_now().empty());
}

TEST_CASE("a signal that arrives during the wait is an event, not EINTR") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const timespec pause{0, 100'000'000};
    ::nanosleep(&pause, nullptr);
    ::kill(::getppid(), SIGUSR1);
    ::_exit(0);
  }
  check_one(kq.wait(), SIGUSR1, EVFILT_SIGNAL);
  CHECK(::waitpid(child, nullptr, 0) == child);
}

// The call itself

TEST_CASE("a time-out of zero does not wait, and a longer one does") {
  Kqueue kq;
  const auto start = std::chrono::steady_clock::now();
  CHECK(kq.ready_now().empty());
  CHECK(kq.wait(30).empty());
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(29));
}

TEST_CASE("a time-out that is not a whole number of milliseconds does not end early") {
  Kqueue kq;
  Event event;
  const timespec time{0, 1'900'000};
  const auto start = std::chrono::steady_clock::now();
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, &time) == 0);
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::nanoseconds(time.tv_nsec));
}

TEST_CASE("a time-out of an hour or a day does not end early") {
  Kqueue kq;
  Event event;
  const Interruptions interruptions;
  for (const timespec time : {timespec{3600, 0}, timespec{86'400, 0}}) {
    CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, &time) == -1);
    CHECK(errno == EINTR);
  }
}

// Exactly 1,000,000,000 is EINVAL on FreeBSD, and accepted by macOS.
TEST_CASE("a negative time-out, or tv_nsec of more than 1,000,000,000, is EINVAL") {
  Kqueue kq;
  Event event;
  for (const timespec time : {timespec{-1, 0}, timespec{0, -1}, timespec{0, 1'000'000'001}}) {
    errno = 0;
    CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, &time) == -1);
    CHECK(errno == EINVAL);
  }
}

TEST_CASE("without a time-out kevent waits for an event") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const timespec pause{0, 50'000'000};
    ::nanosleep(&pause, nullptr);
    ::_exit(::write(writer, "x", 1) == 1 ? 0 : 1);
  }
  Event event;
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, nullptr) == 1);
  CHECK(::waitpid(child, nullptr, 0) == child);
}

TEST_CASE("a signal handler that runs ends the wait with EINTR") {
  Kqueue kq;
  Event event;
  const Interruptions interruptions;
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, nullptr) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("events that find no room come in later calls, and none is lost") {
  const int signals[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH};
  for (const int room : {1, 2, 4}) {
    std::vector<Pair> pipes;
    Kqueue kq;
    for (const int number : signals) {
      std::signal(number, SIG_IGN);
      REQUIRE(kq.change(number, EVFILT_SIGNAL, EV_ADD) == 0);
      ::kill(::getpid(), number);
    }
    for (int i = 0; i < 5; ++i) {
      pipes.push_back(pipe_pair());
      REQUIRE(kq.change(pipes.back().first, EVFILT_READ, EV_ADD) == 0);
      send(pipes.back().second, "x");
    }
    std::set<std::pair<short, std::uintptr_t>> seen;
    while (seen.size() < 9) {
      const Events events = kq.wait(60'000, room);
      REQUIRE_FALSE(events.empty());
      for (const Event& event : events) {
        CHECK(seen.emplace(event.filter, event.ident).second);
        if (event.filter == EVFILT_READ) CHECK(receive(static_cast<int>(event.ident)) == "x");
      }
    }
    CHECK(kq.ready_now().empty());
  }
}

TEST_CASE("descriptors that stay ready are reported in turn if there is no room for all") {
  for (const int room : {1, 2}) {
    std::vector<Pair> sockets;
    Kqueue kq;
    for (int i = 0; i < 4; ++i) {
      sockets.push_back(tcp_pair());
      send(sockets.back().second, "x");
      REQUIRE(kq.change(sockets.back().first, EVFILT_READ, EV_ADD) == 0);
      REQUIRE(kq.change(sockets.back().first, EVFILT_WRITE, EV_ADD) == 0);
    }
    std::set<std::uintptr_t> seen;
    for (int i = 0; i < 1000 && seen.size() < sockets.size(); ++i)
      for (const Event& event : kq.wait(60'000, room)) seen.insert(event.ident);
    CHECK(seen.size() == sockets.size());
  }
}
