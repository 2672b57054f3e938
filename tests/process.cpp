#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include "patience.hpp"
#include "transcript.hpp"

namespace {

[[noreturn]] void fail(const char* call) {
  throw std::system_error(errno, std::generic_category(), call);
}

[[noreturn]] void become(const Start& start, char* const* argv, int output, const sigset_t& mask) {
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  if (start.closed) {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(descriptor);
  }
  const rlimit limit{start.descriptors, start.descriptors};
  if (start.descriptors != 0) ::setrlimit(RLIMIT_NOFILE, &limit);
  const rlimit memory{start.memory, start.memory};
  if (start.memory != 0) ::setrlimit(RLIMIT_AS, &memory);
  // What is ignored stays so after exec. The tests ignore SIGPIPE, and prepare_process() does some
  // more. nohup(1) ignores SIGHUP, and a shell without job control ignores SIGINT for what it runs
  // in the background.
  for (const int number : {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGPIPE, SIGTTOU, SIGXFSZ})
    std::signal(number, number == start.ignored ? SIG_IGN : SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  if (start.before_exec) start.before_exec();
  ::execv(argv[0], argv);
  _exit(127);
}

std::string path_of_echod() {
  const char* const named = std::getenv("ECHOD");
  return named != nullptr ? named : ECHOD_PATH;
}

Start on_free_port(Start start) {
  start.options.insert(start.options.end(), {"127.0.0.1", "0"});
  return start;
}

}  // namespace

Process::Process(const Start& start) {
  std::vector<std::string> words{start.program.empty() ? path_of_echod() : start.program};
  words.insert(words.end(), start.options.begin(), start.options.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2];
  if (::pipe(ends) != 0) fail("pipe");
  for (const int end : ends) ::fcntl(end, F_SETFD, FD_CLOEXEC);
  // A signal that comes early waits until the new process has left the handlers of the tests
  // behind.
  sigset_t all;
  sigset_t mask;
  sigfillset(&all);  // a macro on macOS
  ::sigprocmask(SIG_SETMASK, &all, &mask);
  pid_ = ::fork();
  if (pid_ == 0) become(start, argv.data(), ends[1], mask);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  if (pid_ < 0) fail("fork");
  ::close(ends[1]);
  pipe_ = ends[0];
}

Process::~Process() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(pipe_);
}

void Process::signal(int number) const {
  transcript::note("server", "gets " + transcript::name_of_signal(number));
  if (::kill(pid_, number) != 0) fail("kill");
}

bool Process::read_more() {
  pollfd entry{pipe_, POLLIN, 0};
  // Three times the patience, because a resolver can take long to report an unknown host.
  if (::poll(&entry, 1, static_cast<int>(3 * patience.count())) == 0)
    throw std::runtime_error("the program is silent");
  char buffer[4096];
  const ssize_t count = ::read(pipe_, buffer, sizeof buffer);
  if (count > 0) unread_.append(buffer, static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && errno == EINTR);
}

std::string Process::line() {
  std::size_t end = unread_.find('\n');
  while (end == std::string::npos && read_more()) end = unread_.find('\n');
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end);
  if (!unread_.empty()) unread_.erase(0, 1);  // the newline
  return line;
}

std::string Process::line_with(const std::string& text) {
  std::string found = line();
  while (!found.empty() && found.find(text) == std::string::npos) found = line();
  return found;
}

std::string Process::output() {
  while (read_more()) {
  }
  return unread_;
}

int Process::wait() {
  output();
  int status = 0;
  while (::wait4(pid_, &status, 0, &used_) < 0) {
    if (errno != EINTR) fail("wait4");
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int Process::stop() {
  signal(SIGTERM);
  return wait();
}

std::uint16_t free_port() {
  const Echod echod;
  Client client(echod.port());
  client.send("\n");
  if (client.how_it_ends() != "end-of-file") throw std::runtime_error("the server did not close");
  return echod.port();
}

Client connect_when_listening(std::uint16_t port) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    try {
      return Client(port);
    } catch (const std::system_error&) {
      if (std::chrono::steady_clock::now() - start > patience) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

bool ends_within(pid_t child, std::chrono::milliseconds time) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
      fail("waitid");
    if (info.si_pid == child) return true;
    if (std::chrono::steady_clock::now() - start > time) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

double cpu_of([[maybe_unused]] pid_t pid) {
#if defined(_POSIX_CPUTIME) && _POSIX_CPUTIME >= 0
  clockid_t clock{};
  timespec time{};
  if (pid > 0 && ::clock_getcpuclockid(pid, &clock) == 0 && ::clock_gettime(clock, &time) == 0)
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
#endif
  return -1;
}

double Process::cpu_seconds() const {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used_.ru_utime) + seconds(used_.ru_stime);
}

/// Does not use ru_maxrss. That also counts the time between fork and exec, when the process is a
/// copy of the test.
double Process::peak_kilobytes() const {
  if (sanitized) return 0;
  double kilobytes = 0;
  std::string word;
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  while (status >> word) {
    if (word == "VmHWM:") status >> kilobytes;
  }
  return kilobytes;
}

Echod::Echod(Start start) : Process(on_free_port(std::move(start))) {
  // With -v, other lines come first.
  const std::string announcement = line_with(": listening on 127.0.0.1:");
  if (announcement.empty()) throw std::runtime_error("the server did not start");
  port_ = port_of(announcement);
}

Result run_echod(const std::vector<std::string>& options) {
  Process process({.options = options});
  const int status = process.wait();
  return {status, process.output()};
}
