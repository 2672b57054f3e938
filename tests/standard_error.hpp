// Shows a test what its own process prints to standard error.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "catch.hpp"

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
