// Connection: one client, from Socket::accept to close. It moves bytes between the socket and the
// protocol, and does not know what a line is.
//
//   echoing   --end of input (half-close)------------> at_end
//   at_end    --all sent-----------------------------> ended
//   echoing   --the protocol closes, or a stop-------> closing
//   closing   --all sent; shuts down its sending side> lingering
//   lingering --the client closes, its time is up,
//               or a stop finds it silent------------> ended
//
// Any error leads to `ended`, and so does the idle limit.
//
// It waits either for input or for room to send. While output is unsent it does not read. This is
// back-pressure: the kernel's buffers fill, the client cannot send more, and what is kept here is
// bounded.
//
// Its destructor resets the connection (SO_LINGER, see Socket::accept), unless it has come to an
// orderly end: no more input counts, and all answers are sent. So a client can tell a complete
// answer from a truncated one.
#pragma once

#include <sys/types.h>
#include <sys/event.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "echod/line_echo.hpp"
#include "echod/socket.hpp"

namespace echod {
class Connection {
 public:
  enum class State : char { echoing, at_end, closing, lingering, ended };
  /// What went through the socket, in bytes.
  struct Moved {
    std::size_t received = 0;
    std::size_t sent = 0;
    [[nodiscard]] bool anything() const noexcept { return received + sent > 0; }
  };

  explicit Connection(Socket socket, LineEcho protocol = LineEcho()) noexcept
      : socket_(std::move(socket)), protocol_(protocol) {}

  /// Does one step, which is at most one read and the write that answers it, or one write of what
  /// is unsent. If the socket is not ready, nothing moves, and that is no error. `buffer` is
  /// working space, larger than what the protocol may leave over; connections can share one. Adds
  /// to `moved`, also if it throws: std::system_error if the connection is broken, std::bad_alloc
  /// if there is no memory for what must be kept. After an exception the caller must call fail().
  /// Must not be called when it has ended.
  void step(std::span<char> buffer, Moved& moved);

  /// Returns whether all output is sent, and no input is waiting. Costs a system call.
  [[nodiscard]] bool has_nothing_to_do() const noexcept;

  /// Treats the input that has come as all there is, because the server stops: sends what is held,
  /// and shuts down. `moved` is that of the step before, to which it adds. If nothing moved in that
  /// step, and nothing is sent now, the connection ends at once. Otherwise it goes on as after an
  /// empty line: when all is sent, it lingers until the client closes. Must be called only after a
  /// step, if has_nothing_to_do(); again, if it lingers. Throws like step().
  void finish(Moved& moved);

  /// Ends it because its time is up: orderly if nothing is held or unsent, otherwise with a reset.
  void expire() noexcept;

  /// Ends it because of an error: with a reset, unless end-of-file was sent before.
  void fail() noexcept {
    orderly_ = false;
    state_ = State::ended;
  }
  /// Returns whether its client sees end-of-file, and no error came after that. For the trace.
  [[nodiscard]] bool ends_orderly() const noexcept { return orderly_; }
  [[nodiscard]] bool ended() const noexcept { return state_ == State::ended; }

  /// The filter whose event it needs: EVFILT_WRITE while output is unsent, otherwise EVFILT_READ.
  [[nodiscard]] short waits_for() const noexcept {
    return output_.empty() ? EVFILT_READ : EVFILT_WRITE;
  }
  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] int descriptor() const noexcept { return socket_.descriptor(); }
  /// How many bytes of an incomplete line wait for the rest.
  [[nodiscard]] std::size_t held() const noexcept { return input_.size(); }
  /// How many bytes of output the kernel has not taken yet.
  [[nodiscard]] std::size_t unsent() const noexcept { return output_.size(); }

 private:
  void receive(std::span<char> buffer, Moved& moved);
  void send(std::string_view bytes, Moved& moved);
  void send_held(State next, Moved& moved);
  void send_unsent(Moved& moved);
  void discard(std::span<char> buffer, Moved& moved);
  void enter_next_state() noexcept;
  void allow_orderly_end() noexcept;

  Socket socket_;
  LineEcho protocol_;
  State state_ = State::echoing;
  bool orderly_ = false;
  std::string input_;   // held: an incomplete line
  std::string output_;  // unsent: the kernel has not taken it yet
};
}  // namespace echod
