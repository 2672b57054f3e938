// Tests how the process prepares its descriptors and SIGPIPE, and what it prints.
#include "echod/process.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string>

#include "catch.hpp"
#include "standard_error.hpp"

using echod::say;

namespace {

/// Runs `before`, prepare_process() and `check` in a child process. Returns whether `check`
/// returned true.
template <typename Before, typename Check>
bool in_child(Before before, Check check) {
  const pid_t child = ::fork();
  if (child == 0) {
    before();
    echod::prepare_process();
    _exit(check() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status == 0;
}

}  // namespace

TEST_CASE("the soft limit of descriptors is raised to the hard one", "[M4]") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(in_child(
      [&] {
        const rlimit low{64, before.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &low);
      },
      [&] {
        rlimit raised{};
        ::getrlimit(RLIMIT_NOFILE, &raised);
        // macOS has its own maximum, too.
        return raised.rlim_cur >= std::min<rlim_t>(before.rlim_max, 10240);
      }));
}

TEST_CASE("standard descriptors that are closed are opened, and others stay as they are", "[C4]") {
  for (const int closed : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    CHECK(in_child(
        [&] { ::close(closed); },
        [&] { return ::fcntl(closed, F_GETFD) >= 0 && ::open("/", O_RDONLY) > STDERR_FILENO; }));
  }
  const int next = ::dup(STDERR_FILENO);  // the lowest number that is free
  ::close(next);
  CHECK(in_child(
      [] {
        for (int i = 0; i < 3; ++i) ::close(i);
      },
      [&] { return ::write(STDERR_FILENO, "x", 1) == 1 && ::open("/", O_RDONLY) == next; }));
  const StandardError standard_error;
  CHECK(in_child([] {}, [] { return ::write(STDERR_FILENO, "x", 1) == 1; }));
  CHECK(standard_error.read() == "x");
}

TEST_CASE("SIGPIPE is ignored", "[M5]") {
  CHECK(in_child([] { std::signal(SIGPIPE, SIG_DFL); },
                 [] { return std::signal(SIGPIPE, SIG_DFL) == SIG_IGN; }));
}

TEST_CASE("a line is said with the program's name", "[C4]") {
  const StandardError standard_error;
  say("connections: %d open", 1);
  CHECK(standard_error.read() == "echod: connections: 1 open\n");
}

TEST_CASE("a long line is cut to 512 bytes and keeps its newline", "[C4]") {
  const StandardError standard_error;
  for (const std::size_t size : {503U, 504U, 505U, 5000U}) {
    const std::string text(size, 'x');
    say("%s", text.c_str());
    CHECK(standard_error.read() == "echod: " + text.substr(0, 504) + "\n");
  }
}

TEST_CASE("a line is dropped while nobody reads standard error", "[C4]") {
  const StandardError standard_error;
  echod::say_waits = false;
  const std::string much(4096, 'x');
  std::size_t before = 0;
  ::fcntl(standard_error.ends[1], F_SETFL, O_NONBLOCK);
  ssize_t count = ::write(standard_error.ends[1], much.data(), much.size());
  while (count > 0) {
    before += static_cast<std::size_t>(count);
    count = ::write(standard_error.ends[1], much.data(), much.size());
  }
  ::fcntl(standard_error.ends[1], F_SETFL, 0);
  say("this would wait");
  CHECK(standard_error.read() == std::string(before, 'x'));
  say("now there is room");
  CHECK(standard_error.read() == "echod: now there is room\n");
}
