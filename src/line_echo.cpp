#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {
namespace {
/// ASCII white space, independent of the locale: '\t', '\n', '\v', '\f' and '\r' are consecutive.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
}  // namespace

/// One reply for all lines that are complete, so the caller can send them with one write(2). An
/// unfinished line is searched for its newline again whenever a piece of it arrives. That is plain,
/// and bounded: at worst a line of 64 KiB that comes byte by byte costs some 10 us for each byte.
LineEcho::Reply LineEcho::feed(std::string_view input) noexcept {
  std::size_t done = 0;
  for (;;) {
    const std::size_t newline = input.find('\n', done);
    if (newline == std::string_view::npos) break;
    const std::string_view line = input.substr(done, newline + 1 - done);
    const bool may_be_empty = !passing_ && line.size() <= max_line_;
    if (may_be_empty && std::all_of(line.begin(), line.end(), is_white))
      return {input.substr(0, done), done, true};
    passing_ = false;
    done = newline + 1;
  }
  if (input.size() - done >= max_line_) passing_ = true;
  if (passing_) done = input.size();
  return {input.substr(0, done), done, false};
}

LineEcho::Reply LineEcho::finish(std::string_view held) noexcept {
  return {held, held.size(), true};
}
}  // namespace echod
