#include "sessions.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include "model.hpp"

namespace {

using Random = std::mt19937_64;

std::size_t up_to(Random& random, std::size_t most) { return random() % (most + 1); }
bool one_in(Random& random, unsigned n) { return random() % n == 0; }

/// Most lines are short. Some are about as long as echod holds, and some are longer.
std::size_t random_length(Random& random) {
  if (one_in(random, 60)) return 65530 + up_to(random, 12);
  if (one_in(random, 40)) return up_to(random, 200'000);
  return up_to(random, 120);
}

/// Returns a line with its ending. A few lines are blank.
std::string random_line(Random& random) {
  const bool blank = one_in(random, 15);
  std::string line(random_length(random), ' ');
  for (char& byte : line)
    byte = blank ? " \t\r"[random() % 3] : static_cast<char>('!' + random() % 90);
  return line + (one_in(random, 4) ? "\r\n" : "\n");
}

}  // namespace

struct Sessions::Session {
  enum class End { half_close, reset, close };

  int descriptor = -1;
  std::string input;
  std::string expected;
  std::size_t sent = 0;
  std::size_t received = 0;
  std::size_t complete = 0;  // bytes of the input that are complete lines
  std::size_t echo_of_complete = 0;
  bool patient = false;
  End end = End::half_close;
  bool reads = true;
  bool half_closed = false;

  Session(Random& random, std::uint16_t port) {
    for (std::size_t lines = up_to(random, 12); lines > 0; --lines) input += random_line(random);
    complete = input.size();
    echo_of_complete = echo_of(input).size();
    if (one_in(random, 2)) input += "unterminated";
    expected = echo_of(input);
    if (one_in(random, 6))
      end = End::reset;
    else if (one_in(random, 10))
      end = End::close;
    reads = end == End::half_close || one_in(random, 2);
    patient = end == End::half_close && one_in(random, 2);

    descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
    if (descriptor < 0)
      throw std::runtime_error(std::string("no descriptor: ") + std::strerror(errno));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    const int small = 32768;
    if (one_in(random, 3)) ::setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      throw std::runtime_error(std::string("a client cannot connect: ") + std::strerror(errno));
    ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    ::fcntl(descriptor, F_SETFL, O_NONBLOCK);
  }
  Session(const Session&) = delete;
  ~Session() { ::close(descriptor); }

  /// A patient client waits for the echo of all its complete lines before it sends the rest and
  /// half-closes.
  bool waits_for_echo() const { return patient && sent >= complete && received < echo_of_complete; }

  /// Sends a random piece. Returns false if the connection is broken.
  bool send_some(Random& random) {
    if (sent == input.size() || waits_for_echo()) return true;
    const std::size_t stop = patient && sent < complete ? complete : input.size();
    std::size_t size = stop - sent;
    if (!one_in(random, 3)) size = std::min(size, 1 + up_to(random, 2000));
    const ssize_t count = ::write(descriptor, input.data() + sent, size);
    if (count < 0) return errno == EAGAIN;
    sent += static_cast<std::size_t>(count);
    return true;
  }

  /// Reads a random piece and compares it with the model. Returns the result of read.
  ssize_t read_some(Random& random) {
    static char buffer[1 << 18];
    const ssize_t count = ::read(descriptor, buffer, 1 + up_to(random, sizeof buffer - 1));
    if (count <= 0) return count;
    const auto size = static_cast<std::size_t>(count);
    if (expected.compare(received, size, buffer, size) != 0)
      throw std::runtime_error("a client got something else");
    received += size;
    return count;
  }

  void reset() const {
    const linger at_once{1, 0};
    ::setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }

  /// `reset` means that the server ended the session with a reset.
  enum class Progress { goes_on, over, reset };

  Progress step(Random& random) {
    // The server closes first only after an empty line. Then it keeps reading for longer than this
    // client sends.
    if (!half_closed && !send_some(random)) return Progress::reset;
    if (end != End::half_close && one_in(random, 30)) {
      if (end == End::reset) reset();
      return Progress::over;
    }
    if (sent == input.size() && !half_closed && end == End::half_close && !waits_for_echo()) {
      half_closed = true;
      if (::shutdown(descriptor, SHUT_WR) != 0) return Progress::reset;
    }
    if (!reads || one_in(random, 4)) return Progress::goes_on;
    const ssize_t count = read_some(random);
    if (count > 0 || (count < 0 && errno == EAGAIN)) return Progress::goes_on;
    if (count < 0) return Progress::reset;
    const bool all = received == expected.size();
    const bool may_end = half_closed || expected.size() < input.size();  // or after an empty line
    if (!all || !may_end)
      throw std::runtime_error("a client got an orderly end, but not all of its echo");
    return Progress::over;
  }
};

Sessions::Sessions(std::uint16_t port, std::uint64_t seed, std::size_t at_once)
    : port_(port), random_(seed), at_once_(at_once) {
  std::signal(SIGPIPE, SIG_IGN);
}

Sessions::~Sessions() = default;

bool Sessions::step(std::uint64_t total) {
  while (sessions_.size() < at_once_ && started_ < total) {
    sessions_.push_back(std::make_unique<Session>(random_, port_));
    ++started_;
  }
  std::erase_if(sessions_, [this](const std::unique_ptr<Session>& session) {
    const Session::Progress progress = session->step(random_);
    if (progress == Session::Progress::goes_on) return false;
    bytes_ += session->received;
    resets_ += progress == Session::Progress::reset;
    return true;
  });
  return !sessions_.empty();
}
