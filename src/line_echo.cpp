#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {

namespace {

/// ASCII white space, without regard to the locale: '\t', '\n', '\v', '\f' and '\r' are neighbours.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

LineEcho::Output LineEcho::feed(std::string_view input) {
  std::size_t done = 0;  // input[0, done) goes out
  while (!closed_ && done < input.size()) {
    const std::string_view rest = input.substr(done);
    const std::size_t newline = rest.find('\n');
    const bool complete = newline != std::string_view::npos;
    const std::string_view line = complete ? rest.substr(0, newline + 1) : rest;
    const std::size_t length = line.size() + (done == 0 ? held_.size() : 0);

    blank_ = blank_ && std::all_of(line.begin(), line.end(), is_white);
    if (complete && blank_ && length <= max_line) {
      closed_ = true;
      break;
    }
    if (!complete && !passing_ && length < max_line) break;
    passing_ = !complete;
    blank_ = complete;  // true for a line that is about to begin, false for one that is too long
    done += line.size();
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
