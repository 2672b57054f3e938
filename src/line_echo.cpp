#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {
namespace {
/// ASCII white space, independent of the locale: '\t', '\n', '\v', '\f' and '\r' are consecutive.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
}  // namespace

LineEcho::Result LineEcho::feed(std::string_view input) noexcept {
  std::size_t ready = 0;
  for (;;) {
    const std::size_t newline = input.find('\n', ready);
    if (newline == std::string_view::npos) break;
    const std::string_view line = input.substr(ready, newline + 1 - ready);
    if (!passing_ && line.size() <= max_line_ && std::all_of(line.begin(), line.end(), is_white))
      return {ready, true};
    passing_ = false;
    ready = newline + 1;
  }
  if (input.size() - ready >= max_line_) passing_ = true;
  return {passing_ ? input.size() : ready, false};
}
}  // namespace echod
