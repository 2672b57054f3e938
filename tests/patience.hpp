// How long a test waits for something that must happen. Only a failing test waits that long.
#pragma once

#include <chrono>
#include <cstdlib>

/// 60 seconds, or the number of seconds in the environment variable ECHOD_PATIENCE.
inline const std::chrono::milliseconds patience = [] {
  const char* const given = std::getenv("ECHOD_PATIENCE");
  return std::chrono::seconds(given != nullptr ? std::atoi(given) : 60);
}();
