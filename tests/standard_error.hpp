// Shows a test what its own process prints to standard error.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <string>

#include "catch.hpp"

/// Fills a pipe. Returns how many times 'x' that took.
inline std::size_t fill(int writing_end) {
  const std::string much(4096, 'x');
  std::size_t filled = 0;
  const int flags = ::fcntl(writing_end, F_GETFL);
  ::fcntl(writing_end, F_SETFL, flags | O_NONBLOCK);
  ssize_t count = ::write(writing_end, much.data(), much.size());
  while (count > 0) {
    filled += static_cast<std::size_t>(count);
    count = ::write(writing_end, much.data(), much.size());
  }
  ::fcntl(writing_end, F_SETFL, flags);
  return filled;
}

/// While this object exists, standard error is a pipe.
struct StandardError {
  int ends[2];
  int saved = ::dup(STDERR_FILENO);

  StandardError() {
    REQUIRE(::pipe(ends) == 0);
    ::dup2(ends[1], STDERR_FILENO);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
  ~StandardError() {
    ::dup2(saved, STDERR_FILENO);
    for (const int descriptor : {saved, ends[0], ends[1]}) ::close(descriptor);
  }
  /// Returns what is in the pipe.
  std::string read() const {
    std::string text(1 << 20, '\0');
    const ssize_t count = ::read(ends[0], text.data(), text.size());
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return text;
  }
};
