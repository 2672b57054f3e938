// Tests the program end to end: the terminal, limits, signals and descriptors that it is started
// with.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "catch.hpp"
#include "client.hpp"
#include "patience.hpp"
#include "process.hpp"
#include "standard_error.hpp"

using namespace std::chrono_literals;

namespace {

/// A terminal that stops background jobs which write to it (stty tostop). The process that makes it
/// becomes the leader of a new session on it, like a shell. Throws std::runtime_error.
class Terminal {
 public:
  Terminal() : master_(::posix_openpt(O_RDWR | O_NOCTTY)) {
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0)
      throw std::runtime_error("no terminal");
    ::fcntl(master_, F_SETFL, O_NONBLOCK);
    ::fcntl(master_, F_SETFD, FD_CLOEXEC);
    ::setsid();
    const char* const name = ::ptsname(master_);
    slave_ = name != nullptr ? ::open(name, O_RDWR | O_CLOEXEC) : -1;
    termios settings{};
    if (slave_ < 0 || ::ioctl(slave_, TIOCSCTTY, 0) < 0 || ::tcgetattr(slave_, &settings) != 0)
      throw std::runtime_error("no controlling terminal");
    settings.c_lflag |= TOSTOP;
    if (::tcsetattr(slave_, TCSANOW, &settings) != 0) throw std::runtime_error("no tostop");
  }
  /// For a new process: becomes a background job whose standard error is the terminal.
  void enter_background() const {
    ::setpgid(0, 0);
    ::dup2(slave_, STDERR_FILENO);
  }
  /// Waits for the next line on the screen. Returns it without its ending.
  std::string line() {
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
      char byte = 0;
      if (::read(master_, &byte, 1) == 1) {
        if (byte == '\n') return std::exchange(unfinished_, {});
        if (byte != '\r') unfinished_ += byte;
        continue;
      }
      if (std::chrono::steady_clock::now() - start > patience)
        throw std::runtime_error("nothing appears on the terminal");
      std::this_thread::sleep_for(1ms);
    }
  }

 private:
  int master_;
  int slave_ = -1;
  std::string unfinished_;
};

/// Runs a test in a process of its own. Returns what is wrong, or an empty string.
template <typename Function>
std::string in_child(Function function) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::string wrong;
    try {
      wrong = function();
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    // It is less than a pipe can hold.
    const bool written = ::write(ends[1], wrong.data(), wrong.size()) >= 0;
    ::_exit(written ? EXIT_SUCCESS : EXIT_FAILURE);
  }
  ::close(ends[1]);
  std::string wrong(1000, '\0');
  const ssize_t count = ::read(ends[0], wrong.data(), wrong.size());
  wrong.resize(static_cast<std::size_t>(count));
  ::close(ends[0]);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  return wrong;
}

/// Returns what is wrong with the next lines of a client, or an empty string. There are two,
/// because the server may echo one before it handles a signal that came earlier.
std::string echo_two_lines(Client& client) {
  for (const char* const line : {"one\n", "two\n"})
    if (!client.echoes(line)) return "the echo is wrong";
  return {};
}

void block(int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

}  // namespace

TEST_CASE("a terminal that stops background jobs does not stop the server", "[C4]") {
  const std::string wrong = in_child([]() -> std::string {
    Terminal terminal;
    const Process echod(
        {.options = {"127.0.0.1", "0"}, .before_exec = [&] { terminal.enter_background(); }});
    std::string announcement = terminal.line();
    if (!contains(announcement, "echod: listening on 127.0.0.1:")) return announcement;
    Client client(port_of(announcement));
    std::string problem = echo_two_lines(client);
    if (!problem.empty()) return problem;
    echod.signal(SIGUSR1);
    problem = echo_two_lines(client);
    if (!problem.empty()) return problem;
    std::string status = terminal.line();
    return contains(status, "echod: connections: 1 open") ? "" : status;
  });
  INFO(wrong);
  CHECK(wrong.empty());
}

TEST_CASE("a log at its size limit loses messages, and no client", "[C4]") {
  const std::uint16_t port = free_port();
  std::FILE* const log = std::tmpfile();
  INFO("a temporary file: " << std::strerror(errno));
  REQUIRE(log != nullptr);
  const Process echod({.options = {"127.0.0.1", std::to_string(port)}, .before_exec = [&] {
                         const rlimit most{100, 100};  // less than two status lines
                         ::setrlimit(RLIMIT_FSIZE, &most);
                         ::dup2(::fileno(log), STDERR_FILENO);
                       }});
  Client client = connect_when_listening(port);
  for (int i = 0; i < 3; ++i) {
    echod.signal(SIGUSR1);
    CHECK(echo_two_lines(client).empty());
  }
  char text[100] = "";
  CHECK(::pread(::fileno(log), text, sizeof text - 1, 0) > 0);
  CHECK(contains(text, "echod: listening on 127.0.0.1:"));
  std::fclose(log);
}

TEST_CASE("a failure to start is said, also if nobody reads standard error yet", "[C4][C6]") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  const std::size_t before = fill(ends[1]);
  const Echod first;
  Process second({.options = {"127.0.0.1", std::to_string(first.port())},
                  .before_exec = [&] { ::dup2(ends[1], STDERR_FILENO); }});
  ::close(ends[1]);
  CHECK_FALSE(ends_within(second.pid(), 200ms));  // one that does not wait is likely to have ended
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::string said;
  const auto read_all = [&] {
    char buffer[4096];
    for (ssize_t count = 1; count > 0;) {
      count = ::read(ends[0], buffer, sizeof buffer);
      if (count > 0) said.append(buffer, static_cast<std::size_t>(count));
    }
  };
  read_all();
  REQUIRE(ends_within(second.pid(), patience));
  read_all();
  ::close(ends[0]);
  CHECK(contains(said.substr(before), std::strerror(EADDRINUSE)));
  CHECK(second.wait() == 1);
}

TEST_CASE("if nobody ever reads standard error, the server starts all the same", "[C3][C4]") {
  const std::uint16_t port = free_port();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  fill(ends[1]);
  Process echod({.options = {"127.0.0.1", std::to_string(port)},
                 .before_exec = [&] { ::dup2(ends[1], STDERR_FILENO); }});
  Client client = connect_when_listening(port);
  CHECK(client.echoes("a line\n"));
  CHECK(echod.stop() == 0);
  for (const int end : ends) ::close(end);
}

TEST_CASE("a SIGINT or SIGHUP that was ignored at startup stays ignored", "[C3]") {
  for (const int number : {SIGINT, SIGHUP}) {
    Echod echod({.ignored = number});
    echod.signal(number);
    echod.signal(SIGUSR1);
    CHECK(contains(echod.line(), "echod: connections: 0 open"));
    for (int i = 0; i < 2; ++i)
      CHECK(Client(echod.port()).exchange("still here\n") == "still here\n");
    CHECK(echod.stop() == 0);
  }
}

TEST_CASE("SIGTERM and SIGUSR1 work, also if they were ignored or blocked at startup", "[C3][C4]") {
  for (const int number : {SIGTERM, SIGUSR1}) {
    for (const bool blocked : {false, true}) {
      Start start;
      if (blocked)
        start.before_exec = [=] { block(number); };
      else
        start.ignored = number;
      Echod echod(start);
      echod.signal(SIGUSR1);
      CHECK(contains(echod.line(), "echod: connections: 0 open"));
      CHECK(echod.stop() == 0);
    }
  }
}

TEST_CASE("a signal to stop that is pending when the program starts is not lost", "[C3]") {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    Process echod({.options = {"127.0.0.1", "0"}, .before_exec = [=] {
                     block(number);
                     ::kill(::getpid(), number);
                   }});
    const int status = echod.wait();
    CHECK((status == 0 || status == -number));
  }
}

TEST_CASE("with too little memory the program does not start, and its status says so", "[C6]") {
  if (sanitized) return;  // the sanitizer needs much more address space than it uses
  const auto with = [](rlim_t memory) -> Start {
    return {.options = {"127.0.0.1", "0"}, .memory = memory, .before_exec = [] {
              const rlimit none{0, 0};
              ::setrlimit(RLIMIT_CORE, &none);  // with even less, the C++ library aborts
            }};
  };
  const auto starts_with = [&](rlim_t memory) {
    return contains(Process(with(memory)).line(), "echod: listening on ");
  };
  rlim_t too_little = 1 << 16;
  rlim_t enough = 1 << 30;
  if (starts_with(too_little)) {
    WARN("this system does not limit the address space");
    return;
  }
  REQUIRE(starts_with(enough));
  constexpr rlim_t page = 4096;
  while (enough - too_little > page) {
    const rlim_t middle = too_little + (enough - too_little) / 2;
    (starts_with(middle) ? enough : too_little) = middle;
  }
  // The loader, the C++ library or the program says that the memory is not enough, each in its way.
  for (rlim_t i = 1; i <= 64; ++i) {
    Process echod(with(enough - i * page));
    const std::string output = echod.output();
    const int status = echod.wait();
    INFO(output);
    CHECK_FALSE(contains(output, "listening"));
    CHECK_FALSE(contains(output, "bad_alloc"));
    CHECK(status != 0);
    if (contains(output, "echod: out of memory")) CHECK(status == 1);
  }
}

TEST_CASE("a small stack is enough", "[C1]") {
  Echod echod({.before_exec = [] {
    rlimit limit{};
    ::getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = rlim_t{128} * 1024;
    ::setrlimit(RLIMIT_STACK, &limit);
  }});
  const std::string much = std::string(200'000, 'x') + "\n";
  CHECK(Client(echod.port()).exchange(much) == much);
  CHECK(echod.stop() == 0);
}
