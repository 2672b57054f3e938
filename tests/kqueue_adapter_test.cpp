// What the adapter in src/linux does besides the rules of kqueue_test.cpp: what it refuses, how it
// keeps its table true although epoll forgets descriptors by itself, how it watches signals with
// handlers and gives them back, and what a copy of a closed socket does to it.
#include <sys/event.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <limits>
#include <utility>

#include "catch.hpp"
#include "kqueue_helpers.hpp"

namespace {

int raise_at_unblock = 0;  // if not 0: a signal that comes when sigprocmask(2) unblocks it
volatile std::sig_atomic_t handled = 0;

/// Sets a signal handler for the test, which counts in `handled`.
void handle(int number) {
  handled = 0;
  std::signal(number, [](int) { handled = handled + 1; });
}

/// Sends a signal to this process after a tenth of a second, then a byte into the pipe.
pid_t signal_then_write(int number, int pipe) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child != 0) return child;
  const timespec pause{0, 100'000'000};
  ::nanosleep(&pause, nullptr);
  ::kill(::getppid(), number);
  ::nanosleep(&pause, nullptr);
  ::_exit(::write(pipe, "x", 1) == 1 ? 0 : 1);
}

/// Returns the CPU time of half a second in which kevent reports nothing. One that spins uses most
/// of it.
double cpu_seconds_of_waiting(Kqueue& kq) {
  const std::clock_t start = std::clock();
  CHECK(kq.wait(500).empty());
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Returns how many descriptors are open. The one that looks at them is counted, too.
auto open_descriptors() {
  using std::filesystem::directory_iterator;
  return std::distance(directory_iterator("/proc/self/fd"), directory_iterator());
}

/// Calls kqueue() with a limit of descriptors. Returns 0, or the errno if it fails.
int error_of_kqueue(int descriptors) {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit low{static_cast<rlim_t>(descriptors), limit.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &low);
  const int kq = ::kqueue();
  const int error = errno;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (kq >= 0) ::close(kq);
  return kq >= 0 ? 0 : error;
}

}  // namespace

/// Replaces sigprocmask(2) in this program.
extern "C" int sigprocmask(int how, const sigset_t* set, sigset_t* oset) {
  const int result = ::pthread_sigmask(how, set, oset);
  if (how == SIG_UNBLOCK && raise_at_unblock != 0)
    ::kill(::getpid(), std::exchange(raise_at_unblock, 0));
  return result;
}

// What it refuses. Code that needs it must not seem to work.

TEST_CASE("a filter that is unknown, or that the adapter lacks, is EINVAL") {
  constexpr short timer = -7;
  Kqueue kq;
  CHECK(kq.change(0, -99, EV_ADD) == EINVAL);
  CHECK(kq.change(1, timer, EV_ADD) == EINVAL);
}

TEST_CASE("a flag that the adapter lacks is EINVAL") {
  constexpr unsigned short oneshot = 0x10;
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  CHECK(kq.change(reader, EVFILT_READ, EV_ADD | oneshot) == EINVAL);
  CHECK(kq.change(reader, EVFILT_READ, EV_ADD | EV_CLEAR) == EINVAL);
}

TEST_CASE("EV_DELETE with another flag is EINVAL") {
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  CHECK(kq.change(reader, EVFILT_READ, EV_ADD | EV_DELETE) == EINVAL);
}

TEST_CASE("fflags are EINVAL") {
  const auto [reader, writer] = pipe_pair();
  const Kqueue kq;
  Event change;
  EV_SET(&change, static_cast<std::uintptr_t>(static_cast<int>(reader)), EVFILT_READ, EV_ADD, 1, 0,
         nullptr);
  CHECK(::kevent(kq.descriptor, &change, 1, nullptr, 0, nullptr) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a regular file is EINVAL") {
  const Descriptor file(::open("/proc/self/exe", O_RDONLY));
  Kqueue kq;
  CHECK(kq.change(file, EVFILT_READ, EV_ADD) == EINVAL);
}

TEST_CASE("a signal that cannot be watched is EINVAL") {
  Kqueue kq;
  for (const int number : {0, SIGKILL, NSIG, 1'000'000'000})
    CHECK(kq.change(number, EVFILT_SIGNAL, EV_ADD) == EINVAL);
}

TEST_CASE("to delete, disable or enable a signal is EINVAL") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  for (const int action : {EV_DELETE, EV_DISABLE, EV_ENABLE, EV_ADD | EV_DISABLE})
    CHECK(kq.change(SIGUSR1, EVFILT_SIGNAL, static_cast<unsigned short>(action)) == EINVAL);
}

TEST_CASE("a time-out that the clock cannot hold is EINVAL") {
  const Kqueue kq;
  Event event;
  const timespec ages{std::numeric_limits<std::time_t>::max(), 0};
  CHECK(::kevent(kq.descriptor, nullptr, 0, &event, 1, &ages) == -1);
  CHECK(errno == EINVAL);
}

// Descriptors, and when they are closed

TEST_CASE("the next owner of a descriptor number can be watched at once") {
  auto [socket, peer] = tcp_pair();
  auto [heir, heirs_peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_WRITE, EV_ADD) == 0);
  reuse_number(socket, std::move(heir));
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  send(heirs_peer, "x");
  check_one(kq.wait(), socket, EVFILT_READ);
}

TEST_CASE("an ident that is larger than any descriptor is EBADF") {
  Kqueue kq;
  CHECK(kq.change(std::intptr_t{1} << 32, EVFILT_READ, EV_ADD) == EBADF);
}

TEST_CASE("kevent sleeps while a closed pipe is disabled") {
  auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD | EV_DISABLE) == 0);
  writer.close();
  CHECK(cpu_seconds_of_waiting(kq) < 0.1);
}

// With dup(2) here; lsfd has such a copy in another process.
TEST_CASE("epoll reports a closed socket, and cannot delete it, until its last copy is closed") {
  auto [socket, peer] = tcp_pair();
  const int number = socket;
  Kqueue kq;
  REQUIRE(kq.change(number, EVFILT_READ, EV_ADD) == 0);
  Descriptor copy(::dup(socket));
  send(peer, "x");
  socket.close();
  check_one(kq.wait(), number, EVFILT_READ);
  CHECK(kq.change(number, EVFILT_READ, EV_DELETE) == EBADF);
  check_one(kq.wait(), number, EVFILT_READ);
  copy.close();
  CHECK(kq.wait(50).empty());
}

TEST_CASE("while a copy of a closed socket is open, time-outs are neither shorter nor longer") {
  auto [socket, peer] = tcp_pair();
  auto [heir, heirs_peer] = tcp_pair();
  Kqueue kq;
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD) == 0);
  const Descriptor copy(::dup(socket));
  send(peer, "x");
  reuse_number(socket, std::move(heir));
  REQUIRE(kq.change(socket, EVFILT_READ, EV_ADD | EV_DISABLE) == 0);
  const auto start = std::chrono::steady_clock::now();
  CHECK(kq.wait(50).empty());
  CHECK(std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(50));
}

// One kqueue after another

TEST_CASE("a new kqueue has none of the filters of an earlier one") {
  const auto [reader, writer] = pipe_pair();
  send(writer, "x");
  {
    Kqueue earlier;
    REQUIRE(earlier.change(reader, EVFILT_READ, EV_ADD | EV_DISABLE) == 0);
  }
  Kqueue kq;
  CHECK(kq.change(reader, EVFILT_READ, EV_ENABLE) == ENOENT);
  REQUIRE(kq.change(reader, EVFILT_READ, EV_ADD) == 0);
  check_one(kq.ready_now(), reader, EVFILT_READ);
}

TEST_CASE("a new kqueue does not report the signals of an earlier one") {
  std::signal(SIGUSR1, SIG_IGN);
  {
    Kqueue earlier;
    REQUIRE(earlier.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
    ::kill(::getpid(), SIGUSR1);
  }
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR2, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR2);
  check_one(kq.wait(), SIGUSR2, EVFILT_SIGNAL);
}

TEST_CASE("a new kqueue gives a signal back that an earlier one watched") {
  handle(SIGUSR1);
  {
    Kqueue earlier;
    REQUIRE(earlier.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  }
  const Kqueue kq;
  ::kill(::getpid(), SIGUSR1);
  CHECK(handled == 1);
}

TEST_CASE("a new kqueue gives a signal back that was added twice") {
  handle(SIGUSR1);
  {
    Kqueue earlier;
    for (int i = 0; i < 2; ++i) REQUIRE(earlier.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  }
  const Kqueue kq;
  ::kill(::getpid(), SIGUSR1);
  CHECK(handled == 1);
}

TEST_CASE("a new kqueue leaves a signal alone that the program has taken over") {
  std::signal(SIGUSR1, SIG_IGN);
  {
    Kqueue earlier;
    REQUIRE(earlier.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  }
  handle(SIGUSR1);
  const Kqueue kq;
  ::kill(::getpid(), SIGUSR1);
  CHECK(handled == 1);
}

TEST_CASE("kqueues that are opened and closed leave no descriptor open") {
  {
    const Kqueue first;  // leaves its eventfd open, for the next one to close
  }
  const auto before = open_descriptors();
  for (int i = 0; i < 10; ++i) const Kqueue kq;
  CHECK(open_descriptors() == before);
}

TEST_CASE("without a descriptor for epoll or the eventfd there is no kqueue, and none stays open") {
  CHECK(error_of_kqueue(0) == EMFILE);  // closes the eventfd of an earlier one
  const auto before = open_descriptors();
  const int next = ::dup(STDERR_FILENO);
  ::close(next);
  CHECK(error_of_kqueue(next) == EMFILE);
  CHECK(error_of_kqueue(next + 1) == EMFILE);
  CHECK(open_descriptors() == before);
}

// Signals

TEST_CASE("a blocked signal is seen") {
  std::signal(SIGUSR1, SIG_IGN);
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  REQUIRE(::sigprocmask(SIG_BLOCK, &blocked, &before) == 0);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR1);
  const Events events = kq.ready_now();
  REQUIRE(::sigprocmask(SIG_SETMASK, &before, nullptr) == 0);
  check_one(events, SIGUSR1, EVFILT_SIGNAL);
}

TEST_CASE("a signal that arrives while the adapter begins to watch it is an event") {
  std::signal(SIGUSR2, SIG_IGN);
  Kqueue kq;
  raise_at_unblock = SIGUSR2;
  REQUIRE(kq.change(SIGUSR2, EVFILT_SIGNAL, EV_ADD) == 0);
  CHECK(raise_at_unblock == 0);
  const Events events = kq.ready_now();
  check_one(events, SIGUSR2, EVFILT_SIGNAL);
  CHECK(events[0].data == 1);
}

TEST_CASE("after a signal was reported, kevent sleeps") {
  std::signal(SIGUSR1, SIG_IGN);
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  ::kill(::getpid(), SIGUSR1);
  check_one(kq.wait(), SIGUSR1, EVFILT_SIGNAL);
  CHECK(cpu_seconds_of_waiting(kq) < 0.1);
}

TEST_CASE("a signal that is ignored and watched does not interrupt a read") {
  std::signal(SIGUSR1, SIG_IGN);
  const auto [reader, writer] = pipe_pair();
  Kqueue kq;
  REQUIRE(kq.change(SIGUSR1, EVFILT_SIGNAL, EV_ADD) == 0);
  const pid_t child = signal_then_write(SIGUSR1, writer);
  CHECK(receive(reader) == "x");
  CHECK(::waitpid(child, nullptr, 0) == child);
  check_one(kq.wait(), SIGUSR1, EVFILT_SIGNAL);
}
