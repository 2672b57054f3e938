// echobench: a load for an echo server, and what it costs. It is the other side of EventLoop and Socket: a client.
//
//   echobench [-c connections] [-b bytes] [-p lines] [-i idle] [-s seconds] [program | address port [pid]]
//
// Each of the connections sends so many lines at once (-p, in flight), each of so many bytes, waits for all of them to
// come back, compares them, and starts again. Besides there are idle connections, which have sent one line. The server
// is echod, or another program that is started and announces itself like it; or one that runs already, as process pid.
// Its CPU time is read from outside, where the system has clock_getcpuclockid(3).
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../process.hpp"
#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"

namespace {

using Clock = std::chrono::steady_clock;

struct Load {
  unsigned long connections = 50;
  unsigned long bytes = 64;
  unsigned long lines = 1;
  unsigned long idle = 0;
  unsigned long seconds = 2;
};

/// What all connections together have seen.
struct Result {
  unsigned long rounds = 0;
  std::vector<float> microseconds;
};

echod::Socket connect_to(const std::string& address, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(address.c_str(), port.c_str(), &hints, &found);
  if (status != 0) throw std::runtime_error(address + ":" + port + ": " + ::gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  echod::Socket socket(::socket(found->ai_family, found->ai_socktype, found->ai_protocol));
  if (!socket) throw std::system_error(errno, std::generic_category(), "socket (descriptors: ulimit -n)");
  if (::connect(socket.descriptor(), found->ai_addr, found->ai_addrlen) != 0) {
    const char* const hint = errno == EADDRNOTAVAIL ? " (no local port is left)" : "";
    throw std::system_error(errno, std::generic_category(), "connect to " + address + ":" + port + hint);
  }
  const int on = 1;
  ::setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::fcntl(socket.descriptor(), F_SETFL, O_NONBLOCK);
  return socket;
}

/// One connection at work. It waits for input always, for output only while something is left to be sent.
class Pinger final : public echod::EventHandler {
 public:
  Pinger(echod::EventLoop& loop, echod::Socket socket, const std::string& text, Result& result)
      : loop_(loop), socket_(std::move(socket)), text_(text), result_(result) {
    loop_.change(ident(), EVFILT_READ, EV_ADD, *this);
    start();
  }

  void on_event(const struct kevent& event) override {
    if (event.filter == EVFILT_WRITE) return send();
    static std::vector<char> buffer(1 << 16);
    const ssize_t count = socket_.read(buffer);
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) throw std::system_error(errno, std::generic_category(), "read");
    const auto size = static_cast<std::size_t>(count);
    if (count == 0 || text_.compare(received_, size, buffer.data(), size) != 0)
      throw std::runtime_error(count == 0 ? "the server has closed a connection" : "the echo is not what was sent");
    received_ += size;
    if (received_ < text_.size()) return;
    const std::chrono::duration<float, std::micro> time = Clock::now() - started_;
    result_.microseconds.push_back(time.count());
    ++result_.rounds;
    start();
  }

 private:
  std::uintptr_t ident() const { return static_cast<std::uintptr_t>(socket_.descriptor()); }

  void start() {
    sent_ = received_ = 0;
    started_ = Clock::now();
    send();
  }

  void send() {
    const ssize_t count = socket_.write(std::string_view(text_).substr(sent_));
    if (count < 0 && errno != EAGAIN) throw std::system_error(errno, std::generic_category(), "write");
    sent_ += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
    const bool pending = sent_ < text_.size();
    if (pending == waits_to_send_) return;
    loop_.change(ident(), EVFILT_WRITE, pending ? EV_ADD : EV_DELETE, *this);
    waits_to_send_ = pending;
  }

  echod::EventLoop& loop_;
  echod::Socket socket_;
  const std::string& text_;
  Result& result_;
  std::size_t sent_ = 0;
  std::size_t received_ = 0;
  bool waits_to_send_ = false;
  Clock::time_point started_;
};

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
  if (idler.write("i\n") != 2 || ::recv(idler.descriptor(), echo, 2, MSG_WAITALL) != 2)
    throw std::runtime_error("an idle connection got no echo in 10 s: is the server out of descriptors?");
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

void run(const Load& load, const std::string& address, const std::string& port, pid_t pid) {
  std::vector<echod::Socket> idlers;
  for (unsigned long i = 0; i < load.idle; ++i) greet(idlers.emplace_back(connect_to(address, port)));

  std::string text;
  for (unsigned long line = 0; line < load.lines; ++line) {
    for (unsigned long i = 1; i < load.bytes; ++i) text += static_cast<char>('a' + (i + line) % 26);
    text += '\n';
  }
  Result result;
  result.microseconds.reserve(1 << 22);
  echod::EventLoop loop;
  std::vector<echod::Socket> sockets;
  for (unsigned long i = 0; i < load.connections; ++i) sockets.push_back(connect_to(address, port));

  Stopwatch stopwatch;
  loop.change(0, EVFILT_TIMER, EV_ADD | EV_ONESHOT, stopwatch, static_cast<std::int64_t>(load.seconds) * 1000);
  const double cpu_before = cpu_of(pid);
  const Clock::time_point start = Clock::now();
  std::list<Pinger> pingers;
  for (echod::Socket& socket : sockets) pingers.emplace_back(loop, std::move(socket), text, result);
  loop.run([&] { return !stopwatch.over; });
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu = cpu_of(pid) - cpu_before;

  if (result.rounds == 0) throw std::runtime_error("no echo was complete in that time");
  std::sort(result.microseconds.begin(), result.microseconds.end());
  const auto at = [&times = result.microseconds](double share) {
    return static_cast<double>(times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))]);
  };
  const double lines = static_cast<double>(result.rounds) * static_cast<double>(load.lines);
  std::printf("lines/s %.0f  MB/s %.1f  round trip us p50 %.1f p99 %.1f max %.1f", lines / seconds,
              lines * static_cast<double>(load.bytes) / seconds / 1e6, at(.5), at(.99), at(1));
  if (cpu_before >= 0) std::printf("  server CPU us/line %.3f", cpu * 1e6 / lines);
  std::printf("\n");
}

[[noreturn]] void bad_usage() {
  std::fputs(
      "usage: echobench [-c connections] [-b bytes] [-p lines] [-i idle] [-s seconds] "
      "[program | address port [pid]]\n",
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
    run(load, arguments[0], arguments[1], pid);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "echobench: %s\n", error.what());
    return 1;
  }
}
