// Tests the server when system calls and allocations fail. This program links its own system calls
// and operator new, which fail at random or when a test says so. Random clients compare every byte
// with the model. They run in the same thread, on real sockets.
#include "system.hpp"

#include <sys/types.h>
// <sys/types.h> comes first, as in the synopsis of kqueue(2).
#include <sys/event.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "catch.hpp"
#include "client.hpp"
#include "descriptors.hpp"
#include "patience.hpp"
#include "echod/server.hpp"
#include "servers.hpp"
#include "sessions.hpp"
#include "standard_error.hpp"
#include "trace.hpp"

using Clock = echod::EventLoop::Clock;
using echod::Connection;
using namespace std::chrono_literals;

namespace {

struct Faults {
  std::mt19937_64 random = {};
  bool on = false;             // calls fail at random
  bool allocations = false;    // allocations can fail, too; true only while the server runs
  int accept_error = 0;        // the errno of every accept
  int accept_errors = -1;      // if not negative: how many more accepts fail
  int read_error = 0;          // the errno of the next read
  int wait_error = 0;          // the errno of every wait
  int poll_error = 0;          // the errno of the next poll
  bool no_memory = false;      // every allocation of the server fails
  bool no_input = false;       // every read fails with EAGAIN
  std::size_t write_most = 0;  // if not 0: the most that one write takes
  int writes = -1;             // if not negative: how many more writes take anything
  unsigned accepts = 0;        // how often accept was called
  // Is told of each change, and returns the errno with which it fails, or 0.
  std::function<int(const struct kevent&)> before_change = {};
  std::function<void(const struct kevent&)> after_change = {};
  std::uint64_t injected = 0;
  std::uint64_t fatal = 0;  // how many of them may end a connection

  bool one_in(unsigned n) { return on && random() % n == 0; }

  /// With a chance of one in `n`, sets errno to one of `errors` and returns true.
  bool fail(unsigned n, std::initializer_list<int> errors) {
    if (!one_in(n)) return false;
    ++injected;
    errno = errors.begin()[random() % errors.size()];
    return true;
  }
  bool end_connection(unsigned n, std::initializer_list<int> errors) {
    if (!fail(n, errors)) return false;
    ++fatal;
    return true;
  }
  bool refuse_allocation() {
    if (!allocations) return false;
    return no_memory || end_connection(100, {ENOMEM});
  }
  std::size_t shorten(std::size_t size) { return one_in(3) ? 1 + random() % size : size; }
};

Faults faults;
long allocated = 0;  // how many allocations are not freed yet

/// Fails as a system call does.
int fail_with(int error) {
  errno = error;
  return -1;
}

struct AllocationsCanFail {
  AllocationsCanFail() { faults.allocations = faults.on || faults.no_memory; }
  ~AllocationsCanFail() { faults.allocations = false; }
};

/// A server whose allocations can fail. Between its batches, it runs a function of the test.
class Driver final : public LocalServer {
 public:
  using LocalServer::LocalServer;

  /// Passes the server an artificial batch: an event of the descriptor that had the last event,
  /// then a signal.
  void event_and_signal(int number) {
    pass_event(last_, EVFILT_READ);
    pass_event(number, EVFILT_SIGNAL);
    end_batch();
  }

  void on_event(const struct kevent& event) override {
    if (event.filter != EVFILT_SIGNAL) last_ = static_cast<int>(event.ident);
    const AllocationsCanFail while_it_works;
    LocalServer::on_event(event);
  }
  std::optional<Clock::time_point> end_batch() override {
    const AllocationsCanFail while_it_works;
    return LocalServer::end_batch();
  }

 private:
  int last_ = 0;
};

/// Returns true for the given number of batches.
struct Batches {
  int left;
  bool operator()() { return --left > 0; }
};

/// Returns whether a pause that began after `start` may be over.
bool pause_may_be_over(Clock::time_point start) { return Clock::now() - start >= 1s; }

/// Returns what the server says when it pauses.
std::string paused_for(int error) {
  return std::string("echod: accepting paused: ") + std::strerror(error) + "\n";
}

/// Returns a client that the server has accepted.
Client served(Driver& server) {
  Client client(server.port());
  client.send("a line\n");
  server.run([&] { return !client.hears_within(0ms); });
  client.receive(7);
  return client;
}

/// Sends a line, and returns whether it comes back.
bool echoes(Driver& server, Client& client) {
  const Patience waits;
  client.send("one more line\n");
  server.run([&] { return waits() && !client.hears_within(0ms); });
  return client.receive(14) == "one more line\n";
}

/// Waits until the connection is ready, then does a step without memory. Returns whether the step
/// fails for lack of it.
bool fails_without_memory(Connection& connection, std::span<char> buffer,
                          Connection::Moved& moved) {
  const short events = connection.unsent() > 0 ? POLLOUT : POLLIN;
  pollfd entry{connection.descriptor(), events, 0};
  ::poll(&entry, 1, static_cast<int>(patience.count()));
  faults.allocations = true;
  faults.no_memory = true;
  bool failed = false;
  try {
    connection.step(buffer, moved);
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  faults.allocations = false;
  faults.no_memory = false;
  return failed;
}

}  // namespace

void* operator new(std::size_t size) {
  if (faults.refuse_allocation()) throw std::bad_alloc();
  void* const memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  ++allocated;
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocated;
  return std::malloc(size);
}
// Inlined, GCC 12 would warn that free() does not belong to operator new.
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) --allocated;
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace echod {

ssize_t system::read(int descriptor, void* buffer, std::size_t size) {
  if (faults.read_error != 0) return fail_with(std::exchange(faults.read_error, 0));
  if (faults.no_input) return fail_with(EAGAIN);
  if (faults.fail(5, {EINTR, EAGAIN}) || faults.end_connection(2000, {ECONNRESET, ENOBUFS}))
    return -1;
  return ::read(descriptor, buffer, faults.shorten(size));
}

ssize_t system::write(int descriptor, const void* bytes, std::size_t size) {
  if (size == 0) throw std::logic_error("a write of nothing");
  if (faults.writes == 0) return fail_with(EAGAIN);
  if (faults.writes > 0) --faults.writes;
  if (faults.fail(5, {EINTR, EAGAIN}) || faults.end_connection(2000, {EPIPE, ENOBUFS})) return -1;
  if (faults.write_most != 0) size = std::min(size, faults.write_most);
  return ::write(descriptor, bytes, faults.shorten(size));
}

int system::accept(int descriptor) {
  ++faults.accepts;
  if (faults.accept_error != 0 && faults.accept_errors != 0) {
    if (faults.accept_errors > 0) --faults.accept_errors;
    return fail_with(faults.accept_error);
  }
  if (faults.fail(5, {EINTR, EAGAIN, ECONNABORTED})) return -1;
  if (faults.fail(100, {EMFILE, ENFILE, ENOBUFS, ENOMEM, EIO})) return -1;
  return ::accept(descriptor, nullptr, nullptr);
}

int system::poll(pollfd& entry) {
  if (faults.poll_error != 0) return fail_with(std::exchange(faults.poll_error, 0));
  if (faults.fail(5, {EINTR}) || faults.fail(100, {ENOMEM})) return -1;
  return ::poll(&entry, 1, 0);
}

/// At random, only EV_ADD fails, because only a new knote needs memory.
int system::change(int kqueue, const struct kevent& change) {
  const int error = faults.before_change ? faults.before_change(change) : 0;
  if (error != 0) return fail_with(error);
  if ((change.flags & EV_ADD) != 0 && faults.end_connection(200, {ENOMEM})) return -1;
  const int result = ::kevent(kqueue, &change, 1, nullptr, 0, nullptr);
  if (faults.after_change) faults.after_change(change);
  return result;
}

int system::wait(int kqueue, std::span<struct kevent> events, const timespec* time) {
  if (faults.wait_error != 0) return fail_with(faults.wait_error);
  if (faults.fail(10, {EINTR, ETIMEDOUT})) return -1;
  return ::kevent(kqueue, nullptr, 0, events.data(),
                  static_cast<int>(faults.shorten(events.size())), time);
}

}  // namespace echod

TEST_CASE("a shortage at accept pauses the listener at once, and loses nobody", "[M4]") {
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC}) {
    faults = {};
    Driver server;
    Client other = served(server);
    faults.accept_error = error;
    faults.accepts = 0;
    const StandardError standard_error;
    Client client(server.port());
    client.send("a line\n");
    const Patience waits;
    server.run([&] { return waits() && faults.accepts == 0; });
    CHECK(standard_error.read() == paused_for(error));
    CHECK(echoes(server, other));
    server.run(Batches{50});
    CHECK((faults.accepts == 1 || pause_may_be_over(waits.start)));
    faults.accept_error = 0;
    other.close();  // so the pause ends
    server.run([&] { return waits() && !client.hears_within(0ms); });
    CHECK(client.receive(7) == "a line\n");
  }
}

TEST_CASE("if no client leaves, a pause ends after a second", "[M4]") {
  faults = {};
  faults.accept_error = EMFILE;
  Driver server;
  Client client(server.port());
  client.send("a line\n");
  const Patience waits;
  server.run([&] { return waits() && faults.accepts == 0; });
  faults.accept_error = 0;
  server.run([&] { return waits() && !client.hears_within(0ms); });
  CHECK(client.receive(7) == "a line\n");
  CHECK(Clock::now() - waits.start >= 1s);
}

TEST_CASE("clients that have gone before accept do not pause the listener", "[M4][M5]") {
  faults = {};
  faults.accept_error = ECONNABORTED;
  Driver server;
  Client client(server.port());
  client.send("a line\n");
  const Patience waits;
  const StandardError standard_error;
  server.run([&] {
    // Without a pause: with pauses, this would take 200 seconds.
    if (faults.accepts > 200) faults.accept_error = 0;
    return waits() && !client.hears_within(0ms);
  });
  CHECK(client.receive(7) == "a line\n");
  CHECK(standard_error.read().empty());
}

// A firewall, a policy or a socket filter refuses a client. Some of them leave it in the queue.
TEST_CASE("if accept refuses one client, the next is asked for, and after 64 the listener pauses",
          "[M4][M5]") {
  for (const int error : {EPERM, EACCES, EINVAL, EIO, EBADF, ENETDOWN, EOPNOTSUPP, EPROTO}) {
    faults = {};
    Driver server;
    Client bystander = served(server);
    const StandardError standard_error;
    faults.accept_error = error;
    faults.accepts = 0;
    faults.accept_errors = 63;
    Client client(server.port());
    CHECK(echoes(server, client));
    CHECK(standard_error.read().empty());

    faults.accepts = 0;
    faults.accept_errors = -1;
    Client waiting(server.port());
    waiting.send("a line\n");
    const Patience waits;
    server.run([&] { return waits() && faults.accepts == 0; });
    CHECK(faults.accepts == 64);
    CHECK(standard_error.read() == paused_for(error));
    CHECK(echoes(server, bystander));
    CHECK((faults.accepts == 64 || pause_may_be_over(waits.start)));
    faults.accept_error = 0;
    bystander.close();  // so the pause ends
    server.run([&] { return waits() && !waiting.hears_within(0ms); });
    CHECK(waiting.receive(7) == "a line\n");
  }
}

TEST_CASE("with -v each refused accept is a line of the trace", "[C5][M4]") {
  faults = {};
  Driver server;
  faults.accept_error = EPERM;
  faults.accept_errors = 1;
  const StandardError standard_error;
  echod::trace::on = true;
  Client client(server.port());
  CHECK(echoes(server, client));
  echod::trace::on = false;
  const std::string trace = standard_error.read();
  INFO(trace);
  CHECK(trace.find(std::string(": accept: ") + std::strerror(EPERM) + "\n") != std::string::npos);
}

TEST_CASE("an error of kevent ends the program with a message", "[M3]") {
  faults = {};
  Driver server;
  faults.wait_error = EBADF;
  CHECK_THROWS_AS(server.run([waits = Patience()] { return waits(); }), std::system_error);
}

TEST_CASE("EINTR and ETIMEDOUT of kevent mean that there are no events", "[M4]") {
  for (const int error : {EINTR, ETIMEDOUT}) {
    faults = {};
    Driver server;
    Client client = served(server);
    faults.wait_error = error;
    CHECK_NOTHROW(server.run(Batches{50}));
    faults.wait_error = 0;
    CHECK(echoes(server, client));
  }
}

TEST_CASE("without memory for a new client it is reset, and the listener pauses", "[M4]") {
  faults = {};
  Driver server;
  Client client(server.port());
  wait_for_input(server.listener());  // so that it comes first
  Client later(server.port());
  const Patience waits;
  const StandardError standard_error;
  echod::trace::on = true;
  faults.no_memory = true;
  server.run([&] { return waits() && !client.hears_within(0ms); });
  faults.no_memory = false;
  echod::trace::on = false;
  const std::string trace = standard_error.read();
  INFO(trace);
  CHECK(trace.find(": reset: std::bad_alloc\n") != std::string::npos);
  CHECK(client.how_it_ends() == "reset");
  server.run(Batches{50});
  CHECK((faults.accepts == 1 || pause_may_be_over(waits.start)));
  later.send("a line\n");
  server.run([&] { return waits() && !later.hears_within(0ms); });
  CHECK(later.receive(7) == "a line\n");
}

TEST_CASE("without memory the error of a client still ends only that client, also with -v",
          "[C5][M4]") {
  faults = {};
  Driver server;
  Client client = served(server);
  Client bystander = served(server);
  const Patience waits;
  const StandardError standard_error;
  std::string trace;
  client.reset();
  echod::trace::on = true;
  faults.no_memory = true;
  CHECK_NOTHROW(server.run([&] {
    trace += standard_error.read();
    return waits() && trace.find("held 0: ended: ") == std::string::npos;
  }));
  echod::trace::on = false;
  faults.no_memory = false;
  CHECK(echoes(server, bystander));
}

TEST_CASE("when a client ends for lack of memory, the listener pauses", "[M4]") {
  faults = {};
  Driver server;
  Client client = served(server);
  const Patience waits;
  faults.no_memory = true;
  client.send(std::string(1000, 'x'));
  server.run([&] { return waits() && !client.hears_within(0ms); });
  faults.no_memory = false;
  CHECK(client.how_it_ends() == "reset");
  faults.accepts = 0;
  const Client other(server.port());
  server.run(Batches{50});
  CHECK((faults.accepts == 0 || pause_may_be_over(waits.start)));
}

TEST_CASE("without memory for the rest, the complete lines have been sent", "[E6][M4]") {
  faults = {};
  Pair pair;
  std::array<char, 100'000> buffer{};
  Connection connection(std::move(pair.accepted));
  Connection::Moved moved;
  pair.client.send("a line\n" + std::string(1000, 'x'));
  CHECK(fails_without_memory(connection, buffer, moved));
  CHECK(moved.sent == 7);
  CHECK(pair.client.receive(7) == "a line\n");
}

TEST_CASE("sending what is kept needs no memory", "[E6][M4]") {
  faults = {};
  Pair pair;
  std::array<char, 100'000> buffer{};
  Connection connection(std::move(pair.accepted));
  Connection::Moved moved;
  const std::string line = std::string(2999, 'x') + "\n";
  faults.write_most = 1000;
  pair.client.send(line);
  while (connection.unsent() == 0) connection.step(buffer, moved);
  while (connection.unsent() > 0) REQUIRE_FALSE(fails_without_memory(connection, buffer, moved));
  CHECK(pair.client.receive(line.size()) == line);

  const std::string held(500, 'y');  // giving memory back would need some for these
  pair.client.send(line + held);
  while (connection.unsent() == 0) connection.step(buffer, moved);
  while (connection.unsent() > 0) REQUIRE_FALSE(fails_without_memory(connection, buffer, moved));
  CHECK(connection.held() == held.size());
  CHECK(pair.client.receive(line.size()) == line);
}

TEST_CASE("when all is sent, a connection keeps no memory", "[M2]") {
  faults = {};
  Pair pair;
  std::array<char, 100'000> buffer{};
  Connection connection(std::move(pair.accepted));
  Connection::Moved moved;
  const std::string line = std::string(2999, 'x') + "\n";
  pair.client.send(line);
  faults.write_most = 1000;
  const long before = allocated;
  while (connection.unsent() == 0) connection.step(buffer, moved);
  CHECK(allocated == before + 1);
  while (connection.unsent() > 0) connection.step(buffer, moved);
  CHECK(allocated == before);

  pair.client.send(line + "h");
  while (connection.unsent() == 0) connection.step(buffer, moved);
  while (connection.unsent() > 0) connection.step(buffer, moved);
  CHECK(connection.held() == 1);
  CHECK(allocated == before);  // a std::string keeps one byte in itself

  faults.write_most = 0;
  pair.client.send(line.substr(1, 1000));
  while (connection.held() == 1) connection.step(buffer, moved);
  pair.client.send("\nh");
  while (connection.held() > 1) connection.step(buffer, moved);
  CHECK(allocated == before);
}

TEST_CASE("a client whose filter is refused is reset, and the listener pauses only in a shortage",
          "[M4][M5]") {
  const int shortages[] = {ENOMEM, ENOBUFS, ENOSPC};
  for (const int error : {ENOMEM, ENOBUFS, ENOSPC, EPIPE, EBADF, EINVAL, ENOENT, EPERM}) {
    for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
      faults = {};
      Driver server;
      Client bystander = served(server);
      bool refused = false;
      faults.before_change = [&](const struct kevent& change) {
        if (refused || change.filter != filter || change.flags != EV_ADD) return 0;
        refused = true;
        return error;
      };
      const StandardError standard_error;
      faults.write_most = 1000;  // so that it needs the write filter
      Client client(server.port());
      client.send(std::string(4999, 'x') + "\n");
      const Patience waits;
      server.run([&] { return waits() && !refused; });
      CHECK(client.how_it_ends() == "reset");
      const bool is_shortage = std::count(std::begin(shortages), std::end(shortages), error) == 1;
      CHECK(standard_error.read() == (is_shortage ? paused_for(error) : ""));
      CHECK(echoes(server, bystander));
      bystander.close();  // so the pause ends
      Client next(server.port());
      CHECK(echoes(server, next));
    }
  }
}

/// Returns the status of a child process in which a server starts, and runs until it stops. A
/// signal to stop comes at the moment when the server asks the kqueue to watch it.
int status_of_start_with(int number, bool before_the_knote) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGALRM, SIG_DFL);
    ::alarm(static_cast<unsigned>(patience / 1s));
    faults = {};
    const auto raise_it = [=](const struct kevent& change) {
      if (change.filter == EVFILT_SIGNAL && static_cast<int>(change.ident) == number)
        ::kill(::getpid(), number);
      return 0;
    };
    if (before_the_knote)
      faults.before_change = raise_it;
    else
      faults.after_change = raise_it;
    LocalServer().run_until_stopped();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

TEST_CASE("a signal to stop that comes while the server starts is not lost", "[C3]") {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    // Before the knote is there, it ends the process. Afterwards it does that or stops the server.
    CHECK(status_of_start_with(number, true) == number);
    const int status = status_of_start_with(number, false);
    CHECK((status == 0 || status == number));
  }
}

TEST_CASE("an idle client that does not read its echo is reset", "[M6][E6]") {
  // Behind an empty line, it is the idle limit that holds while output is unsent, not the linger.
  for (const std::string input : {"a line\n", "a line\n\n"}) {
    faults = {};
    Driver server({.linger = 1h, .idle = 200ms});
    Client client(server.port());
    const int accepted = server.accept_client();
    faults.writes = 0;  // as if the kernel's buffers were full
    client.send(input);
    client.wait_until_arrived();
    server.run_until_closed(accepted);
    CHECK(client.how_it_ends() == "reset");
  }
}

TEST_CASE("a client that reads its echo slowly has its time again with each piece", "[M6]") {
  faults = {};
  Driver server({.idle = 1h});
  Client client(server.port());
  const int accepted = server.accept_client();
  faults.write_most = 10;
  client.send(std::string(99, 'x') + "\n");
  client.wait_until_arrived();
  server.serve(accepted);
  auto end = server.end_batch();
  for (int pieces = 0; pieces < 3; ++pieces) {
    server.pass_event(accepted, EVFILT_WRITE);
    const auto later = server.end_batch();
    CHECK(later > end);
    end = later;
  }
}

TEST_CASE("a step that moves nothing gives a client no more time", "[M6]") {
  faults = {};
  Driver server({.idle = 300ms});
  Client client = served(server);
  const Patience waits;
  faults.no_input = true;
  client.send("x");  // so that there are events
  server.run([&] { return waits() && !client.hears_within(0ms); });
}

TEST_CASE("a later signal cuts off a client that could be sent more", "[C3][E6]") {
  faults = {};
  Driver server({.stop = 1h, .duplicate = 0ms});
  Client client = served(server);
  faults.write_most = 1000;
  faults.writes = 1;
  client.send(std::string(49'999, 'x') + "\n");
  server.run([&] { return faults.writes > 0; });
  faults.writes = -1;
  for (int i = 0; i < 2; ++i) server.event_and_signal(SIGTERM);
  CHECK(client.how_it_ends() == "reset");
}

// A poll that fails counts as input, so that no client ends orderly with its input unread.
TEST_CASE("at a stop poll is asked again only if a signal interrupted it", "[C3][E6]") {
  for (const int error : {EINTR, ENOMEM}) {
    faults = {};
    Driver server;
    const Client client = served(server);
    server.pass_event(SIGTERM, EVFILT_SIGNAL);
    faults.poll_error = error;
    const bool stopped = server.end_batch() == std::nullopt;
    CHECK(stopped == (error == EINTR));
  }
}

TEST_CASE("a client may run out of memory after a stop", "[C3][M4]") {
  faults = {};
  Driver server;
  Client client = served(server);
  faults.write_most = 1000;
  faults.writes = 1;
  client.send(std::string(9999, 'x') + "\n");
  server.run([&] { return faults.writes > 0; });
  client.send(std::string(2999, 'y') + "\n");
  client.wait_until_arrived();
  server.event_and_signal(SIGTERM);
  faults.writes = -1;
  faults.no_memory = true;
  server.run(Patience());
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("a connection that failed is not served again when the server stops in the same batch",
          "[C3][E6]") {
  faults = {};
  Driver server;
  Client client(server.port());
  client.send("a line\n");
  server.run([&] { return !client.hears_within(0ms); });
  CHECK(client.receive(7) == "a line\n");
  faults.read_error = ENOBUFS;
  server.event_and_signal(SIGTERM);
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("a client whose output is pending at a stop has its end, whether or not more input comes",
          "[C3][E6]") {
  for (const std::string more : {"", "more\n"}) {
    faults = {};
    Driver server({.stop = 1h});
    Client client(server.port());
    faults.writes = 0;
    client.send("a line\ntail");
    client.wait_until_arrived();
    server.run(Batches{50});  // it reads everything, and waits for room to send
    ::kill(::getpid(), SIGTERM);
    server.run(Batches{50});
    client.send(more);
    client.wait_until_arrived();
    faults.writes = 1;  // sends the pending output, but not what follows
    server.run(Batches{50});
    faults.writes = -1;
    server.run(Batches{50});
    CHECK(client.receive_all() == "a line\ntail" + more);
  }
}

TEST_CASE("whatever fails, a client with an orderly end has its whole echo",
          "[E1][E2][E3][E4][E5][E6][M1][M2][M3][M4][M5]") {
  if (!can_open(150)) return;
  const auto number = [](const char* name, std::uint64_t otherwise) {
    const char* const given = std::getenv(name);
    return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
  };
  const std::uint64_t seed = number("ECHOD_SEED", std::random_device()());
  std::uint64_t total = number("ECHOD_SESSIONS", 10'000);
  std::printf("ECHOD_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  faults = {};
  Driver server({.linger = 10min});  // a slow machine may need long
  faults.random.seed(seed);
  faults.on = true;
  Sessions clients(server.port(), seed, 40);
  const auto start = Clock::now();
  const auto limit = patience * (1 + total / 10'000);
  auto report = start + 2s;
  server.run([&] {
    const auto time = Clock::now() - start;
    // A slow machine starts no more clients then.
    if (time > limit) total = std::min(total, clients.started());
    if (time > 8 * limit) throw std::runtime_error("a client waits without end");
    if (start + time > report) {
      std::printf("%llu of %llu clients\n", static_cast<unsigned long long>(clients.started()),
                  static_cast<unsigned long long>(total));
      std::fflush(stdout);
      report += 2s;
    }
    return clients.step(total);
  });
  faults.on = false;
  CHECK(clients.started() == total);
  CHECK(clients.resets() <= faults.fatal);
  std::printf("%llu clients, %llu reset, %llu bytes echoed, %llu faults, %llu of them fatal\n",
              static_cast<unsigned long long>(clients.started()),
              static_cast<unsigned long long>(clients.resets()),
              static_cast<unsigned long long>(clients.bytes_echoed()),
              static_cast<unsigned long long>(faults.injected),
              static_cast<unsigned long long>(faults.fatal));
}
