// Pinger: one busy connection. It uses EventLoop and Socket in a client.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "echod/event_loop.hpp"
#include "echod/socket.hpp"

/// Connects to the first address of the server that answers. Returns a non-blocking socket. Throws
/// std::runtime_error whose what() names the address and the reason.
echod::Socket connect_to(const std::string& address, const std::string& port);

class Pinger {
 public:
  /// Sends `text` at once, waits until all of it has come back, and starts again. Adds the
  /// microseconds of each round to `times`. Loop, text and times must outlive it. Throws, here and
  /// in on_event, if the echo differs or the connection ends.
  Pinger(echod::EventLoop& loop, echod::Socket socket, const std::string& text,
         std::vector<float>& times);

  void on_event(const struct kevent& event);

  int descriptor() const { return socket_.descriptor(); }
  unsigned long rounds() const { return rounds_; }
  void forget_rounds() { rounds_ = 0; }
  /// Returns how long the current round has taken so far, in microseconds.
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
