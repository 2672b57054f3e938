// LineEcho, a protocol: decides what to answer to input, and when to close. It makes no system
// calls, and does not know how its input arrives or how its replies leave: that is Connection.
//
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

  struct Reply {
    /// What to send. It may point into the input, so that an echo copies nothing. It is valid until
    /// the next call of any protocol object. A protocol that keeps it in storage of its own gives
    /// at most 65,536 bytes at a time, because a client that does not read makes Connection keep
    /// them. Each reply is a write(2), so one for many requests is cheaper than one for each.
    std::string_view bytes;
    /// How much of the input is done with. The rest comes again, in front of the next input. While
    /// a protocol has more to say, it must leave some input unused: it is asked again only while
    /// there is some. What is used counts as answered, also if the client's time is up. A reply
    /// without bytes should use all the input it can.
    std::size_t used;
    /// Whether the connection closes after these bytes. Then unused input is discarded.
    bool close;
  };

  /// Says what to answer to `input`, which is never empty: first what was not used before, then
  /// what is new. A reply without bytes that uses nothing and does not close means that more input
  /// is needed; to be asked again with the same input then changes nothing. After any other reply
  /// the caller asks again with what is left, unless nothing is. After `close`, neither function
  /// may be called.
  [[nodiscard]] Reply feed(std::string_view input) noexcept;

  /// Says what to answer when no more input will come (half-close, or a stop). `held` is what was
  /// not used, and can be empty. An echo sends all of it. The last call, so this is the last reply:
  /// its `used` and `close` do not matter.
  [[nodiscard]] Reply finish(std::string_view held) noexcept;

  /// When feed() needs more input, it has left less than this unused. Reads need a larger buffer.
  /// At worst a client costs this, a read buffer (112 KiB) and a reply (64 KiB) for a moment, so up
  /// to 80 KiB here keep it below 256 KiB.
  [[nodiscard]] std::size_t max_held() const noexcept { return max_line_; }

 private:
  std::size_t max_line_;
  bool passing_ = false;  // the input continues a line that was too long to be held
};
}  // namespace echod
