// Server: the handler of all events. It owns the listening socket and the clients, and decides
// which filter a client waits for, when the listener pauses, and when a connection is closed.
//
// The next deadline is the time-out of kevent(2). EVFILT_TIMER would cost one more change a step,
// and FreeBSD has only 4,096 timers for the whole system (sysctl kern.kq_calloutmax).
//
// Which events can be stale? The listener's: it can follow a signal to stop in the same batch.
// Therefore the signal is only noted, and the listener is closed after the batch. A client's
// cannot: it waits for one filter, so a batch holds at most one event of it. All the same, no
// client with events is closed inside a batch, and an event of one that has ended is ignored.
//
// A stop, in order: on_signal() notes the time. before_wait() closes the listener and serves each
// client once. From then on serve() finishes a client as soon as it has nothing to do: all output
// is sent, and no input is waiting. A client that still has something to do is served like before,
// by its events. The server ends with its last client, or at the deadline of the stop, when those
// who are left are closed: with a reset, unless they linger.
//
// What goes wrong with one client is a C++ exception, and ends only that client: in serve(), or in
// admit() if it is new. If the kernel was short of something, the listener pauses besides.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <vector>

#include "echod/clients.hpp"
#include "echod/event_loop.hpp"

namespace echod {
struct TimeLimits {
  /// How long a client may take to close after the server has shut down its sending side.
  std::chrono::milliseconds linger = std::chrono::seconds(5);
  /// How long after a signal to stop the remaining clients are closed.
  std::chrono::milliseconds stop = std::chrono::seconds(5);
  /// How long after the first signal to stop another one counts as its duplicate.
  std::chrono::milliseconds duplicate = std::chrono::seconds(1);
  /// How long a connection may receive and send nothing. Absent: there is no limit.
  std::optional<std::chrono::milliseconds> idle = {};
};

class Server final : public EventLoop::Handler {
 public:
  /// Serves the clients of `listener` while `loop` runs with this handler. SIGTERM stops it, and
  /// SIGINT and SIGHUP do, too, unless they are ignored. SIGUSR1 and SIGINFO print a status line.
  /// All stay ignored afterwards. SIGPIPE must be ignored. `loop` must outlive it. Throws
  /// std::system_error if the kqueue refuses a filter, or no client could be served.
  Server(EventLoop& loop, Socket listener, TimeLimits limits);
  void on_event(const struct kevent& event) override;
  std::optional<Clients::Time> before_wait() override;

 private:
  void watch_signal(int number);
  void on_signal(int number);
  void accept_clients();
  void admit(Socket socket);
  void pause(int reason);
  void resume();
  Connection::Moved serve(Connection& client);
  void note_if_shortage(const std::exception& error);
  void stop_listening();
  void serve_all();
  void serve_or_close_due_clients();
  void serve_or_expire(Connection& client);
  void close(Connection& client);
  [[nodiscard]] Clients::Time wait_deadline() const;
  [[nodiscard]] Clients::Time idle_deadline() const;
  // False until the batch that brought the signal has been handled.
  [[nodiscard]] bool stopping() const noexcept { return !listener_; }
  [[nodiscard]] bool paused() const noexcept { return pause_deadline_ != Clients::never; }

  EventLoop& loop_;
  Socket listener_;
  const TimeLimits limits_;
  Clients clients_;
  // All connections share it: they do one step at a time. Larger reads save calls when much is in
  // flight, and a client that does not read costs no more than this. Not an array: main's stack may
  // be small (ulimit -s).
  static constexpr std::size_t buffer_size = std::size_t{112} * 1024;
  static_assert(buffer_size > LineEcho::most_held, "a read behind what is held needs room");
  std::vector<char> buffer_ = std::vector<char>(buffer_size);
  int shortage_ = 0;  // the errno, if a client met a shortage in this batch
  Clients::Time pause_deadline_ = Clients::never;  // when a pause of the listener ends
  Clients::Time next_message_ = Clients::past;     // when to speak of a pause again
  std::optional<Clients::Time> first_signal_;      // when the first signal to stop came
  Clients::Time stop_deadline_ = Clients::never;   // when to close those who are left
  std::uint64_t accepted_ = 0;                     // connections
  std::uint64_t echoed_ = 0;                       // bytes
};
}  // namespace echod
