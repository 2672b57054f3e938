// LineEcho: the protocol. It decides how much of the input goes back, and when to close. It makes
// no system calls and stores no bytes.
//
// Complete lines go back. An incomplete line waits for its newline, or passes through as it arrives
// if it is too long to be held. A line that is empty, or white space only, closes the connection.
#pragma once

#include <cassert>
#include <cstddef>
#include <string_view>

namespace echod {
class LineEcho {
 public:
  /// No more than this is ever held of a line, in bytes.
  static constexpr std::size_t most_held = 65536;

  /// `max_line`: in bytes, with the line ending, at most `most_held`. A longer line is not held,
  /// and never counts as empty.
  explicit LineEcho(std::size_t max_line = most_held) noexcept : max_line_(max_line) {
    assert(max_line <= most_held);
  }

  struct Reply {
    /// How many bytes of the input, from its front, go back.
    std::size_t echo;
    /// Whether the connection closes after them. Then the rest of the input is discarded.
    bool close;
  };

  /// Says what to do with `input`: all that the last call left over, and behind it what is new.
  /// What it leaves over, less than `max_line`, has to come again. After `close` it must not be
  /// called. If no more input will come, the caller sends what is left over.
  [[nodiscard]] Reply feed(std::string_view input) noexcept;

 private:
  std::size_t max_line_;
  bool passing_ = false;  // the input continues a line that was too long to be held
};
}  // namespace echod
