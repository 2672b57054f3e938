// Tests how the process prepares its descriptors and signals, and what it prints.
#include "echod/process.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <system_error>

#include "catch.hpp"
#include "patience.hpp"
#include "process.hpp"
#include "standard_error.hpp"

using echod::say;
using namespace std::chrono_literals;

namespace {

/// Runs a function in a child process. Returns the exit status, which is the function's result.
template <typename Function>
int status_in_child(Function function) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      _exit(function());
    } catch (const std::exception&) {
      _exit(EXIT_FAILURE);
    }
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

/// Runs `before`, prepare_process() and `check` in a child process. Returns whether `check`
/// returned true.
template <typename Before, typename Check>
bool in_child(Before before, Check check) {
  return status_in_child([&] {
           before();
           echod::prepare_process();
           return check() ? EXIT_SUCCESS : EXIT_FAILURE;
         }) == EXIT_SUCCESS;
}

/// Makes a directory the root of the file system. Returns whether the system allows it.
bool enter_root(const char* directory) {
#ifdef __linux__
  if (::geteuid() != 0) ::unshare(CLONE_NEWUSER);  // in it, this process is as good as root
#endif
  return ::chroot(directory) == 0 && ::chdir("/") == 0;
}

void close_standard_descriptors() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(standard);
}

bool is_ignored(int number) { return std::signal(number, SIG_DFL) == SIG_IGN; }

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
  CHECK(in_child(close_standard_descriptors, [&] {
    return ::write(STDERR_FILENO, "x", 1) == 1 && ::open("/", O_RDONLY) == next;
  }));
  const StandardError standard_error;
  CHECK(in_child([] {}, [] { return ::write(STDERR_FILENO, "x", 1) == 1; }));
  CHECK(standard_error.read() == "x");
}

TEST_CASE("without /dev/null and with a standard descriptor closed, the program does not start",
          "[C4]") {
  char empty[] = "/tmp/echod_test.XXXXXX";
  const bool made = ::mkdtemp(empty) != nullptr;
  INFO("a directory in /tmp: " << std::strerror(errno));
  REQUIRE(made);
  const bool allowed = in_child([] {}, [&] { return enter_root(empty); });
  if (!allowed) WARN("to hide /dev/null takes root");
  if (allowed) {
    CHECK(status_in_child([&] {
            enter_root(empty);
            ::close(STDERR_FILENO);
            try {
              echod::prepare_process();
            } catch (const std::system_error& error) {
              return error.code().value();
            }
            return 0;
          }) == ENOENT);
  }
  ::rmdir(empty);
}

TEST_CASE("what printing can raise, and a request for a status line, are ignored", "[C4]") {
  for (const int number : {SIGPIPE, SIGTTOU, SIGXFSZ, SIGUSR1}) {
    CHECK(in_child([=] { std::signal(number, SIG_DFL); }, [=] { return is_ignored(number); }));
  }
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
  const std::size_t before = fill(STDERR_FILENO);
  say("this would wait");
  CHECK(standard_error.read() == std::string(before, 'x'));
  say("now there is room");
  CHECK(standard_error.read() == "echod: now there is room\n");
}
