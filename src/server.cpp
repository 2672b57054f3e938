#include "echod/server.hpp"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstring>
#include <new>
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
constexpr int most_accepts = 64;  // then it is the turn of the clients that are connected

/// What the kernel is short of, other clients will lack, too. All other errors concern one client.
bool is_shortage(int error) {
  switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSPC: return true;  // Linux: no more watches, epoll(7)
    default: return false;
  }
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

void show_step(const Connection& client, Connection::Moved moved, const char* error = nullptr) {
  trace::line(client.descriptor(), "received %zu, sent %zu, unsent %zu, held %zu: %s%s%s",
              moved.received, moved.sent, client.unsent(), client.held(), name_of(client.state()),
              error != nullptr ? ": " : "", error != nullptr ? error : "");
}
}  // namespace

Server::Server(EventLoop& loop, Socket listener, TimeLimits limits)
    : loop_(loop), listener_(std::move(listener)), limits_(limits) {
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

  // First the knote, then SIG_IGN, so that no signal is lost: before the knote, one to stop ends
  // the process, and after it, it is an event, although it is ignored.
  loop_.change(number, EVFILT_SIGNAL, EV_ADD);
  ::sigaction(number, nullptr, &action);
  // EVFILT_SIGNAL only observes: the default action would still end the process. (On Linux, the
  // adapter has put its own handler there by now.)
  if (action.sa_handler == SIG_DFL) std::signal(number, SIG_IGN);
}

void Server::on_event(const struct kevent& event) {
  const int ident = static_cast<int>(event.ident);
  // A filter is a number to compare, not a bit to test.
  if (event.filter == EVFILT_SIGNAL) {
    on_signal(ident);
  } else if (ident == listener_.descriptor()) {
    accept_clients();
  } else if (Connection* const client = clients_.find(ident)) {
    if (!client->ended()) serve(*client);
  } else {
    // A kqueue has no such event, because close(2) deletes the knotes. On Linux, epoll reports a
    // closed socket while another process holds a copy of it.
    trace::line(ident, "nobody's");
  }
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
  // Otherwise it is a duplicate: timeout(1) sends two, and npm passes on what a terminal sent.
}

void Server::accept_clients() {
  int refused = 0;
  int reason = 0;
  for (int i = 0; i < most_accepts; ++i) {
    Socket client = listener_.accept();
    if (client) {
      admit(std::move(client));
      if (shortage_ != 0) return;  // the listener pauses after the batch
      continue;
    }
    reason = errno;
    if (reason == EAGAIN) return;  // the queue is empty
    trace::line(listener_.descriptor(), "accept: %s", std::strerror(reason));
    if (is_shortage(reason)) {
      pause(reason);
      return;
    }
    // This client has gone, or a firewall, a policy or a socket filter refuses it.
    if (reason != ECONNABORTED) ++refused;
  }
  // A client that is refused can stay in the queue, and would be refused again without end.
  if (refused == most_accepts) pause(reason);
}

/// A client that cannot be admitted is closed here, inside the batch, which resets it. It has no
/// events yet that could become stale, because its knote is newer than the batch.
void Server::admit(Socket socket) {
  const int descriptor = socket.descriptor();
  try {
    if (trace::on) trace::line(descriptor, "accepted from %s", socket.peer_address().c_str());
    loop_.change(descriptor, EVFILT_READ, EV_ADD);
    clients_.add(Connection(std::move(socket)), idle_deadline());
    ++accepted_;
  } catch (const std::exception& error) {
    note_if_shortage(error);
    trace::line(descriptor, "reset: %s", error.what());
  }
}

/// A client in the queue keeps the listener ready, so its filter has to be disabled. The pause ends
/// when a connection ends; or after a second, because another process may have caused the shortage.
void Server::pause(int reason) {
  const Clients::Time now = EventLoop::Clock::now();
  pause_deadline_ = now + pause_time;
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_DISABLE);
  if (now < next_message_) return;
  next_message_ = now + pause_time;
  say("accepting paused: %s", std::strerror(reason));
}

void Server::resume() {
  pause_deadline_ = Clients::never;
  loop_.change(listener_.descriptor(), EVFILT_READ, EV_ENABLE);
}

/// Does one step of a client, and what follows from it. Returns what moved.
Connection::Moved Server::serve(Connection& client) {
  const Connection::State before = client.state();
  const short filter = client.waits_for();
  Connection::Moved moved;
  try {
    client.step(buffer_, moved);
    if (stopping() && !client.ended() && client.has_nothing_to_do()) client.finish(moved);
    show_step(client, moved);
    if (!client.ended() && client.waits_for() != filter)
      loop_.switch_filter(client.descriptor(), client.waits_for());
  } catch (const std::exception& error) {
    client.fail();
    show_step(client, moved, error.what());
    note_if_shortage(error);
  }
  echoed_ += moved.sent;

  // A new deadline, if it has ended, begins to linger, or has moved something.
  const bool lingers = client.state() == Connection::State::lingering;
  if (client.ended())
    clients_.set_deadline(client, Clients::past);  // it is closed after the batch
  else if (lingers && before != Connection::State::lingering)
    clients_.set_deadline(client, EventLoop::Clock::now() + limits_.linger);
  else if (!lingers && limits_.idle && moved.anything())
    clients_.set_deadline(client, idle_deadline());
  return moved;
}

/// Remembers until the end of the batch that the listener has to pause, if the error of a client
/// was a shortage.
void Server::note_if_shortage(const std::exception& error) {
  int number = 0;
  if (const auto* const refused = dynamic_cast<const std::system_error*>(&error))
    number = refused->code().value();
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) number = ENOMEM;
  if (is_shortage(number)) shortage_ = number;
}

std::optional<Clients::Time> Server::before_wait() {
  if (first_signal_ && !stopping()) {
    stop_listening();
    serve_all();
  }
  serve_or_close_due_clients();
  // Not before the line above, which ends a pause when it has closed a client: the one that met the
  // shortage may be among those.
  const int reason = std::exchange(shortage_, 0);
  if (reason != 0 && !stopping()) pause(reason);
  if (stopping() && clients_.size() == 0) return std::nullopt;
  return wait_deadline();
}

void Server::stop_listening() {
  trace::line(listener_.descriptor(), "stops listening");
  listener_ = Socket();
  pause_deadline_ = Clients::never;
}

void Server::serve_all() {
  for (int descriptor = 0; descriptor < clients_.descriptors_end(); ++descriptor) {
    Connection* const client = clients_.find(descriptor);
    if (client != nullptr && !client->ended()) serve(*client);
  }
}

/// A client that has ended is closed. Any other gets a new deadline, from serve() if something has
/// moved, and otherwise from serve_or_expire(), so the loop ends.
void Server::serve_or_close_due_clients() {
  // Most batches end here, without a call of the clock: there is no deadline, so nothing is due.
  if (wait_deadline() == Clients::never) return;
  const Clients::Time now = EventLoop::Clock::now();
  const std::size_t before = clients_.size();
  while (clients_.next_deadline() <= now) {
    Connection& client = clients_.first();
    if (client.ended())
      close(client);
    else
      serve_or_expire(client);
  }
  if (stop_deadline_ <= now)
    while (clients_.size() > 0) close(clients_.first());  // a reset, unless it lingers

  const bool descriptor_is_free = clients_.size() < before;
  if (paused() && (descriptor_is_free || pause_deadline_ <= now)) resume();
}

/// The time of a client is up. It gets one more step, because a batch has 256 events, and one of
/// this client may still be in the kernel. If nothing moves, it ends. A client that lingers gets no
/// step: it could extend its time without end by sending.
void Server::serve_or_expire(Connection& client) {
  const bool lingers = client.state() == Connection::State::lingering;
  if (!lingers && serve(client).anything()) return;
  if (!client.ended()) client.expire();
  clients_.set_deadline(client, Clients::past);
}

void Server::close(Connection& client) {
  trace::line(client.descriptor(), client.ends_orderly() ? "closed" : "reset");
  clients_.remove(client);
}

Clients::Time Server::wait_deadline() const {
  return std::min({clients_.next_deadline(), pause_deadline_, stop_deadline_});
}

Clients::Time Server::idle_deadline() const {
  return limits_.idle ? EventLoop::Clock::now() + *limits_.idle : Clients::never;
}
}  // namespace echod
