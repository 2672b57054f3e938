// LineEcho: the rules of the echo, bytes in, bytes out. No system call, hence easy to test.
//
// Every complete line goes out as it came. An incomplete one is held until its end arrives, unless it gets longer
// than `max_line`: then it is passed on as it comes. An empty line, or one of white space only, closes. How the input
// was split into pieces never matters.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace echod {

class LineEcho {
 public:
  /// In bytes, line ending included: a longer line is not held to its end, and never counts as empty.
  static constexpr std::size_t max_line = 65536;

  /// What is to be sent: `held`, bytes of earlier inputs, then `fresh`, the beginning of the input just given.
  struct Output {
    std::string held;
    std::string_view fresh;
    bool close = false;  // an empty line came: send this, then close
  };

  /// Takes the next bytes of the client. `fresh` points into `input`. After `close`, everything is ignored.
  Output feed(std::string_view input);

  /// The input is at its end: returns the unterminated last line.
  std::string finish();

  /// The bytes held of an incomplete line: less than `max_line`. None held, no memory used.
  std::size_t held() const noexcept { return held_.size(); }

 private:
  std::string held_;      // of the current line
  bool passing_ = false;  // the current line is too long to be held
  bool blank_ = true;     // the current line is white space so far
  bool closed_ = false;
};

}  // namespace echod
