#include "client.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
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

socklen_t fill_address(sockaddr_storage& storage, const char* host, std::uint16_t port) {
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof *v4;
  }
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) throw std::runtime_error("not an address");
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  return sizeof *v6;
}

std::string next_name() {
  static int clients = 0;
  return "client " + std::to_string(++clients);
}

/// Returns how many bytes that were sent are not acknowledged by the other end yet.
int unacknowledged(int descriptor) {
  int count = 0;
#if defined(SO_NWRITE)  // macOS
  socklen_t size = sizeof count;
  ::getsockopt(descriptor, SOL_SOCKET, SO_NWRITE, &count, &size);
#elif defined(FIONWRITE)  // FreeBSD
  ::ioctl(descriptor, FIONWRITE, &count);
#else
  // Linux. For sockets, tcp(7) calls it SIOCOUTQ.
  ::ioctl(descriptor, TIOCOUTQ, &count);
#endif
  return count;
}

/// Returns a line that begins with its number, so that a test detects a missing or repeated line.
std::string numbered_line(std::size_t number) {
  std::string line = std::to_string(number);
  line.resize(StuckClient::line_size - 1, 'x');
  return line + '\n';
}

}  // namespace

Client::Client(std::uint16_t port, const char* host, int buffer) : name_(next_name()) {
  std::signal(SIGPIPE, SIG_IGN);
  sockaddr_storage address{};
  const socklen_t length = fill_address(address, host, port);
  descriptor_ = ::socket(address.ss_family, SOCK_STREAM, 0);
  if (descriptor_ < 0) fail("socket");
  if (buffer > 0) {
    for (const int name : {SO_RCVBUF, SO_SNDBUF})
      ::setsockopt(descriptor_, SOL_SOCKET, name, &buffer, sizeof buffer);
  }
  const int on = 1;  // otherwise the last segment waits until the earlier ones are acknowledged
  ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::fcntl(descriptor_, F_SETFD, FD_CLOEXEC);
  ::fcntl(descriptor_, F_SETFL, O_NONBLOCK);
  int error = 0;
  if (::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), length) != 0) error = errno;
  socklen_t size = sizeof error;
  if (error == EINPROGRESS && ready_within(POLLOUT, patience))
    ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
  transcript::note(name_, error == 0 ? "connects" : "cannot connect");
  if (error == 0) return;
  close();
  errno = error;
  fail("connect");
}

Client::Client(Client&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), name_(std::move(other.name_)) {}

Client::~Client() { close(); }

std::uint16_t Client::port() const {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&storage), &length) != 0)
    fail("getsockname");
  if (storage.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

bool Client::ready_within(short events, std::chrono::milliseconds time) const {
  pollfd entry{descriptor_, events, 0};
  int ready = 0;
  do {
    ready = ::poll(&entry, 1, static_cast<int>(time.count()));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

void Client::fail_to(const char* call) const {
  const int error = errno;
  const bool is_reset = error == ECONNRESET || error == EPIPE;
  transcript::note(name_, is_reset ? "is reset" : "meets an error");
  errno = error;
  fail(call);
}

void Client::wait_for(short events) const {
  if (ready_within(events, patience)) return;
  transcript::note(name_, "waits in vain");
  throw std::runtime_error(events == POLLIN ? "nothing to receive" : "cannot send");
}

void Client::send_some(std::string_view& bytes) {
  const ssize_t sent = ::write(descriptor_, bytes.data(), bytes.size());
  if (sent < 0 && errno != EAGAIN && errno != EINTR) fail_to("write");
  if (sent <= 0) return;
  transcript::note(name_, "sends", bytes.substr(0, static_cast<std::size_t>(sent)));
  bytes.remove_prefix(static_cast<std::size_t>(sent));
}

void Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    wait_for(POLLOUT);
    send_some(bytes);
  }
}

void Client::send_urgent(char byte) {
  transcript::note(name_, "sends urgently", std::string_view(&byte, 1));
  if (::send(descriptor_, &byte, 1, MSG_OOB) != 1) fail_to("send");
}

void Client::shut_down_sending() {
  if (::shutdown(descriptor_, SHUT_WR) < 0) fail_to("shutdown");
  transcript::note(name_, "shuts down its sending side");
}

bool Client::receive_some(std::string& received, std::size_t size) {
  static char buffer[1 << 16];
  const ssize_t count = ::read(descriptor_, buffer, std::min(sizeof buffer, size));
  if (count < 0 && errno != EAGAIN && errno != EINTR) fail_to("read");
  if (count == 0) transcript::note(name_, "receives the end of input");
  if (count <= 0) return count != 0;
  received.append(buffer, static_cast<std::size_t>(count));
  transcript::note(name_, "receives", {buffer, static_cast<std::size_t>(count)});
  return true;
}

std::string Client::receive(std::size_t size) {
  std::string received;
  while (received.size() < size) {
    wait_for(POLLIN);
    if (!receive_some(received, size - received.size())) break;
  }
  return received;
}

std::string Client::receive_all() { return receive(static_cast<std::size_t>(-1)); }

std::string Client::exchange(std::string_view bytes) {
  std::string received;
  while (!bytes.empty()) {
    wait_for(POLLIN | POLLOUT);
    send_some(bytes);
    receive_some(received, static_cast<std::size_t>(-1));
  }
  shut_down_sending();
  return received + receive_all();
}

bool Client::echoes(std::string_view bytes) {
  send(bytes);
  return receive(bytes.size()) == bytes;
}

void Client::wait_until_arrived() const {
  const auto start = std::chrono::steady_clock::now();
  while (unacknowledged(descriptor_) > 0) {
    if (std::chrono::steady_clock::now() - start > patience)
      throw std::runtime_error("what was sent does not arrive");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool Client::hears_within(std::chrono::milliseconds time) const {
  return ready_within(POLLIN, time);
}

std::string Client::how_it_ends() {
  try {
    receive_all();
    return "end-of-file";
  } catch (const std::system_error& error) {
    return error.code().value() == ECONNRESET ? "reset" : error.code().message();
  }
}

void Client::close() {
  if (descriptor_ < 0) return;
  transcript::note(name_, "closes");
  ::close(std::exchange(descriptor_, -1));
}

void Client::reset() {
  transcript::note(name_, "resets its connection");
  const linger at_once{1, 0};
  ::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

void wait_until_refused(std::uint16_t port) {
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < patience) {
    try {
      const Client client(port);
    } catch (const std::system_error& error) {
      // Not ECONNRESET: that is a full accept queue on FreeBSD.
      if (error.code().value() == ECONNREFUSED) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  throw std::runtime_error("the server goes on listening");
}

StuckClient::StuckClient(std::uint16_t port) : Client(port, "127.0.0.1", 32768) {
  // Room for many segments. With one or two, the client would wait for their acknowledgement, which
  // may come 40 ms late, and not for the server.
  const int large = 1 << 18;
  ::setsockopt(descriptor_, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
  {
    const transcript::Silence silence;
    Client other(port);
    // In each turn, the server reads at most 112 KiB. It may find megabytes in its buffer before
    // there is room for this client again.
    for (int turns = 0; turns < 100; ++turns) {
      if (send_what_fits()) turns = 0;
      if (!other.echoes("a line\n")) throw std::runtime_error("another client is not served");
    }
  }
  transcript::note(name_, "sends " + std::to_string(sent_) + " bytes, and is stuck");
}

StuckClient::StuckClient(std::uint16_t port, std::chrono::milliseconds settle)
    : Client(port, "127.0.0.1", 32768) {
  do {
    send_what_fits();
  } while (ready_within(POLLOUT, settle));
}

bool StuckClient::send_what_fits() {
  constexpr std::size_t lines_at_once = 64;
  const std::size_t before = sent_;
  while (ready_within(POLLOUT, std::chrono::milliseconds(0))) {
    std::string lines;
    const std::size_t first = sent_ / line_size;
    for (std::size_t i = 0; i < lines_at_once; ++i) lines += numbered_line(first + i);
    std::string_view rest = std::string_view(lines).substr(sent_ % line_size);
    const std::size_t size = rest.size();
    send_some(rest);
    sent_ += size - rest.size();
  }
  return sent_ > before;
}

std::size_t StuckClient::arrived() const {
  return sent_ - static_cast<std::size_t>(unacknowledged(descriptor_));
}

bool StuckClient::has_sent(std::string_view bytes) const {
  if (bytes.size() > sent_) return false;
  for (std::size_t at = 0; at < bytes.size(); at += line_size) {
    const std::string_view line = bytes.substr(at, line_size);
    const std::string expected = numbered_line(at / line_size);
    if (line != expected.substr(0, line.size())) return false;
  }
  return true;
}
