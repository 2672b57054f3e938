// Random clients, many at a time, each compared with the model: for fault_test and soak.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

class Sessions {
 public:
  /// Against the server on this port of 127.0.0.1. The same seed makes the same clients.
  Sessions(std::uint16_t port, std::uint64_t seed, std::size_t at_once);
  ~Sessions();

  /// Does one step of each session: sends a bit, reads a bit, or ends it. Starts new ones for those that are over, as
  /// long as fewer than `total` were started. Returns whether any are left. Throws std::runtime_error if a client got
  /// what the model does not say.
  bool step(std::uint64_t total);

  std::uint64_t started() const { return started_; }
  /// How many clients were reset. None of them has received an orderly end before its echo was complete.
  std::uint64_t resets() const { return resets_; }
  std::uint64_t bytes_echoed() const { return bytes_; }

 private:
  struct Session;

  std::uint16_t port_;
  std::mt19937_64 random_;
  std::size_t at_once_;
  std::uint64_t started_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t resets_ = 0;
  std::vector<std::unique_ptr<Session>> sessions_;
};
