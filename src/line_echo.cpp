#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {

namespace {

/// ASCII white space, without regard to the locale: '\t', '\n', '\v', '\f' and '\r' are neighbours.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

LineEcho::Output LineEcho::feed(std::string_view input) {
  std::size_t done = 0;             // input[0, done) goes out
  std::size_t held = held_.size();  // of the current line
  while (!closed_ && done < input.size()) {
    const std::size_t newline = input.find('\n', done);
    const bool complete = newline != std::string_view::npos;
    const std::size_t end = complete ? newline + 1 : input.size();
    const std::size_t length = held + end - done;

    blank_ = blank_ && std::all_of(input.data() + done, input.data() + end, is_white);
    if (complete && blank_ && length <= max_line) {
      closed_ = true;
      break;
    }
    if (!complete && !passing_ && length < max_line) break;
    passing_ = !complete;
    blank_ = complete;  // true for a line that is about to begin, false for one that is too long
    done = end;
    held = 0;
  }

  Output output;
  if (done > 0) output.held.swap(held_);
  output.fresh = input.substr(0, done);
  output.close = closed_;
  if (closed_)
    std::string().swap(held_);  // unlike clear(), this gives the memory back
  else
    held_.append(input.substr(done));
  return output;
}

std::string LineEcho::finish() {
  std::string last;
  last.swap(held_);
  return last;
}

}  // namespace echod
