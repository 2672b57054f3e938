// A simple model of the echo. Tests compare the program with it.
#pragma once

#include <string>
#include <string_view>

/// Returns what a client gets back if it sends `input` and then half-closes. How the bytes are
/// split does not matter.
inline std::string echo_of(std::string_view input, std::size_t max_line = 65536) {
  std::string output;
  while (!input.empty()) {
    const std::size_t newline = input.find('\n');
    const std::string_view line =
        input.substr(0, newline == std::string_view::npos ? newline : newline + 1);
    const bool blank = line.find_first_not_of(" \t\v\f\r\n") == std::string_view::npos;
    if (newline != std::string_view::npos && blank && line.size() <= max_line) break;
    output += line;
    input.remove_prefix(line.size());
  }
  return output;
}
