#include "client.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

namespace {

constexpr int patience = 60'000;  // milliseconds: only a failing test waits that long

[[noreturn]] void fail(const char* call) { throw std::system_error(errno, std::generic_category(), call); }

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

}  // namespace

Client::Client(std::uint16_t port, const char* host, int receive_buffer) {
  std::signal(SIGPIPE, SIG_IGN);
  sockaddr_storage address{};
  const socklen_t length = fill_address(address, host, port);
  descriptor_ = ::socket(address.ss_family, SOCK_STREAM, 0);
  if (descriptor_ < 0) fail("socket");
  if (receive_buffer > 0) ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  ::fcntl(descriptor_, F_SETFD, FD_CLOEXEC);
  ::fcntl(descriptor_, F_SETFL, O_NONBLOCK);
  if (::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), length) == 0) return;
  if (errno == EINPROGRESS) {
    wait_for(POLLOUT);
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) return;
    errno = error;
  }
  const int error = errno;
  close();
  errno = error;
  fail("connect");
}

Client::Client(Client&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Client::~Client() { close(); }

void Client::wait_for(short events) const {
  pollfd entry{descriptor_, events, 0};
  int ready = 0;
  do ready = ::poll(&entry, 1, patience);
  while (ready < 0 && errno == EINTR);
  if (ready == 0) throw std::runtime_error(events == POLLIN ? "nothing to receive" : "cannot send");
}

void Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::write(descriptor_, bytes.data(), bytes.size());
    if (sent < 0 && errno != EAGAIN && errno != EINTR) fail("write");
    if (sent < 0) wait_for(POLLOUT);
    if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

std::size_t Client::send_until_stuck(std::string_view bytes, std::chrono::milliseconds settle) {
  std::size_t total = 0;
  for (;;) {
    const ssize_t sent = ::write(descriptor_, bytes.data() + total % bytes.size(), bytes.size() - total % bytes.size());
    if (sent > 0) total += static_cast<std::size_t>(sent);
    if (sent < 0 && errno != EAGAIN) fail("write");
    pollfd entry{descriptor_, POLLOUT, 0};
    if (sent < 0 && ::poll(&entry, 1, static_cast<int>(settle.count())) == 0) return total;
  }
}

void Client::shut_down_sending() {
  if (::shutdown(descriptor_, SHUT_WR) < 0) fail("shutdown");
}

std::string Client::receive(std::size_t size) {
  std::string received;
  std::vector<char> buffer(1 << 16);
  while (received.size() < size) {
    const std::size_t room = std::min(buffer.size(), size - received.size());
    const ssize_t count = ::read(descriptor_, buffer.data(), room);
    if (count == 0) break;
    if (count < 0 && errno != EAGAIN && errno != EINTR) fail("read");
    if (count < 0) wait_for(POLLIN);
    if (count > 0) received.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return received;
}

std::string Client::receive_all() { return receive(static_cast<std::size_t>(-1)); }

std::string Client::exchange(std::string_view bytes) {
  std::string received;
  std::vector<char> buffer(1 << 16);
  for (bool sending = true;;) {
    wait_for(static_cast<short>(sending ? POLLIN | POLLOUT : POLLIN));
    if (sending) {
      const ssize_t sent = ::write(descriptor_, bytes.data(), bytes.size());
      if (sent < 0 && errno != EAGAIN) fail("write");
      if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
      sending = !bytes.empty();
      if (!sending) shut_down_sending();
    }
    const ssize_t count = ::read(descriptor_, buffer.data(), buffer.size());
    if (count == 0) return received;
    if (count < 0 && errno != EAGAIN) fail("read");
    if (count > 0) received.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

bool Client::hears_within(std::chrono::milliseconds time) {
  pollfd entry{descriptor_, POLLIN, 0};
  return ::poll(&entry, 1, static_cast<int>(time.count())) > 0;
}

int Client::wait_for_end() {
  try {
    receive_all();
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

void Client::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void Client::reset() {
  const linger at_once{1, 0};
  ::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}
