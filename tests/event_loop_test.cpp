// Tests the changes and batches of EventLoop, and how long it waits.
#include "echod/event_loop.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "patience.hpp"
#include "trace.hpp"

using namespace std::chrono_literals;
using echod::EventLoop;

namespace {

/// Runs a loop for some batches, and records their events.
struct Recorder final : EventLoop::Handler {
  EventLoop loop;
  std::vector<std::pair<int, short>> events = {};
  int batches = -1;  // before_wait() is called before the first one, too
  int most = 1;
  std::function<void(int)> then = [](int) {};
  EventLoop::Clock::time_point deadline = EventLoop::Clock::now() + patience;

  void on_event(const struct kevent& event) override {
    events.emplace_back(static_cast<int>(event.ident), event.filter);
    then(static_cast<int>(event.ident));
  }
  std::optional<EventLoop::Clock::time_point> before_wait() override {
    if (++batches == most) return std::nullopt;
    return deadline;
  }
  void run(int count) {
    batches = -1;
    most = count;
    loop.run(*this);
  }
};

struct Pipe {
  int ends[2];

  explicit Pipe(bool filled = false) {
    REQUIRE(::pipe(ends) == 0);
    if (filled) REQUIRE(::write(ends[1], "x", 1) == 1);
  }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  int reader() const { return ends[0]; }
  int writer() const { return ends[1]; }
};

}  // namespace

TEST_CASE("everything that is ready comes in one batch", "[M1]") {
  const Pipe first(true);
  const Pipe second;
  const Pipe silent;
  Recorder recorder;
  recorder.loop.change(first.reader(), EVFILT_READ, EV_ADD);
  recorder.loop.change(second.writer(), EVFILT_WRITE, EV_ADD);
  recorder.loop.change(silent.reader(), EVFILT_READ, EV_ADD);
  recorder.run(1);
  CHECK(recorder.events.size() == 2);
  CHECK(recorder.batches == 1);
}

TEST_CASE("before_wait is called once before the first batch and once after each", "[M6]") {
  const Pipe pipe(true);
  Recorder recorder;
  recorder.loop.change(pipe.reader(), EVFILT_READ, EV_ADD);
  std::vector<int> before;
  recorder.then = [&](int) { before.push_back(recorder.batches); };
  recorder.run(3);
  CHECK(before == std::vector<int>{0, 1, 2});
  CHECK(recorder.batches == 3);
}

TEST_CASE("without a deadline from the handler the loop ends before it waits", "[C3]") {
  const Pipe pipe(true);
  Recorder recorder;
  recorder.loop.change(pipe.reader(), EVFILT_READ, EV_ADD);
  recorder.run(0);
  CHECK(recorder.events.empty());
}

TEST_CASE("a handler can disable its own filter and enable it again", "[M2]") {
  const Pipe one(true);
  const Pipe other(true);
  Recorder recorder;
  recorder.loop.change(one.reader(), EVFILT_READ, EV_ADD);
  recorder.loop.change(other.reader(), EVFILT_READ, EV_ADD);
  recorder.then = [&](int ident) { recorder.loop.change(ident, EVFILT_READ, EV_DISABLE); };
  recorder.run(1);
  CHECK(recorder.events.size() == 2);
  recorder.loop.change(one.reader(), EVFILT_READ, EV_ENABLE);
  recorder.run(1);
  REQUIRE(recorder.events.size() == 3);
  CHECK(recorder.events.back().first == one.reader());
}

TEST_CASE("a deadline ends the wait without an event", "[M6]") {
  Recorder recorder;
  const auto start = EventLoop::Clock::now();
  recorder.deadline = start + 50ms;
  recorder.run(1);
  CHECK(recorder.events.empty());
  CHECK(EventLoop::Clock::now() >= start + 50ms);
}

TEST_CASE("a deadline of more than a second does not end the wait early", "[M6]") {
  Recorder recorder;
  const auto start = EventLoop::Clock::now();
  recorder.deadline = start + 1200ms;
  recorder.run(1);
  CHECK(EventLoop::Clock::now() >= start + 1200ms);
}

TEST_CASE("with a deadline in the past the loop does not wait", "[M6]") {
  Recorder recorder;
  recorder.deadline = EventLoop::Clock::now() - 1h;
  recorder.run(3);
  CHECK(recorder.events.empty());
}

TEST_CASE("a deadline may be far away, or never come", "[M6]") {
  const Pipe pipe(true);
  Recorder recorder;
  recorder.loop.change(pipe.reader(), EVFILT_READ, EV_ADD);
  for (const auto far : {EventLoop::Clock::now() + std::chrono::hours(24 * 365),
                         EventLoop::Clock::time_point::max()}) {
    recorder.deadline = far;
    recorder.run(1);
  }
  CHECK(recorder.events.size() == 2);
}

TEST_CASE("a signal handler does not end the loop", "[M5]") {
  Recorder recorder;
  std::signal(SIGALRM, [](int) {});
  const itimerval often{{0, 100'000}, {0, 100'000}};  // microseconds
  ::setitimer(ITIMER_REAL, &often, nullptr);
  CHECK_NOTHROW(recorder.run(1));  // although kevent(2) fails with EINTR
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  CHECK(recorder.events.empty());
}

TEST_CASE("a change that the kernel refuses throws its errno", "[M4]") {
  Recorder recorder;
  const Pipe pipe;
  const auto error_of = [&](int descriptor, unsigned short flags) {
    try {
      recorder.loop.change(descriptor, EVFILT_READ, flags);
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    return 0;
  };
  CHECK(error_of(pipe.reader(), EV_DELETE) == ENOENT);
  CHECK(error_of(1'000'000, EV_ADD) == EBADF);
  CHECK(error_of(pipe.reader(), EV_ADD) == 0);
}

TEST_CASE("one of the two filters waits at a time", "[M2][M3]") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  REQUIRE(::write(ends[1], "x", 1) == 1);
  Recorder recorder;
  recorder.loop.change(ends[0], EVFILT_READ, EV_ADD);
  for (const short filter : {short{EVFILT_WRITE}, short{EVFILT_READ}, short{EVFILT_WRITE}}) {
    recorder.loop.switch_filter(ends[0], filter);
    recorder.events.clear();
    recorder.run(1);
    CHECK(recorder.events == std::vector<std::pair<int, short>>{{ends[0], filter}});
  }
  for (const int end : ends) ::close(end);
}

TEST_CASE("the kqueue is close-on-exec, and is closed with its loop", "[M5]") {
  int kqueue = 0;
  {
    const EventLoop loop;
    while (kqueue < 1000 && ::kevent(kqueue, nullptr, 0, nullptr, 0, nullptr) != 0) ++kqueue;
    CHECK((::fcntl(kqueue, F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(::fcntl(kqueue, F_GETFD) == -1);
}

TEST_CASE("without a descriptor for the kqueue there is no loop", "[M4]") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const rlimit none{3, before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  std::optional<EventLoop> loop;
  int error = 0;
  try {
    loop.emplace();
  } catch (const std::system_error& refused) {
    error = refused.code().value();
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(error == EMFILE);
}

TEST_CASE("what a handler throws ends the loop", "[M4]") {
  const Pipe pipe(true);
  Recorder recorder;
  recorder.then = [](int) { throw std::runtime_error("enough"); };
  recorder.loop.change(pipe.reader(), EVFILT_READ, EV_ADD);
  CHECK_THROWS_AS(recorder.run(1), std::runtime_error);
}
