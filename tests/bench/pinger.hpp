// Pinger: one connection at work, and how EventLoop and Socket look from the side of a client.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "echod/event_loop.hpp"
#include "echod/socket.hpp"

/// To a server, over the first of its addresses that answers; non-blocking from then on. Throws std::runtime_error
/// whose what() names the address and the reason.
echod::Socket connect_to(const std::string& address, const std::string& port);

class Pinger final : public echod::EventHandler {
 public:
  /// Sends `text` at once, waits until all of it has come back, and starts again, as long as the loop runs. How many
  /// microseconds each round took is added to `times`. Loop, text and times must outlive it. Throws, here or out of the
  /// loop, if the echo is another, or the connection ends.
  Pinger(echod::EventLoop& loop, echod::Socket socket, const std::string& text, std::vector<float>& times);

  void on_event(const struct kevent& event) override;

  unsigned long rounds() const { return rounds_; }
  /// How long the round that is not over yet has taken so far, in microseconds.
  float waiting() const;

 private:
  void start();
  void send();

  echod::EventLoop& loop_;
  echod::Socket socket_;
  const std::string& text_;
  std::vector<float>& times_;
  unsigned long rounds_ = 0;
  std::size_t sent_ = 0;
  std::size_t received_ = 0;
  bool waits_to_send_ = false;
  std::chrono::steady_clock::time_point started_;
};
