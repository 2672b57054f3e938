#include "echod/connection.hpp"

#include <algorithm>
#include <cerrno>
#include <new>

namespace echod {
/// The state decides what to do, not the event, which only says when. In particular EV_EOF does not
/// end a connection: the peer has shut down its sending side, but what it sent before may be
/// queued. Input ends when read returns 0.
Moved Connection::step(std::span<char> buffer) noexcept {
  Moved moved;
  try {
    if (unsent_ > 0)
      send_kept(moved);
    else if (state_ == State::lingering)
      discard(buffer, moved);
    else
      receive(buffer, moved);
  } catch (const std::bad_alloc&) {
    moved.error = ENOMEM;
  }
  if (moved.error != 0) end();
  return moved;
}

Moved Connection::stop(std::span<char> buffer) noexcept {
  stopping_ = true;
  const Moved moved = step(buffer);
  if (state_ == State::lingering && !moved.anything()) end();
  return moved;
}

Moved Connection::expire(std::span<char> buffer) noexcept {
  const Moved moved = state_ == State::lingering ? Moved{} : step(buffer);
  if (moved.anything() || state_ == State::ended) return moved;
  if (kept_.empty()) socket_.allow_orderly_end();
  end();
  return moved;
}

void Connection::receive(std::span<char> buffer, Moved& moved) {
  // What is held goes to the front of the buffer. So a line is in one piece, and its echo is one
  // write.
  std::copy(kept_.begin(), kept_.end(), buffer.begin());
  const std::span<char> room = buffer.subspan(kept_.size());
  const ssize_t count = socket_.read(room);
  if (count < 0 && errno != EAGAIN) moved.error = errno;
  if (count < 0 && (errno != EAGAIN || !stopping_)) return;
  moved.received = static_cast<std::size_t>(std::max<ssize_t>(count, 0));

  const std::string_view input(buffer.data(), kept_.size() + moved.received);
  LineEcho::Result result{input.size(), false};
  if (count == 0) state_ = State::at_end;  // then an unfinished line is sent, too
  if (count > 0) result = echo_.feed(input);
  if (result.close) {
    state_ = State::closing;
  } else if (stopping_ && count != 0 && moved.received < room.size()) {
    state_ = State::closing;
    result.ready = input.size();
  }

  // Send before keeping: without memory for the rest, at least the kernel has the complete lines.
  const std::size_t sent = write(input.substr(0, result.ready), moved);
  if (moved.error != 0) return;
  const std::size_t end = state_ == State::echoing ? input.size() : result.ready;
  if (sent < end || !kept_.empty()) std::string(input.substr(sent, end - sent)).swap(kept_);
  unsent_ = result.ready - sent;
  if (unsent_ == 0) all_sent();
}

void Connection::send_kept(Moved& moved) noexcept {
  const std::size_t sent = write(std::string_view(kept_).substr(0, unsent_), moved);
  if (moved.error != 0) return;
  unsent_ -= sent;
  kept_.erase(0, sent);  // in place: a copy could run out of memory
  if (unsent_ > 0) return;
  // Erase() keeps all memory. Without memory for a smaller copy, this does, too.
  kept_.shrink_to_fit();
  all_sent();
}

/// The client may still be sending after its empty line. To close with input unread, or before more
/// arrives, would reset the connection, and the client could lose echo that it has not read yet
/// (RFC 1122, 4.2.2.13).
void Connection::discard(std::span<char> buffer, Moved& moved) noexcept {
  const ssize_t count = socket_.read(buffer);
  if (count < 0 && errno != EAGAIN) moved.error = errno;
  if (count == 0) end();
  moved.received = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
}

std::size_t Connection::write(std::string_view bytes, Moved& moved) noexcept {
  if (bytes.empty()) return 0;
  const ssize_t count = socket_.write(bytes);
  if (count < 0 && errno != EAGAIN) moved.error = errno;
  return moved.sent = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
}

void Connection::all_sent() noexcept {
  if (state_ == State::echoing) return;
  socket_.allow_orderly_end();
  if (state_ == State::closing) socket_.shut_down_sending();
  state_ = state_ == State::closing ? State::lingering : State::ended;
}
}  // namespace echod
