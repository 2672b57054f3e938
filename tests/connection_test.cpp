// Tests Connection with every sequence of kernel answers up to a certain length. This program links
// its own system calls: read and write take their answers from a script, and the test tries all
// scripts.
#include "echod/connection.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "model.hpp"
#include "system.hpp"
#include "transcript.hpp"

using echod::Connection;
using echod::Moved;
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
  bool full = false;             // the last read returned as much as it could
  std::string* story = nullptr;  // if not null: receives what happened, in words

  ssize_t fail(int error) { return errno = last = error, -1; }

  void tell(const std::string& what) const {
    if (story != nullptr) *story += "\n  " + what;
  }
  /// Adds the result of a call to the story. Preserves errno.
  void tell(const char* call, ssize_t count, const void* bytes) const {
    if (story == nullptr) return;
    const int error = errno;
    const std::string text(static_cast<const char*>(bytes),
                           static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    tell(std::string(call) + (count < 0    ? " fails: " + std::string(std::strerror(error))
                              : count == 0 ? " returns 0, the end of input"
                                           : " takes " + transcript::quoted(text)));
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
  if (left == 0 && !world->at_end && world->script->choose(2) == 0) {
    ++world->answers;
    world->at_end = true;
    world->tell("read", 0, buffer);
    return world->last = 0;
  }
  const ssize_t count = left == 0 ? world->fail(world->last == EAGAIN ? ECONNRESET : EAGAIN)
                                  : world->answer(std::min(left, size), ECONNRESET);
  if (left == 0) ++world->answers;
  world->full = count == static_cast<ssize_t>(size);
  if (count > 0)
    world->input.copy(static_cast<char*>(buffer), static_cast<std::size_t>(count), world->read);
  world->tell("read", count, buffer);
  if (count <= 0) return count;
  world->read += static_cast<std::size_t>(count);
  return count;
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

/// Replaces shutdown(2) in this program. Records whether a close would be orderly at that moment.
bool orderly_at_shutdown = true;
extern "C" int shutdown(int fd, int /*how*/) {
  linger now{};
  socklen_t size = sizeof now;
  ::getsockopt(fd, SOL_SOCKET, SO_LINGER, &now, &size);
  orderly_at_shutdown = now.l_onoff == 0;
  return 0;
}

namespace {

/// A socket with SO_LINGER {1, 0}, as Socket::accept sets it. All duplicates share the option.
class Lingering {
 public:
  Lingering() { REQUIRE(descriptor_ >= 0); }
  ~Lingering() { ::close(descriptor_); }
  echod::Socket duplicate() const {
    const linger reset{1, 0};
    if (::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0) std::abort();
    return echod::Socket(::dup(descriptor_));
  }
  /// Returns whether a close would be orderly.
  bool cleared() const {
    linger now{};
    socklen_t size = sizeof now;
    if (::getsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &now, &size) != 0) std::abort();
    return now.l_onoff == 0;
  }

 private:
  int descriptor_ = ::socket(AF_INET, SOCK_STREAM, 0);
};

/// Runs one connection by the script. Returns what is wrong, or an empty string. If `story` is not
/// null, it receives what happened.
std::string run(Script& script, std::string_view input, std::size_t limit, const Lingering& socket,
                std::string* story = nullptr) {
  constexpr int depth = 12;
  World now{&script, input};
  now.story = story;
  world = &now;
  std::array<char, 16> space{};
  const std::span<char> buffer(space.data(), limit + 1);  // so small that a read can fill it
  Connection connection(socket.duplicate(), echod::LineEcho(limit));
  bool stopped = false;
  bool expired = false;
  bool emptied = false;  // after the stop, a read returned less than it could
  std::size_t read = 0;  // how much was read before it lingered
  const auto echo = echo_of(input, limit);
  while (connection.state() != State::ended && now.answers < depth) {
    const std::size_t end = stopped ? 0 : script.choose(now.last == EAGAIN ? 3 : 2);
    const std::size_t written = now.output.size();
    const std::size_t before = now.read;
    stopped = stopped || end == 1;
    expired = end == 2;
    const bool lingers = connection.state() == State::lingering;
    const bool reads = !lingers && connection.unsent() == 0;
    if (end != 0) now.tell(expired ? "its time is up" : "the server stops");
    const Moved moved = end == 1  ? connection.stop(buffer)
                        : expired ? connection.expire(buffer)
                                  : connection.step(buffer);
    emptied = emptied || (stopped && reads && !now.full && now.last != ECONNRESET);
    if (reads) read = now.read;
    if (emptied && connection.state() == State::echoing)
      return "the input is empty at a stop, but it does not close";

    if (moved.sent != now.output.size() - written || moved.received != now.read - before)
      return "Moved is wrong";
    if (connection.state() != State::echoing && connection.state() != State::ended &&
        connection.held() > 0)
      return "keeps what it will not send";
    if (connection.unsent() + connection.held() > buffer.size())
      return "more is kept than the buffer holds";
    if (connection.waits_for() != (connection.unsent() > 0 ? EVFILT_WRITE : EVFILT_READ))
      return "waits for the wrong filter";
    if (connection.state() == State::echoing &&
        now.output.size() + connection.unsent() + connection.held() != now.read)
      return "a byte is lost or doubled";
    if ((moved.error != 0) != (now.last != 0 && now.last != EAGAIN))
      return "an error is lost, or made up";
    if (moved.error != 0 && connection.state() != State::ended) return "an error does not end it";
    if (expired && lingers && connection.state() != State::ended)
      return "its time is up, but it lingers";
    if (moved.error != 0 && !lingers && socket.cleared()) return "an error, but an orderly end";
    if (expired && !moved.anything() && connection.state() != State::ended)
      return "idle, but not ended";
    if (expired && moved.anything()) expired = false;
  }
  now.tell("The client has received " + transcript::quoted(now.output));
  const std::string expected = echo_of(input.substr(0, read), limit);
  if (expected.compare(0, now.output.size(), now.output) != 0) return "bytes are wrong";
  if (!socket.cleared()) {
    const bool reason =
        now.last == ECONNRESET || now.last == EPIPE || connection.unsent() + connection.held() > 0;
    return connection.state() == State::ended && !reason ? "a reset without a reason" : "";
  }
  if (now.output != expected) return "an orderly end, but the echo is not complete";
  const bool all = now.at_end || expected.size() < read;  // the end of input, or an empty line
  return all || emptied || expired ? "" : "an orderly end, but nothing asked for it";
}

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
  const Lingering socket;
  const auto start = std::chrono::steady_clock::now();
  unsigned long sequences = 0;
  for (const auto& [limit, inputs] : cases) {
    for (const std::string& input : inputs) {
      Script script;
      do {
        const std::string wrong = run(script, input, limit, socket);
        ++sequences;
        if (wrong.empty()) continue;
        std::string story;
        script.again();
        run(script, input, limit, socket, &story);
        FAIL(wrong << "\nThe client sends " << transcript::quoted(input) << ". Lines of more than "
                   << limit << " bytes are not held." << story);
      } while (script.next());
    }
  }
  const auto time = std::chrono::steady_clock::now() - start;
  std::printf("%lu sequences in %.1f s\n", sequences, std::chrono::duration<double>(time).count());
  CHECK(sequences >= 1'000'000);
}

// Otherwise a server that dies between the two would turn a complete echo into a reset.
TEST_CASE("a reset is switched off before the end of input is sent", "[E6]") {
  const Lingering socket;
  Script script;
  World now{&script, "\n"};
  world = &now;
  std::array<char, 16> buffer{};
  Connection connection(socket.duplicate(), echod::LineEcho(8));
  while (connection.state() != State::lingering) {
    connection.step(buffer);
    script.again();
  }
  CHECK(orderly_at_shutdown);
}
