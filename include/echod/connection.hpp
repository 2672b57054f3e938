// Connection: one client, from Socket::accept to close. It moves bytes between the socket and the
// protocol, and knows nothing about lines.
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
// Its destructor resets the connection (SO_LINGER, see Socket::accept), unless the protocol has
// answered everything that the client sent and all of that is sent. So a client can always tell a
// complete answer from a truncated one.
#pragma once

#include <sys/types.h>
#include <sys/event.h>

#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "echod/protocol.hpp"
#include "echod/socket.hpp"

namespace echod {
/// What a step did, in bytes. If the socket was not ready, nothing moved. That is not an error.
struct StepResult {
  std::size_t received = 0;
  std::size_t sent = 0;
  /// The errno that ended the connection, or 0. ENOMEM: no memory for what must be kept. EPROTO:
  /// the protocol threw something other than std::bad_alloc.
  int error = 0;
  [[nodiscard]] bool moved_anything() const noexcept { return received + sent > 0; }
};

class Connection {
 public:
  enum class State : char { echoing, at_end, closing, lingering, ended };
  static_assert(std::is_nothrow_move_constructible_v<Protocol>, "the constructor moves it");
  Connection(Socket socket, Protocol protocol) noexcept
      : socket_(std::move(socket)), protocol_(std::move(protocol)) {}

  /// Does one step: at most one read, and at most 256 KiB of output in 64 replies. Writes unsent
  /// output first, and reads only when there was none. While the protocol has more to say and the
  /// kernel takes it, the protocol is asked again. `buffer` is working space, larger than the
  /// protocol's max_held(); connections can share one. May be called until the connection has
  /// ended.
  StepResult step(std::span<char> buffer) noexcept;

  /// Returns whether all output is sent, and no input is waiting. Costs a system call.
  [[nodiscard]] bool has_nothing_to_do() const noexcept;

  /// Treats the input that has come as all there is, because the server stops: sends what the
  /// protocol still has to say, and closes. `result` is that of the step before, and what this call
  /// does is added to it. If not a byte moved in either, the connection ends at once. Otherwise it
  /// lingers, until the client closes. Must be called only if has_nothing_to_do(), before the
  /// connection has ended.
  void finish(StepResult& result) noexcept;

  /// Ends it because its time is up: orderly if nothing is held or unsent, otherwise with a reset.
  void expire() noexcept;

  /// Marks it as ended. The destructor closes it then: with a reset, unless it has earned an
  /// orderly end before.
  void end() noexcept { state_ = State::ended; }
  [[nodiscard]] bool ended() const noexcept { return state_ == State::ended; }

  /// The filter whose event it needs: EVFILT_WRITE while output is unsent, otherwise EVFILT_READ.
  [[nodiscard]] short waits_for() const noexcept {
    return output_.empty() ? EVFILT_READ : EVFILT_WRITE;
  }
  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] int descriptor() const noexcept { return socket_.descriptor(); }
  /// How many bytes of input the protocol has not used yet.
  [[nodiscard]] std::size_t held() const noexcept { return input_.size(); }
  /// How many bytes of output the kernel has not taken yet.
  [[nodiscard]] std::size_t unsent() const noexcept { return output_.size(); }

 private:
  void receive(std::span<char> buffer, StepResult& result);
  std::size_t answer(std::string_view input, StepResult& result);
  void answer_last(State next, StepResult& result);
  void send_or_keep(std::string_view bytes, StepResult& result);
  void send_unsent(StepResult& result) noexcept;
  void discard(std::span<char> buffer, StepResult& result) noexcept;
  std::size_t write(std::string_view bytes, StepResult& result) noexcept;
  void enter_next_state(const StepResult& result) noexcept;

  Socket socket_;
  Protocol protocol_;
  State state_ = State::echoing;
  std::string input_;   // held: received, but not used by the protocol
  std::string output_;  // unsent: said by the protocol, but not taken by the kernel
};
}  // namespace echod
