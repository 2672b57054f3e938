// Connection: one client, from accept to close.
//
//   echoing -- end of input (half-close) --> at_end -- all sent --> ended
//   echoing -- an empty line --> closing -- all sent, shut down sending --> lingering -- the client closes --> ended
//
// When the server stops, one that is echoing goes to `closing` if it has output pending; all that have none are ended.
// An error of its socket ends a Connection in any state; so does its owner when its time is up.
//
// In each state a Connection waits either for input or for room to send, never both: one of its two filters is enabled.
// While output is pending that is EVFILT_WRITE, and nothing more is read. So a client that does not read is not read
// from either (back-pressure): its own send buffer fills, and we keep 112 KiB of its bytes at the most.
//
// It can meet a stale event, copied out before something earlier in the batch has ended it; on_event then does nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>

#include "echod/event_loop.hpp"
#include "echod/line_echo.hpp"
#include "echod/socket.hpp"

namespace echod {

class Connection final : public EventHandler {
 public:
  enum class State : std::uint8_t { echoing, at_end, closing, lingering, ended };

  /// Whoever keeps the connections.
  class Owner {
   public:
    /// Called after every event of `connection`, also the one that ends it, but not after that. `progress`: bytes were
    /// received or sent. The owner must not destroy the connection before the batch is over.
    virtual void after_event(Connection& connection, bool progress) = 0;

   protected:
    ~Owner() = default;
  };

  /// Starts to wait for input. Loop and owner must outlive the Connection. Throws std::system_error if the kqueue
  /// cannot take it.
  Connection(EventLoop& loop, Owner& owner, Socket socket);

  /// Reads once or writes once, whichever it waits for.
  void on_event(const struct kevent& event) override;

  /// The server stops: nothing more is echoed, and what is held of an unfinished line is dropped. With output pending,
  /// it goes on as after an empty line. Without, what the client has sent up to now is read, so that closing does not
  /// take back what was sent to it, and it is ended. Not to be called once it has ended.
  void stop();

  /// Ends it, as it is; `reason` is for the trace. The descriptor stays open, and its number taken, until the
  /// Connection is destroyed.
  void end(const char* reason) noexcept;

  State state() const noexcept { return state_; }
  const Socket& socket() const noexcept { return socket_; }
  /// Bytes sent back so far.
  std::uint64_t echoed() const noexcept { return echoed_; }

  /// The owner's notes: the list the connection is in, where, and since when.
  struct Place {
    std::list<Connection>* list = nullptr;
    std::list<Connection>::iterator position;
    std::chrono::steady_clock::time_point since;
  };
  Place place;

 private:
  bool step();
  bool receive();
  bool discard();
  bool send(std::string_view first, std::string_view second = {});
  void all_sent();
  void drain_input();
  void watch_for(short filter);

  EventLoop& loop_;
  Owner& owner_;
  Socket socket_;
  short watched_ = EVFILT_READ;
  State state_ = State::echoing;
  LineEcho echo_;
  std::string unsent_;
  std::uint64_t echoed_ = 0;
};

}  // namespace echod
