// How long a test waits for what must happen. Only a failing test waits that long.
#pragma once

#include <chrono>
#include <cstdlib>

/// 60 seconds, or as many as the environment variable ECHOD_PATIENCE says.
inline const std::chrono::milliseconds patience = [] {
  const char* const given = std::getenv("ECHOD_PATIENCE");
  return std::chrono::seconds(given != nullptr ? std::atoi(given) : 60);
}();
