// echobench: a load for an echo server, and what it costs.
//
//   echobench [-c connections] [-b bytes] [-p lines] [-i idle] [-s seconds] [program | address port [pid]]
//
// Each of the connections sends so many lines at once (-p, in flight), each of so many bytes, newline included, waits
// for all of them to come back, compares them, and starts again. Besides there are idle connections, which have sent
// one line. The server is echod (as for the tests: the environment's ECHOD, else the one built here), or another
// program that is started with `127.0.0.1 0` and prints `echod: listening on 127.0.0.1:PORT`; or one that runs already,
// as process pid. Its CPU time is read from outside, where the system has clock_getcpuclockid(3).
#include <fcntl.h>
#include <getopt.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../process.hpp"
#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "pinger.hpp"

namespace {

using Clock = std::chrono::steady_clock;

struct Load {
  unsigned long connections = 50;
  unsigned long bytes = 64;
  unsigned long lines = 1;
  unsigned long idle = 0;
  unsigned long seconds = 2;
};

/// What connections send, by turns: so they do not send what their neighbours send.
std::vector<std::string> texts_of(const Load& load) {
  constexpr unsigned long letters = 26;
  std::vector<std::string> texts(std::min(letters, load.connections));
  for (unsigned long first = 0; first < texts.size(); ++first) {
    std::string& text = texts[first];
    for (unsigned long line = 0; line < load.lines; ++line) {
      for (unsigned long i = 1; i < load.bytes; ++i) text += static_cast<char>('a' + (first + line + i) % letters);
      text += '\n';
    }
  }
  return texts;
}

struct Stopwatch final : echod::EventHandler {
  bool over = false;
  void on_event(const struct kevent&) override { over = true; }
};

/// The CPU time of a process so far, in seconds; negative if the system does not tell.
double cpu_of([[maybe_unused]] pid_t pid) {
#if defined(_POSIX_CPUTIME) && _POSIX_CPUTIME >= 0
  clockid_t clock{};
  timespec time{};
  if (pid > 0 && ::clock_getcpuclockid(pid, &clock) == 0 && ::clock_gettime(clock, &time) == 0)
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
#endif
  return -1;
}

void greet(const echod::Socket& idler) {  // one line, and its echo: from then on it is idle
  constexpr timeval patience{10, 0};
  ::setsockopt(idler.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::fcntl(idler.descriptor(), F_SETFL, 0);
  char echo[2];
  errno = 0;  // an end is no error
  if (idler.write("i\n") == 2 && ::recv(idler.descriptor(), echo, 2, MSG_WAITALL) == 2) return;
  throw std::runtime_error(errno == EAGAIN ? "an idle connection got no echo in 10 s: is the server out of descriptors?"
                                           : "the server has closed an idle connection");
}

/// There is nothing to be read, and no end either.
bool still_open(const echod::Socket& idler) {
  char byte = 0;
  return ::recv(idler.descriptor(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/// The server, if it is ours, has the same limit.
void check_descriptors(const Load& load) {
  constexpr unsigned long besides = 32;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
      static_cast<rlim_t>(load.connections + load.idle + besides) > limit.rlim_cur)
    throw std::runtime_error("that takes more descriptors than the " + std::to_string(limit.rlim_cur) +
                             " there are (ulimit -n)");
}

/// `times`: microseconds of the rounds; `unfinished`: of the longest that did not end; `cpu`: seconds of the server,
/// negative if not known.
void report(const Load& load, std::vector<float> times, float unfinished, double seconds, double cpu) {
  std::sort(times.begin(), times.end());
  const auto share = [&](double of_all) {
    return times[static_cast<std::size_t>(of_all * static_cast<double>(times.size() - 1))];
  };
  const double lines = static_cast<double>(times.size()) * static_cast<double>(load.lines);
  std::printf("lines/s %.0f  MB/s %.1f  round trip us p50 %.1f p99 %.1f max %.1f", lines / seconds,
              lines * static_cast<double>(load.bytes) / seconds / 1e6, share(.5), share(.99),
              std::max(times.back(), unfinished));
  if (cpu >= 0) std::printf("  server CPU us/line %.3f", cpu * 1e6 / lines);
  std::printf("\n");
}

void run(const Load& load, const std::string& address, const std::string& port, pid_t pid) {
  std::vector<echod::Socket> idlers;
  for (unsigned long i = 0; i < load.idle; ++i) greet(idlers.emplace_back(connect_to(address, port)));
  std::vector<echod::Socket> sockets;
  for (unsigned long i = 0; i < load.connections; ++i) sockets.push_back(connect_to(address, port));
  const std::vector<std::string> texts = texts_of(load);
  std::vector<float> times;
  times.reserve(1 << 22);

  echod::EventLoop loop;
  Stopwatch stopwatch;
  loop.change(0, EVFILT_TIMER, EV_ADD | EV_ONESHOT, stopwatch, static_cast<std::int64_t>(load.seconds) * 1000);
  const double cpu_before = cpu_of(pid);
  const Clock::time_point start = Clock::now();
  std::list<Pinger> pingers;
  for (echod::Socket& socket : sockets)
    pingers.emplace_back(loop, std::move(socket), texts[pingers.size() % texts.size()], times);
  loop.run([&] { return !stopwatch.over; });
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu = cpu_before < 0 ? -1 : cpu_of(pid) - cpu_before;
  float unfinished = 0;
  for (const Pinger& pinger : pingers) unfinished = std::max(unfinished, pinger.waiting());

  // Whoever was left out must not go unnoticed, just because only what came back has been measured.
  const auto starved = std::count_if(pingers.begin(), pingers.end(), [](const Pinger& p) { return p.rounds() == 0; });
  if (starved > 0)
    throw std::runtime_error(std::to_string(starved) + " of " + std::to_string(load.connections) +
                             " connections did not get all of their echo even once");
  if (!std::all_of(idlers.begin(), idlers.end(), still_open))
    throw std::runtime_error("the server has closed an idle connection during the run");

  report(load, std::move(times), unfinished, seconds, cpu);
}

[[noreturn]] void bad_usage() {
  std::fputs(
      "usage: echobench [-c connections] [-b bytes] [-p lines] [-i idle] [-s seconds] [program | address port [pid]]\n",
      stderr);
  std::exit(64);
}

unsigned long number(const char* text, unsigned long least) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || value < least || value > 100'000'000) bad_usage();
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  Load load;
  for (int letter; (letter = getopt(argc, argv, "c:b:p:i:s:")) != -1;) {
    switch (letter) {
      case 'c': load.connections = number(optarg, 1); break;
      case 'b': load.bytes = number(optarg, 2); break;
      case 'p': load.lines = number(optarg, 1); break;
      case 'i': load.idle = number(optarg, 0); break;
      case 's': load.seconds = number(optarg, 1); break;
      default: bad_usage();
    }
  }
  const std::vector<std::string> arguments(argv + optind, argv + argc);
  if (arguments.size() > 3) bad_usage();
  try {
    std::signal(SIGPIPE, SIG_IGN);
    echod::raise_descriptor_limit();
    check_descriptors(load);
    if (arguments.size() < 2) {
      Echod server({}, 0, arguments.empty() ? "" : arguments[0]);
      run(load, "127.0.0.1", std::to_string(server.port()), server.pid());
      return 0;
    }
    const pid_t pid = arguments.size() == 3 ? static_cast<pid_t>(number(arguments[2].c_str(), 1)) : 0;
    if (pid > 0 && cpu_of(pid) < 0) throw std::runtime_error("cannot read the CPU time of process " + arguments[2]);
    if (number(arguments[1].c_str(), 1) > 65535) bad_usage();  // getaddrinfo would take it
    run(load, arguments[0], arguments[1], pid);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "echobench: %s\n", error.what());
    return 1;
  }
}
