// Connection: one client, from Socket::accept to close.
//
//   echoing --end of input (half-close)--> at_end --all sent--> ended
//   echoing --empty line, or a stop--> closing --all sent, shut down sending--> lingering
//   lingering --the client closes--> ended
//
// It waits either for input or for room to send. While bytes are unsent it does not read. This is
// back-pressure: the kernel's buffers fill, the client cannot send more, and what we keep is
// bounded. Any error leads to `ended`.
//
// Its destructor resets the connection (SO_LINGER, see Socket::accept), unless everything that the
// client sent, up to an empty line, was echoed. So a client can always tell a complete echo from a
// truncated one.
#pragma once

#include <sys/types.h>
#include <sys/event.h>

#include <string>

#include "echod/line_echo.hpp"
#include "echod/socket.hpp"

namespace echod {
/// What a step did, in bytes. If the socket was not ready, nothing is moved. That is not an error.
struct Moved {
  std::size_t received = 0;
  std::size_t sent = 0;
  // The errno that ended the connection (ENOMEM: no memory for bytes that must be kept).
  int error = 0;
  [[nodiscard]] bool anything() const noexcept { return received + sent > 0; }
};

class Connection {
 public:
  enum class State : char { echoing, at_end, closing, lingering, ended };
  Connection(Socket socket, LineEcho echo) noexcept : socket_(std::move(socket)), echo_(echo) {}

  /// Writes once if bytes are unsent. Otherwise reads once, and writes what can be sent of it.
  /// `buffer` is working space, larger than the longest line; connections can share one. Like stop
  /// and expire, only before it has ended.
  Moved step(std::span<char> buffer) noexcept;
  /// The server stops: does a step, and ends the connection if nothing moved. Otherwise more steps
  /// serve it, until a read returns less than it asked for. Then the bytes of an unfinished line
  /// are sent, too, and it closes.
  Moved stop(std::span<char> buffer) noexcept;
  /// Its time is up: does a last step, unless it lingers. If nothing moved, ends it, orderly if no
  /// bytes are kept.
  Moved expire(std::span<char> buffer) noexcept;
  void end() noexcept { state_ = State::ended; }
  [[nodiscard]] bool ended() const noexcept { return state_ == State::ended; }

  /// EVFILT_WRITE while bytes are unsent, otherwise EVFILT_READ.
  [[nodiscard]] short waits_for() const noexcept {
    return unsent_ > 0 ? EVFILT_WRITE : EVFILT_READ;
  }
  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] int descriptor() const noexcept { return socket_.descriptor(); }
  [[nodiscard]] std::size_t unsent() const noexcept { return unsent_; }
  /// How many bytes of an unfinished line are kept.
  [[nodiscard]] std::size_t held() const noexcept { return kept_.size() - unsent_; }

 private:
  void receive(std::span<char> buffer, Moved& moved);
  void send_kept(Moved& moved) noexcept;
  void discard(std::span<char> buffer, Moved& moved) noexcept;
  std::size_t write(std::string_view bytes, Moved& moved) noexcept;
  void all_sent() noexcept;

  Socket socket_;
  LineEcho echo_;
  State state_ = State::echoing;
  bool stopping_ = false;
  std::size_t unsent_ = 0;  // bytes at the front of kept_
  std::string kept_;        // what can be sent, then what is held
};
}  // namespace echod
