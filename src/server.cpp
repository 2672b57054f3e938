#include "echod/server.hpp"

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

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
// Then it is the turn of the clients that are connected: 64 accepts take about a millisecond.
constexpr int most_accepts = 64;

/// The errors that a client meets when the kernel is short of something. All others are its own.
bool is_shortage(int error) { return error == ENOMEM || error == ENOBUFS || error == ENOSPC; }

/// The errno behind an exception of EventLoop or of an allocation. EPROTO: of the protocol.
int errno_of(const std::exception& error) {
  const auto* const refused = dynamic_cast<const std::system_error*>(&error);
  if (refused != nullptr) return refused->code().value();
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? ENOMEM : EPROTO;
}

const char* name_of(Connection::State state) {
  switch (state) {
    case Connection::State::echoing: return "echoing";
    case Connection::State::at_end: return "at_end";
    case Connection::State::closing: return "closing";
    case Connection::State::lingering: return "lingering";
    default: return "ended";
  }
}

void show_step(const Connection& client, const StepResult& result) {
  trace::step({.descriptor = client.descriptor(),
               .received = result.received,
               .sent = result.sent,
               .unsent = client.unsent(),
               .held = client.held(),
               .state = name_of(client.state()),
               .error = result.error});
}
}  // namespace

Server::Server(EventLoop& loop, Socket listener, Protocol protocol, TimeLimits limits)
    : loop_(loop), listener_(std::move(listener)), protocol_(std::move(protocol)), limits_(limits) {
  if (protocol_.max_held() >= buffer_.size())
    throw std::invalid_argument("the protocol may hold " + std::to_string(protocol_.max_held()) +
                                " bytes, and the read buffer has room for " +
                                std::to_string(buffer_.size()));
  for (const int number : signals) watch_signal(number);
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_ADD);
  if (!listener_.descriptor_available())
    throw std::system_error(errno, std::generic_category(), "no client can be served");
}

void Server::watch_signal(int number) {
  struct sigaction action {};
  ::sigaction(number, nullptr, &action);
  // nohup(1) starts programs with SIGHUP ignored, and a shell without job control starts background
  // commands with SIGINT ignored. They want it to stay so. SIGTERM always stops the server.
  const bool stays_ignored = number == SIGHUP || number == SIGINT;
  if (stays_ignored && action.sa_handler == SIG_IGN) return;

  // First the knote, then SIG_IGN, so that no signal is lost: before the knote, a signal ends the
  // process, and after it, it is an event, although it is ignored.
  loop_.change(number, EVFILT_SIGNAL, EV_ADD);
  ::sigaction(number, nullptr, &action);
  // EVFILT_SIGNAL only observes: the default action would still end the process. (On Linux, the
  // adapter has put its own handler there by now.)
  if (action.sa_handler == SIG_DFL) std::signal(number, SIG_IGN);
}

void Server::on_event(const struct kevent& event) {
  const int ident = static_cast<int>(event.ident);
  // A filter is a number to compare, not a bit to test.
  if (event.filter == EVFILT_SIGNAL)
    on_signal(ident);
  else if (ident == listener_.descriptor())
    accept_clients();
  else if (Connection* const client = clients_.find(ident))
    serve(*client);
  else
    throw std::logic_error("an event for descriptor " + std::to_string(ident) +
                           ", which is not a client's");
}

void Server::on_signal(int number) {
  if (number != SIGINT && number != SIGTERM && number != SIGHUP) {
    say("connections: %zu open, %" PRIu64 " accepted; %" PRIu64 " bytes echoed%s", clients_.size(),
        accepted_, echoed_, paused() ? "; accepting paused" : "");
    return;
  }
  const Clients::Time now = EventLoop::Clock::now();
  if (!first_signal_) {
    first_signal_ = now;
    stop_deadline_ = now + limits_.stop;
  } else if (now >= *first_signal_ + limits_.duplicate) {
    stop_deadline_ = now;
  }
  // Otherwise it is a duplicate: timeout(1), npm and terminals send each signal twice.
}

void Server::accept_clients() {
  for (int i = 0; i < most_accepts; ++i) {
    Socket::Accepted next = listener_.accept();
    switch (next.outcome) {
      case Socket::Outcome::queue_empty: return;
      case Socket::Outcome::client_gone: break;
      case Socket::Outcome::unable: pause(next.error); return;
      case Socket::Outcome::accepted:
        admit(std::move(next.socket));
        if (shortage_ != 0) return;
        break;
    }
  }
}

/// A client for which there is no memory or no knote is reset.
void Server::admit(Socket socket) {
  const int descriptor = socket.descriptor();
  try {
    if (trace::on) trace::action(descriptor, "accepted from ", socket.peer_address().c_str());
    loop_.change(descriptor, EVFILT_READ, EV_ADD);
    clients_.add(Connection(std::move(socket), protocol_), idle_deadline());
    ++accepted_;
  } catch (const std::exception& error) {
    note_shortage(errno_of(error));
    trace::action(descriptor, "reset: ", std::strerror(errno_of(error)));
  }
}

/// If `error` is a shortage, remembers until the end of the batch that the listener has to pause.
void Server::note_shortage(int error) {
  if (is_shortage(error)) shortage_ = error;
}

/// A client in the queue keeps the listener ready, so its filter has to be disabled. The pause ends
/// when a connection ends; or after a second, because another process may have caused the shortage.
void Server::pause(int reason) {
  pause_deadline_ = EventLoop::Clock::now() + pause_time;
  if (switch_listener(EV_DISABLE)) notice("accepting paused", std::strerror(reason));
}

void Server::resume() {
  pause_deadline_ = Clients::never;
  if (!switch_listener(EV_ENABLE)) pause_deadline_ = EventLoop::Clock::now() + pause_time;
}

/// Returns whether the kernel did it. None is known that refuses. If one does, that must not end
/// the connections: the listener stays as it is until the next try, although the loop may spin.
bool Server::switch_listener(unsigned short flag) {
  try {
    loop_.change(listener_.descriptor(), EVFILT_READ, flag);
    return true;
  } catch (const std::exception& error) {
    notice("the listener", error.what());
    return false;
  }
}

/// Says what is wrong with the listener, at most once a second.
void Server::notice(const char* what, const char* reason) {
  const Clients::Time now = EventLoop::Clock::now();
  if (now < next_notice_) return;
  next_notice_ = now + pause_time;
  say("%s: %s", what, reason);
}

/// Does one step of a client, and what follows from it. If its time is up, this is its last step
/// unless something moves: a batch has 256 events, so one of this client may still be in the
/// kernel. A client that lingers gets no last step: it could extend its time without end by
/// sending.
void Server::serve(Connection& client, bool time_is_up) {
  const short filter = client.waits_for();
  const bool lingered = client.state() == Connection::State::lingering;
  StepResult result;
  if (!time_is_up || !lingered) result = client.step(buffer_);
  if (stopping() && !client.ended() && client.has_nothing_to_do()) client.finish(result);
  if (time_is_up && !client.ended() && !result.moved_anything()) client.expire();

  echoed_ += result.sent;
  show_step(client, result);
  note_shortage(result.error);
  try {
    if (!client.ended() && client.waits_for() != filter)
      loop_.switch_filter(client.descriptor(), filter, client.waits_for());
  } catch (const std::exception& error) {
    note_shortage(errno_of(error));
    client.end();  // without its filter, nobody would hear of it again
  }

  const bool lingers = client.state() == Connection::State::lingering;
  if (client.ended())
    clients_.set_deadline(client, Clients::past);  // it is closed after the batch
  else if (lingers && !lingered)
    clients_.set_deadline(client, EventLoop::Clock::now() + limits_.linger);
  else if (!lingers && limits_.idle && result.moved_anything())
    clients_.set_deadline(client, idle_deadline());
}

std::optional<Clients::Time> Server::before_wait() {
  if (first_signal_ && !stopping()) stop_listening();
  close_due_clients();
  if (stopping() && clients_.size() == 0) return std::nullopt;
  return next_deadline();
}

void Server::stop_listening() {
  trace::action(listener_.descriptor(), "stops listening");
  listener_ = Socket();
  pause_deadline_ = Clients::never;
  for (int descriptor = 0; descriptor < clients_.descriptors_end(); ++descriptor) {
    Connection* const client = clients_.find(descriptor);
    if (client != nullptr && !client->ended()) serve(*client);
  }
}

void Server::close_due_clients() {
  // Without a deadline nothing can be due: unless there is an idle limit, most batches end here,
  // without a call of the clock.
  if (next_deadline() == Clients::never && shortage_ == 0) return;
  const Clients::Time now = EventLoop::Clock::now();
  bool closed = false;
  while (std::min(clients_.next_deadline(), stop_deadline_) <= now && clients_.size() > 0) {
    Connection& client = clients_.first();
    if (!client.ended() && now < stop_deadline_) {
      serve(client, true);
      continue;
    }
    trace::action(client.descriptor(), "closed");
    clients_.remove_first();
    closed = true;
  }
  end_or_begin_pause(closed, now);
}

/// A client that was closed ends a pause, because a descriptor is free now. For a shortage that a
/// client met, the pause begins only here, after that: the client itself may just have been closed.
void Server::end_or_begin_pause(bool closed, Clients::Time now) {
  if (paused() && (closed || pause_deadline_ <= now)) resume();
  const int reason = std::exchange(shortage_, 0);
  if (reason != 0 && listener_) pause(reason);
}

Clients::Time Server::next_deadline() const {
  return std::min({clients_.next_deadline(), pause_deadline_, stop_deadline_});
}

Clients::Time Server::idle_deadline() const {
  return limits_.idle ? EventLoop::Clock::now() + *limits_.idle : Clients::never;
}
}  // namespace echod
