// The contract of the echo, [E1] to [E4], in its plainest words: to compare the program with.
#pragma once

#include <string>
#include <string_view>

/// What a client that sends `input` and then half-closes gets back, however its bytes were split.
inline std::string echo_of(std::string_view input, std::size_t max_line = 65536) {
  std::string output;
  while (!input.empty()) {
    const std::size_t newline = input.find('\n');
    const std::string_view line = input.substr(0, newline == std::string_view::npos ? newline : newline + 1);
    const bool blank = line.find_first_not_of(" \t\v\f\r\n") == std::string_view::npos;
    if (newline != std::string_view::npos && blank && line.size() <= max_line) break;
    output += line;
    input.remove_prefix(line.size());
  }
  return output;
}
