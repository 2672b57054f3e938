#include "echod/connection.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <span>
#include <utility>

#include "echod/trace.hpp"

namespace echod {

namespace {

// One thread, one buffer: it serves every connection, for nothing stays in it from one event to the next. The more a
// call moves, the less a byte costs. But its size also bounds what a client can have us keep. In memory that is 240 KiB
// at the most, for a moment: a held line, whose string may have grown to twice max_line, and a copy of what is left to
// send. [M2] allows 256.
std::array<char, std::size_t{112} * 1024> buffer;
static_assert(buffer.size() > LineEcho::max_line);

}  // namespace

Connection::Connection(EventLoop& loop, Owner& owner, Socket socket)
    : loop_(loop), owner_(owner), socket_(std::move(socket)) {
  loop_.change(static_cast<std::uintptr_t>(socket_.descriptor()), EVFILT_READ, EV_ADD, *this);
}

void Connection::on_event(const struct kevent&) {
  if (state_ == State::ended) return;  // the event was copied out before
  bool progress = false;
  try {
    progress = step();
  } catch (const std::exception& error) {  // no memory, or no room in the kqueue: this client's loss alone
    end(error.what());
  }
  owner_.after_event(*this, progress);
}

/// What to do follows from the state, not from the event: that only says when. EV_EOF in particular is no reason to
/// stop reading. It means that the peer has shut its sending side, while what it sent before may still be queued here;
/// the end of input is when read returns 0, and not before.
bool Connection::step() {
  if (!unsent_.empty()) return send(unsent_);
  return state_ == State::lingering ? discard() : receive();
}

bool Connection::receive() {
  // What is held and what is read are together no more than the buffer's size: this bounds what a client can have us
  // keep. What is held is always less than that, so there is room.
  const ssize_t count = socket_.read(std::span(buffer).first(buffer.size() - echo_.held()));
  if (count < 0) {
    if (errno != EAGAIN) end(std::strerror(errno));
    return false;
  }
  if (trace::on) trace::action(socket_.descriptor(), "read %zd bytes%s", count, count == 0 ? ": end of input" : "");
  if (count == 0) {
    state_ = State::at_end;
    return send(echo_.finish());
  }
  const LineEcho::Output output = echo_.feed({buffer.data(), static_cast<std::size_t>(count)});
  if (output.close) {
    state_ = State::closing;
    if (trace::on) trace::action(socket_.descriptor(), "an empty line");
  }
  if (trace::on && echo_.held() > 0)
    trace::action(socket_.descriptor(), "holds %zu bytes of an unfinished line", echo_.held());
  if (output.held.empty())  // of two parts, the first must not be the empty one
    send(output.fresh);
  else
    send(output.held, output.fresh);
  return true;
}

/// After the empty line the client may still be sending. To close with its input unread, or before it arrives, would be
/// to reset the connection, and the client might lose what it has not read yet (RFC 1122, 4.2.2.13).
bool Connection::discard() {
  const ssize_t count = socket_.read(buffer);
  if (trace::on && count > 0) trace::action(socket_.descriptor(), "read %zd bytes, and dropped them", count);
  if (count == 0) end("the client has closed, too");
  if (count < 0 && errno != EAGAIN) end(std::strerror(errno));
  return count > 0;
}

/// Sends what the kernel takes and keeps the rest. `first` may be unsent_ itself. Returns whether anything was sent.
bool Connection::send(std::string_view first, std::string_view second) {
  const std::size_t size = first.size() + second.size();
  ssize_t count = size == 0 ? 0 : socket_.write(first, second);
  if (count < 0) {
    if (errno != EAGAIN) {
      end(std::strerror(errno));
      return false;
    }
    count = 0;
  }
  const auto sent = static_cast<std::size_t>(count);
  echoed_ += sent;
  if (trace::on && size > 0) trace::action(socket_.descriptor(), "wrote %zu of %zu bytes", sent, size);
  if (sent == size) {
    if (!unsent_.empty()) std::string().swap(unsent_);  // unlike clear(), this gives the memory back
    all_sent();
  } else {
    const std::size_t of_first = std::min(sent, first.size());
    std::string rest;
    rest.reserve(size - sent);
    rest.append(first.substr(of_first)).append(second.substr(sent - of_first));
    unsent_.swap(rest);
    watch_for(EVFILT_WRITE);
  }
  return sent > 0;
}

void Connection::all_sent() {
  switch (state_) {
    case State::at_end: end("all is sent"); break;
    case State::closing:
      socket_.shut_down_sending();
      if (trace::on) trace::action(socket_.descriptor(), "shut down the sending side, lingers until the client closes");
      state_ = State::lingering;
      watch_for(EVFILT_READ);
      break;
    default: watch_for(EVFILT_READ);  // echoing
  }
}

void Connection::end(const char* reason) noexcept {
  state_ = State::ended;
  if (trace::on) trace::action(socket_.descriptor(), "ended: %s", reason);
}

void Connection::stop() {
  if (unsent_.empty()) {
    drain_input();
    end("the server stops");
  } else if (state_ == State::echoing) {
    state_ = State::closing;
  }
}

/// As discard(), but without waiting: the server stops. What arrives after this may still meet a reset. The limit is
/// for a client that sends as fast as we read; 64 reads are up to 7 MiB.
void Connection::drain_input() {
  constexpr int reads = 64;
  for (int i = 0; i < reads && socket_.read(buffer) > 0; ++i) {
  }
}

/// At any time one of the two filters is enabled. (Reading is disabled, since it will come back; writing is rare, and
/// is deleted.) A level-triggered read filter that nobody acts on would have the loop spin; so would a write filter,
/// which is ready nearly always, with nothing to write.
void Connection::watch_for(short filter) {
  if (filter == watched_) return;
  const auto descriptor = static_cast<std::uintptr_t>(socket_.descriptor());
  if (filter == EVFILT_WRITE) {
    loop_.change(descriptor, EVFILT_READ, EV_DISABLE, *this);
    loop_.change(descriptor, EVFILT_WRITE, EV_ADD, *this);
  } else {
    loop_.change(descriptor, EVFILT_WRITE, EV_DELETE, *this);
    loop_.change(descriptor, EVFILT_READ, EV_ENABLE, *this);
  }
  watched_ = filter;
}

}  // namespace echod
