#include "pinger.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

echod::Socket connect_to(const std::string& address, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(address.c_str(), port.c_str(), &hints, &found);
  if (status != 0) throw std::runtime_error(address + ":" + port + ": " + ::gai_strerror(status));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  for (const addrinfo* next = found; next != nullptr; next = next->ai_next) {
    echod::Socket socket(::socket(next->ai_family, next->ai_socktype, next->ai_protocol));
    if (!socket) fail("socket (descriptors: ulimit -n)");
    if (::connect(socket.descriptor(), next->ai_addr, next->ai_addrlen) != 0) continue;
    const int on = 1;
    ::setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::fcntl(socket.descriptor(), F_SETFL, O_NONBLOCK);
    return socket;
  }
  const char* const hint = errno == EADDRNOTAVAIL ? " (no local port is left)" : "";
  fail("connect to " + address + ":" + port + hint);
}

Pinger::Pinger(echod::EventLoop& loop, echod::Socket socket, const std::string& text,
               std::vector<float>& times)
    : loop_(loop), socket_(std::move(socket)), text_(text), times_(times) {
  loop_.change(descriptor(), EVFILT_READ, EV_ADD);
  start();
}

void Pinger::start() {
  sent_ = 0;
  received_ = 0;
  started_ = std::chrono::steady_clock::now();
  send();
}

/// The read filter is always enabled. The write filter exists only while bytes are unsent.
void Pinger::send() {
  sent_ += socket_.write(std::string_view(text_).substr(sent_));
  const bool pending = sent_ < text_.size();
  if (pending == waits_to_send_) return;
  loop_.change(descriptor(), EVFILT_WRITE, pending ? EV_ADD : EV_DELETE);
  waits_to_send_ = pending;
}

void Pinger::on_event(const struct kevent& event) {
  if (event.filter == EVFILT_WRITE) {
    if (waits_to_send_) send();
    return;
  }
  static std::vector<char> buffer(1 << 16);
  const std::optional<std::size_t> count = socket_.read(buffer);
  if (!count) return;
  const std::size_t size = *count;
  if (size == 0) throw std::runtime_error("the server has closed a connection");
  if (text_.compare(received_, size, buffer.data(), size) != 0)
    throw std::runtime_error("the echo is not what was sent");
  received_ += size;
  if (received_ < text_.size()) return;
  times_.push_back(waiting());
  ++rounds_;
  start();
}

float Pinger::waiting() const {
  const auto time = std::chrono::steady_clock::now() - started_;
  return std::chrono::duration<float, std::micro>(time).count();
}
