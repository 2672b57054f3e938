#include "echod/line_echo.hpp"

#include <algorithm>

namespace echod {

namespace {

/// ASCII white space, without regard to the locale: '\t', '\n', '\v', '\f' and '\r' are neighbours.
bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Passes over lines at the beginning of `text` that are certainly not empty. Returns the length of these lines, the
/// last newline included, or 0.
///
/// The newline that ends an empty line is the first byte of the input, or comes after white space or another newline.
/// So a block in which none comes after a byte up to ' ' has no end of an empty line in it, wherever its lines begin.
/// (Other control characters are in that range, too, and lines may end in white space, as in "\r\n": then feed() has to
/// look at each.) That takes no branch for a byte, and compilers make vector instructions of it.
std::size_t pass_over_lines(std::string_view text) {
  constexpr std::size_t block = 256;
  if (text.size() <= block) return 0;
  const std::size_t first = text.substr(0, block).find('\n');
  if (first == 0 || first == std::string_view::npos) return 0;  // perhaps empty; or long, and find() is faster
  std::size_t last = 0;
  for (; last + block < text.size(); last += block) {
    const char* const bytes = text.data() + last;
    unsigned char found = 0;
    for (std::size_t i = 0; i < block; ++i) {
      const unsigned char white = static_cast<unsigned char>(bytes[i]) <= ' ';
      const unsigned char newline = bytes[i + 1] == '\n';
      found |= white & newline;
    }
    if (found != 0) break;
  }
  return text.rfind('\n', last) + 1;  // if last is 0 there is none, and npos + 1 is 0
}

}  // namespace

LineEcho::Output LineEcho::feed(std::string_view input) {
  std::size_t done = closed_ ? 0 : pass_over_lines(input);  // input[0, done) goes out
  if (done > 0) {                                           // the current line, held or passing, ended in there
    passing_ = false;
    blank_ = true;
  }
  std::size_t held = done > 0 ? 0 : held_.size();  // how much of the current line is in held_
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
  if (done > 0 && !held_.empty()) output.held.swap(held_);
  output.fresh = input.substr(0, done);
  output.close = closed_;
  if (closed_)
    std::string().swap(held_);  // unlike clear(), this gives the memory back
  else if (done < input.size())
    held_.append(input.substr(done));
  return output;
}

std::string LineEcho::finish() {
  std::string last;
  last.swap(held_);
  return last;
}

}  // namespace echod
