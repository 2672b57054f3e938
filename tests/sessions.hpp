// Random clients for fault_test and soak. Many run at a time. Each compares its echo with the
// model.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

class Sessions {
 public:
  /// The clients use the server on `port` of 127.0.0.1. The same seed makes the same clients.
  Sessions(std::uint16_t port, std::uint64_t seed, std::size_t at_once);
  ~Sessions();

  /// Starts new sessions in place of those that are over, up to `total` in all. Then does one step
  /// of each session, which sends and reads some bytes, or ends. Returns whether any are left.
  /// Throws std::runtime_error if an echo differs from the model.
  bool step(std::uint64_t total);

  std::uint64_t started() const { return started_; }
  /// Returns how many clients the server reset.
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
