// Server: the listening socket, the connections, and the signals that stop it.
//
// The connections are kept in two lists ordered by time, oldest first: those that linger by when they began to, the
// others by their last progress (if there is an idle limit: whoever makes progress moves to the end). So the next
// deadline is always that of a front, and one timer serves all (FreeBSD has 4,096 of them for the whole system, sysctl
// kern.kq_calloutmax). A connection that ended moves to another list, which is emptied after the batch.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>

#include "echod/connection.hpp"
#include "echod/event_loop.hpp"
#include "echod/socket.hpp"

namespace echod {

class Server final : public EventHandler, public Connection::Owner {
 public:
  using Clock = std::chrono::steady_clock;

  struct Spans {
    /// How long a connection stays open after an empty line, once all its echo is sent, for the client to close it; and
    /// how long all of them have after a signal to stop. (Nothing to do with SO_LINGER, which we do not use.)
    std::chrono::milliseconds linger = std::chrono::seconds(5);
    /// How long a connection may go without a byte received or sent, until it lingers; 0: for ever.
    std::chrono::milliseconds idle = std::chrono::seconds(0);
  };

  /// Serves whoever connects to `listener`, from the loop's next batch on, and until SIGINT or SIGTERM. It takes these
  /// signals over, and SIGUSR1 and SIGINFO, upon which it reports to stderr. SIGPIPE must be ignored. The loop must
  /// outlive the Server, and not run after it is gone. Throws std::system_error.
  Server(EventLoop& loop, Socket listener, Spans spans);

  /// To be called after every batch of the loop: destroys the connections that ended in it and sets the timer. Returns
  /// whether to go on; false once a signal came and the last connection is gone.
  bool after_batch();

 private:
  using Connections = std::list<Connection>;

  void on_event(const struct kevent& event) override;
  void after_event(Connection& connection, bool progress) override;

  void accept_connections();
  void admit(Socket socket);
  void pause();
  void resume();
  void stop(const struct kevent& signal);
  void report() const;
  void expire(Clock::time_point now);
  void end(Connection& connection, const char* reason);
  Clock::time_point next_deadline() const;
  void set_timer(Clock::time_point due);
  static void move_to_end(Connection& connection, Connections& to);

  EventLoop& loop_;
  Socket listener_;
  const Spans spans_;

  Connections serving_;    // by the time of their last progress, if there is a limit to it
  Connections lingering_;  // by the time their sending side was shut down
  Connections ended_;      // to be destroyed when the batch is over

  std::uint64_t accepted_ = 0;
  std::uint64_t echoed_ = 0;  // bytes, on connections that are gone

  static constexpr Clock::time_point never = Clock::time_point::max();
  Clock::time_point timer_due_ = never;  // when the timer fires
  Clock::time_point retry_at_ = never;   // when to accept again, after a shortage
  Clock::time_point stop_by_ = never;    // when to cut off whoever is left, after a signal
};

/// Raises the limit of open descriptors, the soft one, as far as an unprivileged process may. setrlimit(2)
void raise_descriptor_limit() noexcept;

/// Opens /dev/null for whichever of the descriptors 0 to 2 is closed: else one of them would be a client's, and get
/// what is meant for standard error.
void occupy_standard_descriptors() noexcept;

/// FreeBSD: from now on the process may use what it has open, accept, and nothing else; no name is resolved and no file
/// opened any more. Elsewhere, and on a kernel without capsicum(4), it does nothing. Throws std::system_error.
void enter_capability_mode();

}  // namespace echod
