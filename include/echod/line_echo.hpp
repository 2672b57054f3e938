// LineEcho: decides which bytes are sent back and when a connection closes. No system calls.
// Complete lines are sent back. An incomplete line waits for its newline, or passes through as it
// arrives if it is too long to be held. A line that is empty, or white space only, closes the
// connection.
#pragma once

#include <cstddef>
#include <string_view>

namespace echod {
class LineEcho {
 public:
  /// `max_line`: in bytes, with the line ending. A longer line is not held, and never counts as
  /// empty.
  explicit LineEcho(std::size_t max_line = 65536) noexcept : max_line_(max_line) {}

  struct Result {
    std::size_t ready;  // how many bytes, from the front of the input, to send
    bool close;         // whether an empty line follows them
  };

  /// `input`: the bytes that were not ready before, then the new ones. The caller holds what is not
  /// ready now, less than `max_line` bytes, and puts it in front of the next input. After `close`,
  /// feed() must not be called again.
  [[nodiscard]] Result feed(std::string_view input) noexcept;

 private:
  std::size_t max_line_;
  bool passing_ = false;  // the input continues a line that was too long to be held
};
}  // namespace echod
