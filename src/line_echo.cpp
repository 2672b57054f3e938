#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {
namespace {
/// ASCII white space, independent of the locale: '\t', '\n', '\v', '\f' and '\r' are consecutive.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
}  // namespace

/// One answer for all lines that are complete, so the caller can send them with one write(2). An
/// unfinished line is searched for its newline again whenever a piece of it arrives. That is plain,
/// and bounded: at worst a line of 64 KiB that comes byte by byte costs some 10 us for each byte.
LineEcho::Reply LineEcho::feed(std::string_view input) noexcept {
  std::size_t complete = 0;
  for (;;) {
    const std::size_t newline = input.find('\n', complete);
    if (newline == std::string_view::npos) break;
    const std::string_view line = input.substr(complete, newline + 1 - complete);
    const bool may_be_empty = !passing_ && line.size() <= max_line_;
    if (may_be_empty && std::all_of(line.begin(), line.end(), is_white)) return {complete, true};
    passing_ = false;
    complete = newline + 1;
  }
  if (input.size() - complete >= max_line_) passing_ = true;
  return {passing_ ? input.size() : complete, false};
}
}  // namespace echod
