// Client: the other end of a connection. Every call waits for what it needs. It throws std::runtime_error if its
// patience ends, and std::system_error with the errno if the connection breaks.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

/// The port of an address as text: the number after the last colon.
inline std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

class Client {
 public:
  /// Connects. `buffer`, if not 0, is the size of the kernel's buffers at this end (SO_RCVBUF and SO_SNDBUF).
  explicit Client(std::uint16_t port, const char* host = "127.0.0.1", int buffer = 0);
  Client(Client&& other) noexcept;
  Client(const Client&) = delete;
  ~Client();

  void send(std::string_view bytes);
  void shut_down_sending();

  /// Exactly `size` bytes, or fewer if the other end closes before.
  std::string receive(std::size_t size);
  /// Everything up to end-of-file.
  std::string receive_all();
  /// Sends all, reading at the same time, half-closes, and returns everything up to end-of-file.
  std::string exchange(std::string_view bytes);
  /// Whether these bytes come back.
  bool echoes(std::string_view bytes);
  /// Whether something, bytes or an end, arrives within `time`.
  bool hears_within(std::chrono::milliseconds time) const;
  /// Whether the connection breaks. Reads nothing.
  bool breaks() const;
  /// Discards input until the connection ends. Returns "end-of-file", "reset", or the text of another error.
  std::string how_it_ends();

  void close();
  /// Ends the connection with a reset, whatever is still queued in it.
  void reset();

 protected:
  bool ready_within(short events, std::chrono::milliseconds time) const;
  void wait_for(short events) const;
  [[noreturn]] void fail_to(const char* call) const;
  /// Sends what the kernel takes of `bytes` and removes it from them.
  void send_some(std::string_view& bytes);
  /// Appends at most `size` bytes of what is there. Returns false at the end of input.
  bool receive_some(std::string& received, std::size_t size);

  int descriptor_;
  std::string name_;  // in the transcript
};

/// Waits until the server has seen a signal to stop: nobody listens on the port.
void wait_until_refused(std::uint16_t port);

/// A client that sends lines and does not read, until the connection has taken nothing for the time `settle`.
class StuckClient : public Client {
 public:
  explicit StuckClient(std::uint16_t port, std::chrono::milliseconds settle = std::chrono::milliseconds(500));
  /// Sends until stuck again.
  void fill(std::chrono::milliseconds settle);

  /// How many bytes of the lines it has sent.
  std::size_t sent() const { return sent_; }
  /// At least that many of them have arrived at the other end; the rest may still be in a buffer at this end.
  std::size_t arrived() const;
  /// Whether `bytes` are the first of those it has sent.
  bool has_sent(std::string_view bytes) const;
  static constexpr std::size_t line_size = 1024;

 private:
  std::size_t sent_ = 0;
};
