// Server: the listening socket, the clients and the signals. It decides which filter to wait for,
// and when to close.
//
// The next deadline is the time-out of kevent(2). EVFILT_TIMER would cost a system call per change,
// and FreeBSD has only 4,096 timers for the whole system (sysctl kern.kq_calloutmax).
//
// Which events can be stale? None of a client: it waits for one filter, so a batch holds at most
// one event of it, and nothing is closed inside a batch. But the listener's event can follow a
// signal to stop in the same batch. Therefore the signal is only noted, and the listener is closed
// after the batch.
#pragma once

#include <algorithm>
#include <array>

#include "echod/clients.hpp"
#include "echod/event_loop.hpp"

namespace echod {
struct Limits {
  /// How long a client may take to close after an empty line; and after a signal to stop, how long
  /// all of them have.
  std::chrono::milliseconds linger = std::chrono::seconds(5);
  /// How long a connection may receive and send nothing. Absent: there is no limit.
  std::optional<std::chrono::milliseconds> idle = {};
  /// How long after the first signal to stop another one counts as its duplicate.
  std::chrono::milliseconds duplicate = std::chrono::seconds(1);
};

class Server final : public EventLoop::Handler {
 public:
  /// Serves the clients of `listener`, each with a copy of `echo`, while `loop` runs with this
  /// handler. SIGINT, SIGTERM and SIGHUP (unless it is ignored) stop it. SIGUSR1 and SIGINFO print
  /// a status line. All stay ignored afterwards. SIGPIPE must be ignored. `loop` must outlive it.
  /// Throws std::system_error if the kqueue refuses a filter, or no client could be served.
  Server(EventLoop& loop, Socket listener, LineEcho echo, Limits limits);
  void on_event(const struct kevent& event) override;
  std::optional<Clients::Time> after_batch() override;

 private:
  using Step = Moved (Connection::*)(std::span<char>) noexcept;
  void on_signal(int number);
  void accept_clients();
  bool admit(Socket socket);
  void pause(int reason);
  void resume();
  void serve(Connection& client, Step step);
  void stop_listening();
  void close_due_clients();
  [[nodiscard]] Clients::Time next_deadline() const {
    return std::min({clients_.first_time(), retry_at_, stop_by_});
  }
  [[nodiscard]] bool stopping() const noexcept { return stop_by_ != Clients::never; }
  [[nodiscard]] Clients::Time idle_time() const {
    return limits_.idle ? EventLoop::Clock::now() + *limits_.idle : Clients::never;
  }
  /// At a stop, such a client has a step in each batch until its input is found empty.
  [[nodiscard]] bool drains(const Connection& client) const noexcept {
    return stopping() && client.state() == Connection::State::echoing &&
           client.waits_for() == EVFILT_READ;
  }
  [[nodiscard]] bool paused() const noexcept { return retry_at_ != Clients::never; }
  EventLoop& loop_;
  Socket listener_;
  const LineEcho echo_;
  const Limits limits_;
  Clients clients_;
  // All connections share it: they do one step at a time.
  std::array<char, std::size_t{112} * 1024> buffer_;
  // The errno, if a client lacked memory or a knote.
  int shortage_ = 0;
  Clients::Time retry_at_ = Clients::never;  // when a pause of the listener ends
  Clients::Time say_at_ = Clients::at_once;  // when to say again that it pauses
  Clients::Time stop_by_ = Clients::never;   // when to cut off the remaining clients
  std::uint64_t accepted_ = 0;
  std::uint64_t echoed_ = 0;  // bytes
};
}  // namespace echod
