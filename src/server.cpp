#include "echod/server.hpp"

#include <cinttypes>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "echod/process.hpp"
#include "trace.hpp"

namespace echod {
namespace {
#ifdef SIGINFO
// SIGINFO is ^T at a terminal.
constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGINFO};
#else
constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
#endif
constexpr auto pause_time = std::chrono::seconds(1);

/// The errno behind an exception of EventLoop or of an allocation.
int reason_of(const std::exception& error) {
  const auto* const refused = dynamic_cast<const std::system_error*>(&error);
  return refused != nullptr ? refused->code().value() : ENOMEM;
}
}  // namespace

Server::Server(EventLoop& loop, Socket listener, LineEcho echo, Limits limits)
    : loop_(loop), listener_(std::move(listener)), echo_(echo), limits_(limits) {
  for (const int number : signals) {
    // EVFILT_SIGNAL only observes: the default action would still end the process. An ignored
    // signal is an event, too.
    const bool was_ignored = std::signal(number, SIG_IGN) == SIG_IGN;
    if (number == SIGHUP && was_ignored) continue;  // nohup(1)
    loop_.change(number, EVFILT_SIGNAL, EV_ADD);
  }
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_ADD);
  if (!listener_.descriptor_available())
    throw std::system_error(errno, std::generic_category(), "no client can be served");
}

void Server::on_event(const struct kevent& event) {
  const int ident = static_cast<int>(event.ident);
  // A filter is a number to compare, not a bit to test.
  if (event.filter == EVFILT_SIGNAL)
    on_signal(ident);
  else if (ident == listener_.descriptor())
    accept_clients();
  else if (Connection* const client = clients_.find(ident))
    serve(*client, &Connection::step);
  else
    throw std::logic_error("an event for descriptor " + std::to_string(ident) +
                           ", which is not a client's");
}

void Server::on_signal(int number) {
  const Clients::Time now = EventLoop::Clock::now();
  // timeout(1), npm and terminals send each signal twice.
  const bool duplicate = stopping() && now < stop_by_ - limits_.linger + limits_.duplicate;
  if (number != SIGINT && number != SIGTERM && number != SIGHUP)
    say("connections: %zu open, %" PRIu64 " accepted; %" PRIu64 " bytes echoed%s", clients_.size(),
        accepted_, echoed_, paused() ? "; accepting paused" : "");
  else if (!duplicate)
    stop_by_ = stopping() ? now : now + limits_.linger;
}

void Server::accept_clients() {
  for (int i = 0; i < 64; ++i) {  // then it is the turn of the clients that are connected
    // Ask first: macOS takes a connection from the queue before it looks for a descriptor, and
    // drops it without one. (If the table of the whole system is full, ENFILE, it still does:
    // F_DUPFD does not look there.)
    if (!listener_.descriptor_available()) {
      pause(errno);
      return;
    }
    Socket socket = listener_.accept();
    if (!socket && errno == EAGAIN) return;  // the queue is empty
    if (!socket && !Socket::is_clients_trouble(errno)) {
      pause(errno);
      return;
    }
    if (socket && !admit(std::move(socket))) return;
  }
}

/// Returns false if there is no memory or no knote for the client. Then the client is reset.
bool Server::admit(Socket socket) {
  const int descriptor = socket.descriptor();
  try {
    trace::action(descriptor, "accepted");
    loop_.change(descriptor, EVFILT_READ, EV_ADD);
    clients_.add(Connection(std::move(socket), echo_), idle_time());
  } catch (const std::exception& error) {
    shortage_ = reason_of(error);
    trace::action(descriptor, "reset, for lack of memory");
    return false;
  }
  ++accepted_;
  return true;
}

/// A client in the queue keeps the listener ready, so its filter has to be disabled. It is enabled
/// again when a connection ends; or after a second, because another process may have caused the
/// shortage.
void Server::pause(int reason) {
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_DISABLE);
  const Clients::Time now = EventLoop::Clock::now();
  retry_at_ = now + pause_time;
  if (now < say_at_) return;
  say_at_ = now + pause_time;
  say("accepting paused: %s", std::strerror(reason));
}

void Server::resume() {
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_ENABLE);
  retry_at_ = Clients::never;
}

/// Does a step of a client (Connection::step, stop or expire), and what follows from it.
void Server::serve(Connection& client, Step step) {
  const short waited_for = client.waits_for();
  const Connection::State before = client.state();
  const Moved moved = (client.*step)(buffer_);
  echoed_ += moved.sent;
  trace::step(client, moved);
  if (moved.error == ENOMEM || moved.error == ENOBUFS) shortage_ = moved.error;
  if (client.ended()) return clients_.close_at(client, Clients::at_once);
  try {
    if (client.waits_for() != waited_for) loop_.wait_for(client.descriptor(), client.waits_for());
  } catch (const std::exception& error) {  // without a knote this client ends, and no other
    shortage_ = reason_of(error);
    client.end();
    return clients_.close_at(client, Clients::at_once);
  }
  if (client.state() == Connection::State::lingering) {
    if (before != client.state())
      clients_.close_at(client, EventLoop::Clock::now() + limits_.linger);
  } else if (drains(client)) {
    // Its input may be empty, so no event may come.
    clients_.close_at(client, EventLoop::Clock::now());
  } else if (stopping() || (limits_.idle && moved.anything())) {
    clients_.close_at(client, idle_time());
  }
}

std::optional<Clients::Time> Server::after_batch() {
  if (stopping() && listener_) stop_listening();
  close_due_clients();
  if (stopping() && clients_.size() == 0) return std::nullopt;
  return next_deadline();
}

void Server::stop_listening() {
  trace::action(listener_.descriptor(), "stops listening");
  listener_ = Socket();
  retry_at_ = Clients::never;
  for (int descriptor = 0; descriptor < clients_.descriptor_limit(); ++descriptor)
    if (Connection* const client = clients_.find(descriptor); client != nullptr && !client->ended())
      serve(*client, &Connection::stop);
}

void Server::close_due_clients() {
  if (next_deadline() == Clients::never && shortage_ == 0) return;
  const Clients::Time now = EventLoop::Clock::now();
  while (clients_.size() > 0 && std::min(clients_.first_time(), stop_by_) <= now) {
    Connection& client = clients_.first();
    if (!client.ended() && now < stop_by_) {
      serve(client, drains(client) ? &Connection::step : &Connection::expire);
      continue;
    }
    trace::action(client.descriptor(), "closed");
    clients_.remove_first();
    if (paused()) resume();
  }
  if (retry_at_ <= now) resume();
  // This comes last, because closing the client that met the shortage would end the pause at once.
  if (const int reason = std::exchange(shortage_, 0); reason != 0 && listener_) pause(reason);
}
}  // namespace echod
