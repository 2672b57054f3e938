#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "client.hpp"

namespace {

[[noreturn]] void fail(const char* call) { throw std::system_error(errno, std::generic_category(), call); }

std::string echod_program() {
  const char* const named = std::getenv("ECHOD");
  return named != nullptr ? named : ECHOD_PATH;
}

[[noreturn]] void become(const std::vector<char*>& argv, int output, rlim_t descriptors) {
  if (output >= 0) {
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
  } else {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::close(descriptor);
  }
  if (descriptors != 0) {
    const rlimit limit{descriptors, descriptors};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  std::signal(SIGPIPE, SIG_DFL);  // ignored in the tests, and that would be inherited
  ::execv(argv[0], argv.data());
  _exit(127);
}

std::vector<std::string> with_free_port(std::vector<std::string> options) {
  options.insert(options.end(), {"127.0.0.1", "0"});
  return options;
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, rlim_t descriptors, std::string program, Output output) {
  if (program.empty()) program = echod_program();
  std::vector<char*> argv{program.data()};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int ends[2];
  if (::pipe(ends) != 0) fail("pipe");
  ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  pid_ = ::fork();
  if (pid_ < 0) fail("fork");
  if (pid_ == 0) become(argv, output == Output::piped ? ends[1] : -1, descriptors);
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

void Process::signal(int number) {
  // On Linux ru_maxrss counts also what the process was before exec: a copy of us. This does not.
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  for (std::string word; status >> word;)
    if (word == "VmHWM:") status >> peak_kilobytes_;
  if (::kill(pid_, number) != 0) fail("kill");
}

bool Process::read_more() {
  constexpr int patience = 180'000;  // milliseconds: to learn that a host is unknown may take long
  pollfd entry{pipe_, POLLIN, 0};
  if (::poll(&entry, 1, patience) == 0) throw std::runtime_error("the program says nothing");
  char buffer[4096];
  const ssize_t count = ::read(pipe_, buffer, sizeof buffer);
  if (count > 0) unread_.append(buffer, static_cast<std::size_t>(count));
  return count > 0 || (count < 0 && errno == EINTR);
}

std::string Process::line() {
  std::size_t end = 0;
  while ((end = unread_.find('\n')) == std::string::npos && read_more()) {
  }
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end == std::string::npos ? end : end + 1);
  return line;
}

std::string Process::output() {
  while (read_more()) {
  }
  return unread_;
}

int Process::wait() {
  int status = 0;
  while (::wait4(pid_, &status, 0, &used_) < 0)
    if (errno != EINTR) fail("wait4");
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

double Process::cpu_seconds() const {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used_.ru_utime) + seconds(used_.ru_stime);
}

double Process::peak_kilobytes() const {
  if (peak_kilobytes_ > 0) return peak_kilobytes_;
#ifdef __APPLE__
  return static_cast<double>(used_.ru_maxrss) / 1024;
#else
  return static_cast<double>(used_.ru_maxrss);
#endif
}

Echod::Echod(const std::vector<std::string>& options, rlim_t descriptors, const std::string& program)
    : Process(with_free_port(options), descriptors, program) {
  const std::string expected = "echod: listening on 127.0.0.1:";
  std::string announcement;
  do {  // with -v there are lines before it
    announcement = line();
    if (announcement.empty())
      throw std::runtime_error((program.empty() ? "echod" : program) + " did not start, as a server");
  } while (announcement.find(expected) == std::string::npos);
  port_ = port_of(announcement);
}

int Echod::stop() {
  signal(SIGTERM);
  return wait();
}

Result run_echod(const std::vector<std::string>& arguments) {
  Process process(arguments);
  std::string output = process.output();
  return {process.wait(), std::move(output)};
}
