// EventLoop: batches, handlers, and what lies between.
#include "echod/event_loop.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "catch.hpp"

using echod::EventHandler;
using echod::EventLoop;

namespace {

struct Recorder : EventHandler {
  std::vector<short> filters;
  std::function<void()> then = [] {};

  void on_event(const struct kevent& event) override {
    filters.push_back(event.filter);
    then();
  }
};

struct Pipe {
  int ends[2];

  Pipe() { REQUIRE(::pipe(ends) == 0); }
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  std::uintptr_t reader() const { return static_cast<std::uintptr_t>(ends[0]); }
  std::uintptr_t writer() const { return static_cast<std::uintptr_t>(ends[1]); }
  void fill(const char* text) const { REQUIRE(::write(ends[1], text, 1) == 1); }
};

void run_batches(EventLoop& loop, int count) {
  loop.run([&count] { return --count > 0; });
}

}  // namespace

TEST_CASE("an event goes to the handler that was named with it") {
  Pipe first;
  Pipe second;
  Recorder one;
  Recorder other;
  EventLoop loop;
  loop.change(first.reader(), EVFILT_READ, EV_ADD, one);
  loop.change(second.reader(), EVFILT_READ, EV_ADD, other);
  second.fill("x");
  run_batches(loop, 1);
  CHECK(one.filters.empty());
  CHECK(other.filters == std::vector<short>{EVFILT_READ});
}

TEST_CASE("all that is ready comes in one batch, and after_batch once after it") {
  Pipe first;
  Pipe second;
  Recorder recorder;
  EventLoop loop;
  loop.change(first.reader(), EVFILT_READ, EV_ADD, recorder);
  loop.change(second.writer(), EVFILT_WRITE, EV_ADD, recorder);
  first.fill("x");
  int batches = 0;
  loop.run([&] {
    CHECK(recorder.filters.size() == 2);
    ++batches;
    return false;
  });
  CHECK(batches == 1);
}

TEST_CASE("what is not read is reported again, batch after batch") {
  Pipe pipe;
  Recorder recorder;
  EventLoop loop;
  loop.change(pipe.reader(), EVFILT_READ, EV_ADD, recorder);
  pipe.fill("x");
  run_batches(loop, 3);
  CHECK(recorder.filters.size() == 3);
}

TEST_CASE("a handler can change what comes next, its own filter too") {
  Pipe pipe;
  Recorder reading;
  Recorder timer;
  EventLoop loop;
  reading.then = [&] { loop.change(pipe.reader(), EVFILT_READ, EV_DISABLE, reading); };
  loop.change(pipe.reader(), EVFILT_READ, EV_ADD, reading);
  loop.change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, timer, 1);
  pipe.fill("x");
  loop.run([&] { return timer.filters.empty(); });
  CHECK(reading.filters.size() == 1);
}

TEST_CASE("a timer's span is in milliseconds, a signal is an event") {
  Recorder recorder;
  EventLoop loop;
  std::signal(SIGUSR2, SIG_IGN);
  loop.change(SIGUSR2, EVFILT_SIGNAL, EV_ADD, recorder);
  ::kill(::getpid(), SIGUSR2);
  run_batches(loop, 1);
  loop.change(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, recorder, 5);
  run_batches(loop, 1);
  CHECK(recorder.filters == std::vector<short>{EVFILT_SIGNAL, EVFILT_TIMER});
}

TEST_CASE("a change that the kernel refuses throws, with its reason") {
  Recorder recorder;
  EventLoop loop;
  Pipe pipe;
  try {
    loop.change(pipe.reader(), EVFILT_READ, EV_DELETE, recorder);
    FAIL("nothing was there to be deleted");
  } catch (const std::system_error& error) {
    CHECK(error.code().value() == ENOENT);
  }
}

TEST_CASE("what a handler throws ends the loop") {
  Pipe pipe;
  Recorder recorder;
  recorder.then = [] { throw std::runtime_error("enough"); };
  EventLoop loop;
  loop.change(pipe.reader(), EVFILT_READ, EV_ADD, recorder);
  pipe.fill("x");
  CHECK_THROWS_AS(run_batches(loop, 1), std::runtime_error);
}
