// Client: the other end of a connection. Its calls wait until they can finish. They throw
// std::runtime_error if that takes too long, and std::system_error with the errno if the connection
// breaks.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

/// Returns the port in `address`, which is the number after the last colon.
inline std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

class Client {
 public:
  /// Connects. If `buffer` is not 0, sets the size of the kernel's buffers at this end (SO_RCVBUF
  /// and SO_SNDBUF).
  explicit Client(std::uint16_t port, const char* host = "127.0.0.1", int buffer = 0);
  Client(Client&& other) noexcept;
  Client(const Client&) = delete;
  ~Client();

  /// Returns the port of this end.
  std::uint16_t port() const;

  void send(std::string_view bytes);
  /// Sends a byte as urgent data (MSG_OOB). A read at the other end stops in front of it.
  void send_urgent(char byte);
  void shut_down_sending();

  /// Returns exactly `size` bytes, or fewer if the input ends first.
  std::string receive(std::size_t size);
  /// Returns everything up to end-of-file.
  std::string receive_all();
  /// Sends `bytes` and reads at the same time, then half-closes. Returns everything up to
  /// end-of-file.
  std::string exchange(std::string_view bytes);
  /// Sends `bytes`. Returns whether the same bytes come back.
  bool echoes(std::string_view bytes);
  /// Waits until the kernel of the other end has everything that was sent. On a machine with
  /// several processors that can take longer than the call that sends (FreeBSD, also on loopback).
  void wait_until_arrived() const;
  /// Returns whether bytes, end-of-file or a reset arrive within `time`.
  bool hears_within(std::chrono::milliseconds time) const;
  /// Discards input until the connection ends. Returns "end-of-file", "reset", or the text of
  /// another error.
  std::string how_it_ends();

  void close();
  /// Ends the connection with a reset, even if data are still queued.
  void reset();

 protected:
  bool ready_within(short events, std::chrono::milliseconds time) const;
  void wait_for(short events) const;
  [[noreturn]] void fail_to(const char* call) const;
  /// Sends as much of `bytes` as the kernel takes, and removes that from `bytes`.
  void send_some(std::string_view& bytes);
  /// Appends at most `size` bytes of the input to `received`, without waiting. Returns false at the
  /// end of input.
  bool receive_some(std::string& received, std::size_t size);

  int descriptor_;
  std::string name_;  // in the transcript
};

/// Waits until the port refuses connections, which shows that the server has handled a signal to
/// stop.
void wait_until_refused(std::uint16_t port);

/// A client that does not read. It sends lines until it is stuck: all buffers are full, and the
/// server waits for room to send.
class StuckClient : public Client {
 public:
  /// Sends until the server has served another client several times, and has taken nothing from
  /// this one. A time without progress would prove less: on a slow machine the server may not have
  /// run in that time.
  explicit StuckClient(std::uint16_t port);
  /// Sends until the connection has taken nothing for the time `settle`. This is for a server that
  /// serves nobody else meanwhile.
  StuckClient(std::uint16_t port, std::chrono::milliseconds settle);

  /// Returns how many bytes of its lines it has sent.
  std::size_t sent() const { return sent_; }
  /// Returns how many of them have certainly arrived. The others may still be at this end.
  std::size_t arrived() const;
  /// Returns whether the lines that it has sent begin with `bytes`.
  bool has_sent(std::string_view bytes) const;
  static constexpr std::size_t line_size = 1024;

 private:
  /// Sends as much as the kernel takes. Returns whether that was anything.
  bool send_what_fits();

  std::size_t sent_ = 0;
};
