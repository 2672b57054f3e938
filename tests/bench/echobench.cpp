// echobench: puts load on an echo server, and measures what it costs. Each connection sends some
// lines at once. It waits until all have come back, compares them, and starts again. An idle
// connection has sent one line. `echobench -h` explains the options. On systems that have
// clock_getcpuclockid(3), echobench reads the CPU time of the server from outside.
#include <fcntl.h>
#include <getopt.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../process.hpp"
#include "echod/event_loop.hpp"
#include "echod/process.hpp"
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
  unsigned long warm_up = 1;
};

constexpr const char* usage =
    "usage: echobench [-h] [-c connections] [-b bytes] [-p lines] [-i idle] [-s seconds] [-w "
    "seconds]\n"
    "                 [program | address port [pid]]\n";
constexpr const char* help =
    "\n"
    "  -c connections  busy connections, 1 to 100000; default 50\n"
    "  -b bytes        length of a line with its newline, 2 to 1000000; default 64\n"
    "  -p lines        lines that each connection sends before it waits for their echo, 1 to "
    "100000; default 1\n"
    "                  (bytes times lines: at most 10000000)\n"
    "  -i idle         connections that send one line and then nothing, 0 to 1000000; default 0\n"
    "  -s seconds      length of the measurement, 1 to 86400; default 2\n"
    "  -w seconds      length of the warm-up before it, which is not counted, 0 to 3600; default "
    "1\n"
    "\n"
    "Without arguments, echobench starts the echod that the environment variable ECHOD names, or "
    "its own build.\n"
    "It starts a program as `program 127.0.0.1 0`, and expects `echod: listening on "
    "127.0.0.1:PORT` from it.\n"
    "With an address and a port (1 to 65535), it uses a running server. With its pid, it also "
    "shows its CPU time.\n";

/// Returns the texts that the connections send. Neighbours send different texts.
std::vector<std::string> texts_of(const Load& load) {
  constexpr unsigned long letters = 26;
  std::vector<std::string> texts(std::min(letters, load.connections));
  for (unsigned long first = 0; first < texts.size(); ++first) {
    std::string& text = texts[first];
    for (unsigned long line = 0; line < load.lines; ++line) {
      for (unsigned long i = 1; i < load.bytes; ++i)
        text += static_cast<char>('a' + (first + line + i) % letters);
      text += '\n';
    }
  }
  return texts;
}

/// Passes events to the pingers until the time `end`.
class Run final : public echod::EventLoop::Handler {
 public:
  std::deque<Pinger> pingers;
  Clock::time_point end;

  void add(Pinger& pinger) {
    const auto descriptor = static_cast<std::size_t>(pinger.descriptor());
    if (descriptor >= by_descriptor_.size()) by_descriptor_.resize(descriptor + 1);
    by_descriptor_[descriptor] = &pinger;
  }
  void on_event(const struct kevent& event) override {
    by_descriptor_[event.ident]->on_event(event);
  }
  std::optional<Clock::time_point> before_wait() override {
    return Clock::now() < end ? std::optional(end) : std::nullopt;
  }

 private:
  std::vector<Pinger*> by_descriptor_;
};

/// Sends one line and waits for its echo. From then on the connection is idle.
void greet(echod::Socket& idler) {
  constexpr timeval patience{10, 0};
  ::setsockopt(idler.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::fcntl(idler.descriptor(), F_SETFL, 0);
  char echo[2];
  errno = 0;  // end-of-file does not set it
  if (idler.write("i\n") == 2 && ::recv(idler.descriptor(), echo, 2, MSG_WAITALL) == 2) return;
  if (errno != EAGAIN) throw std::runtime_error("the server has closed an idle connection");
  throw std::runtime_error(
      "an idle connection got no echo in 10 s: is the server out of descriptors?");
}

/// Returns whether the connection is open and has no input.
bool still_open(const echod::Socket& idler) {
  char byte = 0;
  return ::recv(idler.descriptor(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/// Checks the limit of this process. A server that we start has the same limit.
void check_descriptors(const Load& load) {
  constexpr unsigned long besides = 32;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
      static_cast<rlim_t>(load.connections + load.idle + besides) > limit.rlim_cur)
    throw std::runtime_error("this needs more descriptors than the limit of " +
                             std::to_string(limit.rlim_cur) + " (ulimit -n)");
}

/// `times` are the microseconds of the rounds, `unfinished` those of the longest round that did not
/// end. `cpu` is in seconds, negative if it is not known.
void report(const Load& load, std::vector<float> times, float unfinished, double seconds,
            double cpu) {
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

void measure(const Load& load, const std::string& address, const std::string& port, pid_t pid) {
  std::vector<echod::Socket> idlers;
  for (unsigned long i = 0; i < load.idle; ++i)
    greet(idlers.emplace_back(connect_to(address, port)));
  std::vector<echod::Socket> sockets;
  for (unsigned long i = 0; i < load.connections; ++i) sockets.push_back(connect_to(address, port));
  const std::vector<std::string> texts = texts_of(load);
  std::vector<float> times;
  times.reserve(1 << 22);

  echod::EventLoop loop;
  Run run;
  run.end = Clock::now() + std::chrono::seconds(load.warm_up);
  for (echod::Socket& socket : sockets) {
    const std::string& text = texts[run.pingers.size() % texts.size()];
    run.add(run.pingers.emplace_back(loop, std::move(socket), text, times));
  }
  if (load.warm_up > 0) loop.run(run);
  times.clear();
  for (Pinger& pinger : run.pingers) pinger.forget_rounds();

  const double cpu_before = cpu_of(pid);
  const Clock::time_point start = Clock::now();
  run.end = start + std::chrono::seconds(load.seconds);
  loop.run(run);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu = cpu_before < 0 ? -1 : cpu_of(pid) - cpu_before;
  float unfinished = 0;
  for (const Pinger& pinger : run.pingers) unfinished = std::max(unfinished, pinger.waiting());

  // The times are those of rounds that ended, so they do not show a connection that got nothing.
  const auto starved = std::count_if(run.pingers.begin(), run.pingers.end(),
                                     [](const Pinger& pinger) { return pinger.rounds() == 0; });
  if (starved > 0)
    throw std::runtime_error(std::to_string(starved) + " of " + std::to_string(load.connections) +
                             " connections did not get all of their echo even once");
  if (!std::all_of(idlers.begin(), idlers.end(), still_open))
    throw std::runtime_error("the server has closed an idle connection during the run");

  report(load, std::move(times), unfinished, seconds, cpu);
}

[[noreturn]] void bad_usage(const std::string& reason) {
  std::fprintf(stderr, "echobench: %s\n%s", reason.c_str(), usage);
  std::exit(64);
}

int print_help() {
  const bool printed = std::printf("%s%s", usage, help) >= 0 && std::fflush(stdout) == 0;
  return printed ? 0 : 1;
}

unsigned long number(const std::string& name, const char* text, unsigned long least,
                     unsigned long most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < least || value > most)
    bad_usage(name + " is a number from " + std::to_string(least) + " to " + std::to_string(most));
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  Load load;
  const char* const options = "hc:b:p:i:s:w:";
  for (int letter = getopt(argc, argv, options); letter != -1;
       letter = getopt(argc, argv, options)) {
    switch (letter) {
      case 'h': return print_help();
      case 'c': load.connections = number("-c", optarg, 1, 100'000); break;
      case 'b': load.bytes = number("-b", optarg, 2, 1'000'000); break;
      case 'p': load.lines = number("-p", optarg, 1, 100'000); break;
      case 'i': load.idle = number("-i", optarg, 0, 1'000'000); break;
      case 's': load.seconds = number("-s", optarg, 1, 86'400); break;
      case 'w': load.warm_up = number("-w", optarg, 0, 3'600); break;
      default: bad_usage("see echobench -h");
    }
  }
  if (load.bytes * load.lines > 10'000'000) bad_usage("bytes times lines is at most 10000000");
  const std::vector<std::string> arguments(argv + optind, argv + argc);
  if (arguments.size() > 3) bad_usage("too many arguments");
  try {
    echod::prepare_process();
    check_descriptors(load);
    if (arguments.size() < 2) {
      const Echod server({.program = arguments.empty() ? "" : arguments[0]});
      measure(load, "127.0.0.1", std::to_string(server.port()), server.pid());
      return 0;
    }
    pid_t pid = 0;
    if (arguments.size() == 3)
      pid = static_cast<pid_t>(number("pid", arguments[2].c_str(), 1, 100'000'000));
    if (pid > 0 && cpu_of(pid) < 0)
      throw std::runtime_error("cannot read the CPU time of process " + arguments[2]);
    number("port", arguments[1].c_str(), 1, 65'535);  // getaddrinfo accepts 99999
    measure(load, arguments[0], arguments[1], pid);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "echobench: %s\n", error.what());
    return 1;
  }
}
