// Client: the other end of a connection, as tests want it. Every call waits for what it is for, and throws
// std::runtime_error when that has not come after a very long time, or the connection breaks.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

/// The port of an address in words: what stands behind the last colon.
inline std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

/// 1,024 bytes, to fill connections with.
inline const std::string long_line = std::string(1023, 'x') + "\n";

class Client {
 public:
  /// Connects; `receive_buffer` (bytes, SO_RCVBUF) makes a client that can be filled quickly.
  explicit Client(std::uint16_t port, const char* host = "127.0.0.1", int receive_buffer = 0);
  Client(Client&& other) noexcept;
  Client(const Client&) = delete;
  ~Client();

  void send(std::string_view bytes);
  /// Sends as long as the connection takes anything; returns how many bytes. `settle` is how long it must have refused.
  std::size_t send_until_stuck(std::string_view bytes, std::chrono::milliseconds settle);
  void shut_down_sending();

  /// Exactly `size` bytes, or fewer if the other end closes before.
  std::string receive(std::size_t size);
  /// Everything up to end-of-file.
  std::string receive_all();
  /// Sends all, reading at the same time, half-closes, and returns everything up to end-of-file.
  std::string exchange(std::string_view bytes);
  /// Whether something, bytes or an end, arrives within `time`.
  bool hears_within(std::chrono::milliseconds time);
  /// Waits until the connection is broken or at its end. Returns the errno, 0 for an orderly end.
  int wait_for_end();

  void close();
  /// Ends the connection with a reset, whatever is still queued in it.
  void reset();

 private:
  void wait_for(short events) const;

  int descriptor_;
};
