// Tests Connection with every sequence of kernel answers up to a certain length. This program links
// its own system calls: read, write and poll take their answers from a script, and the test tries
// all scripts.
#include "echod/connection.hpp"

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
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "catch.hpp"
#include "model.hpp"
#include "patience.hpp"
#include "system.hpp"
#include "transcript.hpp"

using echod::Connection;
using State = Connection::State;

namespace {

/// A sequence of decisions, each with a number of options. next() goes on to the next sequence,
/// depth first.
class Script {
 public:
  std::size_t choose(std::size_t options) {
    if (at_ == choices_.size()) choices_.push_back({0, options});
    return choices_[at_++].taken;
  }
  /// Starts the same sequence once more.
  void again() { at_ = 0; }
  /// Returns false when all sequences have been tried.
  bool next() {
    while (!choices_.empty() && choices_.back().taken + 1 == choices_.back().options)
      choices_.pop_back();
    at_ = 0;
    if (choices_.empty()) return false;
    ++choices_.back().taken;
    return true;
  }

 private:
  struct Choice {
    std::size_t taken;
    std::size_t options;
  };
  std::vector<Choice> choices_;
  std::size_t at_ = 0;
};

/// The kernel and the client behind it, for one run.
struct World {
  Script* script;
  std::string_view input;        // what the client sends; then it half-closes
  std::size_t read = 0;          // how much of it has been read
  std::string output = {};       // what the client has received
  int answers = 0;               // how many answers the kernel has given
  int last = 0;                  // the errno of the last answer, or 0
  bool at_end = false;           // read has returned 0
  bool empty = false;            // the last poll has said that no input waits
  std::string* story = nullptr;  // if not null: receives what happened, in words

  ssize_t fail(int error) {
    last = error;
    errno = error;
    return -1;
  }

  void tell(const std::string& what) const {
    if (story != nullptr) *story += "\n  " + what;
  }
  /// Adds the result of a call to the story. Preserves errno.
  void tell(const char* call, ssize_t count, const void* bytes) const {
    if (story == nullptr) return;
    const int error = errno;
    std::string what = call;
    if (count < 0) what += std::string(" fails: ") + std::strerror(error);
    if (count == 0) what += " returns 0, the end of input";
    if (count > 0)
      what += " takes " + transcript::quoted(
                              {static_cast<const char*>(bytes), static_cast<std::size_t>(count)});
    tell(what);
    errno = error;
  }

  /// Answers with 1, 2 or all of `most` bytes, with EAGAIN or with `error`. EAGAIN does not follow
  /// EAGAIN, because nothing changes in between.
  ssize_t answer(std::size_t most, int error) {
    std::array<ssize_t, 3> counts{1, 2, static_cast<ssize_t>(most)};
    const std::size_t sizes = std::min<std::size_t>(most, counts.size());
    counts[sizes - 1] = static_cast<ssize_t>(most);
    const std::size_t taken = script->choose(sizes + (last == EAGAIN ? 1 : 2));
    ++answers;
    if (taken == sizes) return fail(error);
    if (taken > sizes) return fail(EAGAIN);
    last = 0;
    return counts[taken];
  }
};

World* world = nullptr;

}  // namespace

namespace echod::system {

ssize_t read(int, void* buffer, std::size_t size) {
  if (size == 0) std::abort();
  const std::size_t left = world->input.size() - world->read;
  if (left == 0) {
    ++world->answers;
    if (!world->at_end && world->script->choose(2) == 0) {
      world->at_end = true;
      world->last = 0;
      world->tell("read", 0, buffer);
      return 0;
    }
    const ssize_t failed = world->fail(world->last == EAGAIN ? ECONNRESET : EAGAIN);
    world->tell("read", failed, buffer);
    return failed;
  }
  const ssize_t count = world->answer(std::min(left, size), ECONNRESET);
  if (count > 0) {
    world->input.copy(static_cast<char*>(buffer), static_cast<std::size_t>(count), world->read);
    world->read += static_cast<std::size_t>(count);
  }
  world->tell("read", count, buffer);
  return count;
}

/// Whether input waits is as much a decision of the script as what read then returns: more can
/// arrive at any time. Only a client that has not sent everything has input for certain.
int poll(pollfd&) {
  world->empty = world->script->choose(2) == 0;
  world->tell(world->empty ? "poll says that no input waits" : "poll says that input waits");
  return world->empty ? 0 : 1;
}

ssize_t write(int, const void* bytes, std::size_t size) {
  if (size == 0) std::abort();
  const ssize_t count = world->answer(size, EPIPE);
  world->tell("write", count, bytes);
  if (count > 0)
    world->output.append(static_cast<const char*>(bytes), static_cast<std::size_t>(count));
  return count;
}

int accept(int) { std::abort(); }
int change(int, const struct kevent&) { std::abort(); }
int wait(int, std::span<struct kevent>, const timespec*) { std::abort(); }

}  // namespace echod::system

/// SO_LINGER of the one socket. A close resets the connection, as Socket::accept wants it, until
/// Connection switches that off.
bool close_is_orderly = false;
bool close_was_orderly_at_shutdown = true;

// These two replace the system calls in this program, like those above, but Socket makes them
// itself.
extern "C" int setsockopt(int, int, int name, const void* optval, socklen_t) {
  if (name != SO_LINGER) std::abort();
  close_is_orderly = static_cast<const linger*>(optval)->l_onoff == 0;
  return 0;
}
extern "C" int shutdown(int, int) {
  close_was_orderly_at_shutdown = close_is_orderly;
  return 0;
}

namespace {

/// What happens to a connection from outside, beside the kernel's answers.
enum class Cause : char { event, stop, time_is_up };

/// One connection, its client and what the test knows about them.
struct Run {
  World& now;
  std::span<char> buffer;
  Connection connection;
  bool stopped = false;
  bool finished = false;  // at the stop it had nothing to do: no input was waiting
  bool expired = false;
  std::size_t read = 0;  // how much was read before it lingered

  /// The same calls in the same order as Server::serve. Returns what is wrong, or an empty string.
  std::string serve(Cause cause) {
    const std::size_t sent_before = now.output.size();
    const std::size_t read_before = now.read;
    const bool lingered = connection.state() == State::lingering;
    stopped = stopped || cause == Cause::stop;
    Connection::Moved moved;
    bool failed = false;
    try {
      if (cause != Cause::time_is_up || !lingered) connection.step(buffer, moved);
      if (!lingered) read = now.read;
      if (stopped && !connection.ended() && connection.has_nothing_to_do()) {
        connection.finish(moved);
        finished = true;
        if (connection.state() == State::echoing) return "it goes on after it was finished";
        if (connection.state() == State::lingering && !moved.anything())
          return "it waits for a client that was silent at the stop";
      }
    } catch (const std::system_error& error) {
      if (error.code().value() != now.last) return "it throws another error";
      failed = true;
      connection.fail();
    }
    if (cause == Cause::time_is_up && !connection.ended() && !moved.anything()) {
      expired = true;
      connection.expire();
    }
    if (moved.sent != now.output.size() - sent_before)
      return "what it says of moved bytes is wrong";
    if (moved.received != now.read - read_before) return "what it says of moved bytes is wrong";
    const bool kernel_failed = now.last != 0 && now.last != EAGAIN;
    if (failed != kernel_failed) return "an error is lost, or made up";
    if (failed && !lingered && close_is_orderly) return "an error, but an orderly end";
    return problem_after(cause, moved);
  }

  std::string problem_after(Cause cause, Connection::Moved moved) const {
    const State state = connection.state();
    const std::size_t kept = connection.unsent() + connection.held();
    if (state != State::echoing && state != State::ended && connection.held() > 0)
      return "it holds what it will not answer";
    if (kept > buffer.size()) return "more is kept than the buffer holds";
    const short filter = connection.unsent() > 0 ? EVFILT_WRITE : EVFILT_READ;
    if (connection.waits_for() != filter) return "it waits for the wrong filter";
    if (state == State::echoing && now.output.size() + kept != now.read)
      return "a byte is lost or doubled";
    if (cause == Cause::time_is_up && !moved.anything() && state != State::ended)
      return "its time is up, but it has not ended";
    return {};
  }

  /// Judges the end. Returns what is wrong, or an empty string.
  std::string problem_at_the_end(std::size_t limit) const {
    const std::string expected = echo_of(now.input.substr(0, read), limit);
    if (expected.compare(0, now.output.size(), now.output) != 0) return "bytes are wrong";
    const bool kept = connection.unsent() + connection.held() > 0;
    const bool failed = now.last == ECONNRESET || now.last == EPIPE;
    if (connection.ended() && connection.ends_orderly() != (close_is_orderly && !failed))
      return "it is wrong about its end";
    if (!close_is_orderly) {
      return connection.ended() && !failed && !kept ? "a reset without a reason" : "";
    }
    if (now.output != expected) return "an orderly end, but the echo is not complete";
    const bool empty_line = expected.size() < read;
    if (!now.at_end && !empty_line && !finished && !expired)
      return "an orderly end, but nothing asked for it";
    return {};
  }
};

/// Runs one connection by the script, until the kernel has given `depth` answers. Returns what is
/// wrong, or an empty string. If `story` is not null, it receives what happened.
std::string run(Script& script, std::string_view input, std::size_t limit, int depth,
                std::string* story = nullptr) {
  close_is_orderly = false;
  World now{&script, input};
  now.story = story;
  world = &now;
  std::array<char, 16> space{};
  const std::span<char> buffer(space.data(), limit + 1);  // so small that a read can fill it
  Run run{now, buffer, Connection(echod::Socket(), echod::LineEcho(limit))};
  while (!run.connection.ended() && now.answers < depth) {
    Cause cause = Cause::event;
    // Time passes only while nothing happens. After the stop, another one changes nothing.
    if (now.last == EAGAIN && script.choose(2) == 1) cause = Cause::time_is_up;
    if (cause == Cause::event && !run.stopped && script.choose(2) == 1) cause = Cause::stop;
    if (cause == Cause::stop) now.tell("the server stops");
    if (cause == Cause::time_is_up) now.tell("its time is up");
    std::string wrong = run.serve(cause);
    if (!wrong.empty()) return wrong;
  }
  now.tell("The client has received " + transcript::quoted(now.output));
  return run.problem_at_the_end(limit);
}

/// Counts the sequences, and prints their number every two seconds.
class Progress {
 public:
  void count() {
    ++sequences_;
    now_ = Clock::now();
    if (now_ < report_) return;
    print();
    report_ += std::chrono::seconds(2);
  }
  void print() const {
    std::printf("%lu sequences in %.1f s\n", sequences_,
                std::chrono::duration<double>(now_ - start_).count());
    std::fflush(stdout);
  }
  unsigned long sequences() const { return sequences_; }
  bool out_of_time() const { return now_ - start_ > patience; }

 private:
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point now_ = start_;
  Clock::time_point report_ = start_ + std::chrono::seconds(2);
  unsigned long sequences_ = 0;
};

}  // namespace

TEST_CASE("whatever the kernel answers, the echo is right or the end is a reset",
          "[E1][E2][E3][E4][E5][E6][M2][C3]") {
  struct Case {
    std::size_t limit;
    std::vector<std::string> inputs;
  };
  const Case cases[] = {{8,
                         {"", "a", "\n", "a\n", "ab\n", "a\nb", "a\n\n", "\n\na", "a\n\nb", " \n",
                          "ab\ncd", "a\n\nb\n", "    \n"}},
                        {3, {"", "\n", " \n", "ab\n", "a\n\nb", "ab\ncd", "abcd\n", "    \n"}}};
  Progress progress;
  // Short sequences of all inputs come first. A slow machine may not get through the long ones.
  for (const int depth : {6, 9}) {
    for (const auto& [limit, inputs] : cases) {
      for (const std::string& input : inputs) {
        Script script;
        do {
          const std::string wrong = run(script, input, limit, depth);
          progress.count();
          if (wrong.empty()) continue;
          std::string story;
          script.again();
          run(script, input, limit, depth, &story);
          FAIL(wrong << "\nThe client sends " << transcript::quoted(input)
                     << ". Lines of more than " << limit << " bytes are not held." << story);
        } while (!(depth > 6 && progress.out_of_time()) && script.next());
      }
    }
  }
  progress.print();
  if (progress.out_of_time())
    WARN("not all sequences were tried; ECHOD_PATIENCE can give the test more seconds");
  else
    CHECK(progress.sequences() >= 1'000'000);
}

// Otherwise a server that dies between the two would turn a complete echo into a reset.
TEST_CASE("a reset is switched off before the end of input is sent", "[E6]") {
  Script script;
  World now{&script, "\n"};
  world = &now;
  std::array<char, 16> buffer{};
  Connection connection{echod::Socket(), echod::LineEcho(8)};
  Connection::Moved moved;
  while (connection.state() != State::lingering) {
    connection.step(buffer, moved);
    script.again();
  }
  CHECK(close_was_orderly_at_shutdown);
}

/// Runs a function in a child process. Returns whether it ended by abort(3), as an assertion does.
template <typename Function>
bool aborts(Function function) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::close(STDERR_FILENO);  // abort(3) has nothing to say to the reader of this test
    std::signal(SIGABRT, SIG_DFL);
    function();
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

TEST_CASE("a read into no room ends the program, because its 0 would look like the end of input",
          "[E6]") {
  CHECK(aborts([] {
    Script script;
    World now{&script, "a line that is longer than the buffer"};
    world = &now;
    std::array<char, 8> buffer{};
    Connection connection{echod::Socket(), echod::LineEcho(100)};
    Connection::Moved moved;
    for (int i = 0; i < 10; ++i) {
      connection.step(buffer, moved);
      script.again();
    }
  }));
}

// It would read on, and could reach an orderly end with bytes missing.
TEST_CASE("a step after an error ends the program", "[E6]") {
  Script script;
  World now{&script, "a line\n"};
  world = &now;
  std::array<char, 16> buffer{};
  Connection::Moved moved;
  Connection connection{echod::Socket(), echod::LineEcho(8)};
  connection.fail();
  CHECK(aborts([&] { connection.step(buffer, moved); }));
  CHECK(aborts([&] { connection.finish(moved); }));
}
