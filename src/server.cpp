#include "echod/server.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <system_error>
#include <utility>
#ifdef __FreeBSD__
#include <sys/capsicum.h>
#endif

#include "echod/trace.hpp"

namespace echod {

namespace {

constexpr auto retry_interval = std::chrono::seconds(1);
constexpr int accepts_per_event = 64;  // then the clients already here have their turn
constexpr std::uintptr_t timer_ident = 0;
constexpr auto long_time = std::chrono::hours(24);
constexpr std::array stop_signals{SIGINT, SIGTERM};
#ifdef SIGINFO
constexpr std::array report_signals{SIGUSR1, SIGINFO};  // SIGINFO: control-T at a terminal
#else
constexpr std::array report_signals{SIGUSR1};
#endif

}  // namespace

Server::Server(EventLoop& loop, Socket listener, Spans spans)
    : loop_(loop), listener_(std::move(listener)), spans_(spans) {
  // EVFILT_SIGNAL only looks on: the default action would still kill us. It sees ignored signals, too.
  const auto watch = [this](int number) {
    std::signal(number, SIG_IGN);
    loop_.change(static_cast<std::uintptr_t>(number), EVFILT_SIGNAL, EV_ADD, *this);
  };
  for (const int number : stop_signals) watch(number);
  for (const int number : report_signals) watch(number);
  set_timer(Clock::now() + long_time);
  loop_.change(static_cast<std::uintptr_t>(listener_.descriptor()), EVFILT_READ, EV_ADD, *this);
}

void Server::on_event(const struct kevent& event) {
  switch (event.filter) {  // filters are small negative numbers: `filter & EVFILT_READ` is true for all of them
    case EVFILT_READ: accept_connections(); break;
    case EVFILT_SIGNAL:
      if (std::find(stop_signals.begin(), stop_signals.end(), static_cast<int>(event.ident)) != stop_signals.end())
        stop(event);
      else
        report();
      break;
    case EVFILT_TIMER: timer_due_ = never; break;  // after_batch sees to it: progress in this batch still counts
    default: std::abort();
  }
}

void Server::accept_connections() {
  // No listener: a signal has closed it, earlier in this batch, and this event is stale.
  for (int i = 0; i < accepts_per_event && listener_; ++i) {
    if (!listener_.descriptor_available()) return pause();
    Socket socket = listener_.accept();
    if (socket) {
      admit(std::move(socket));
      continue;
    }
    switch (errno) {
      case EAGAIN: return;  // no more in the queue; or the one that was there has gone
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM: return pause();
      case EBADF:
      case EFAULT:
      case EINVAL:
      case ENOTSOCK: throw std::system_error(errno, std::generic_category(), "accept");
      default: break;  // EINTR; or ECONNABORTED, EPROTO, on Linux any error of the network: one client's trouble
    }
  }
}

void Server::admit(Socket socket) {
  if (trace::on) trace::action(socket.descriptor(), "accepted from %s", socket.peer_address().c_str());
  try {
    Connection& connection = serving_.emplace_back(loop_, *this, std::move(socket));
    connection.place = {&serving_, std::prev(serving_.end()), Clock::now()};
    ++accepted_;
  } catch (const std::exception& error) {  // no memory, or no room in the kqueue: this client's loss alone
    if (trace::on) std::fprintf(stderr, "  dropped it: %s\n", error.what());
  }
}

/// Out of descriptors or memory. The listener stays ready, so its filter goes to sleep until a connection ends; or for
/// a second, in case somebody else's shortage was the reason.
void Server::pause() {
  if (trace::on) trace::action(listener_.descriptor(), "paused: out of descriptors, or memory");
  loop_.change(static_cast<std::uintptr_t>(listener_.descriptor()), EVFILT_READ, EV_DISABLE, *this);
  retry_at_ = Clock::now() + retry_interval;
}

void Server::resume() {
  if (trace::on) trace::action(listener_.descriptor(), "resumed");
  loop_.change(static_cast<std::uintptr_t>(listener_.descriptor()), EVFILT_READ, EV_ENABLE, *this);
  retry_at_ = never;
}

void Server::stop(const struct kevent& signal) {
  // From now on a signal kills. One more that has been counted already shows in data, or, for the filters stay, comes
  // as another event: it is raised again, and kills.
  for (const int number : stop_signals) std::signal(number, SIG_DFL);
  if (stop_by_ != never || signal.data > 1) std::raise(static_cast<int>(signal.ident));  // data: how often it came

  if (trace::on) trace::action(listener_.descriptor(), "stops listening");
  listener_ = {};
  retry_at_ = never;
  stop_by_ = Clock::now() + spans_.linger;
  for (Connections* const connections : {&serving_, &lingering_}) {
    for (auto next = connections->begin(); next != connections->end();) {
      Connection& connection = *next++;
      connection.stop();
      if (connection.state() == Connection::State::ended) move_to_end(connection, ended_);
    }
  }
}

void Server::report() const {
  std::uint64_t echoed = echoed_;
  for (const Connections* const connections : {&serving_, &lingering_, &ended_})
    for (const Connection& connection : *connections) echoed += connection.echoed();
  std::fprintf(stderr, "echod: %zu connections open, %" PRIu64 " accepted, %" PRIu64 " bytes echoed\n",
               serving_.size() + lingering_.size(), accepted_, echoed);
}

void Server::after_event(Connection& connection, bool progress) {
  switch (connection.state()) {
    case Connection::State::ended: move_to_end(connection, ended_); break;
    case Connection::State::lingering:
      if (connection.place.list != &lingering_) move_to_end(connection, lingering_);
      break;
    default:
      if (progress && spans_.idle.count() > 0) move_to_end(connection, serving_);
  }
}

/// To the end of a list, as of now.
void Server::move_to_end(Connection& connection, Connections& to) {
  to.splice(to.end(), *connection.place.list, connection.place.position);
  connection.place.list = &to;
  connection.place.since = Clock::now();
}

void Server::end(Connection& connection, const char* reason) {
  connection.end(reason);
  move_to_end(connection, ended_);
}

void Server::expire(Clock::time_point now) {
  const auto expired = [now](const Connections& connections, std::chrono::milliseconds span) {
    return !connections.empty() && connections.front().place.since + span <= now;
  };
  while (expired(lingering_, spans_.linger)) end(lingering_.front(), "the linger is over");
  while (spans_.idle.count() > 0 && expired(serving_, spans_.idle)) end(serving_.front(), "idle for too long");
  while (!lingering_.empty() && stop_by_ <= now) end(lingering_.front(), "its time is up");
  while (!serving_.empty() && stop_by_ <= now) end(serving_.front(), "its time is up");
  if (retry_at_ <= now) resume();
}

bool Server::after_batch() {
  if (timer_due_ == never) {
    expire(Clock::now());
    set_timer(Clock::now() + long_time);
  }
  if (!ended_.empty()) {
    for (const Connection& connection : ended_) {
      echoed_ += connection.echoed();
      if (trace::on) trace::action(connection.socket().descriptor(), "closed");
    }
    ended_.clear();
    if (retry_at_ != never) resume();
  }
  const Clock::time_point due = next_deadline();
  if (due < timer_due_) set_timer(due);
  return stop_by_ == never || !serving_.empty() || !lingering_.empty();
}

Server::Clock::time_point Server::next_deadline() const {
  Clock::time_point due = std::min(retry_at_, stop_by_);
  if (!lingering_.empty()) due = std::min(due, lingering_.front().place.since + spans_.linger);
  if (!serving_.empty() && spans_.idle.count() > 0) due = std::min(due, serving_.front().place.since + spans_.idle);
  return due;
}

/// Adding a timer that is there already sets it anew. It is there from the start to the end, so that no deadline is
/// missed because the system has no timer left; when nothing is due it is set to a long time. It is set anew only for
/// something earlier, never put off or cancelled: progress puts deadlines off with every message, and costs no system
/// call. So it may fire for nothing, once, and is then set to what is due next.
void Server::set_timer(Clock::time_point due) {
  const auto span = std::chrono::ceil<std::chrono::milliseconds>(due - Clock::now());
  loop_.change(timer_ident, EVFILT_TIMER, EV_ADD, *this, std::max<std::int64_t>(span.count(), 1));
  timer_due_ = due;
}

void raise_descriptor_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  constexpr rlim_t open_max = 10240;  // of macOS, which does not take its own infinite hard limit for a soft one
  limit.rlim_cur = std::max(before, std::min(open_max, limit.rlim_max));
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void occupy_standard_descriptors() noexcept {
  int descriptor = 0;
  do descriptor = ::open("/dev/null", O_RDWR);
  while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor >= 0) ::close(descriptor);
}

void enter_capability_mode() {
#ifdef __FreeBSD__
  if (::cap_enter() < 0 && errno != ENOSYS) throw std::system_error(errno, std::generic_category(), "cap_enter");
#endif
}

}  // namespace echod
