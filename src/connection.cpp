#include "echod/connection.hpp"

#include <algorithm>
#include <cassert>

namespace echod {
/// The state decides what to do, not the event, which only says when. In particular EV_EOF does not
/// end a connection: the peer has shut down its sending side, but what it sent before may be
/// queued. Input ends when read returns 0.
void Connection::step(std::span<char> buffer, Moved& moved) {
  assert(!ended() && "a step after an error would lose bytes, and then end orderly");
  if (state_ == State::lingering)
    discard(buffer, moved);
  else if (!output_.empty())
    send_unsent(moved);
  else
    receive(buffer, moved);
  enter_next_state();
}

bool Connection::has_nothing_to_do() const noexcept {
  return output_.empty() && !socket_.has_input();
}

void Connection::finish(Moved& moved) {
  assert(!ended());
  if (state_ == State::echoing) send_held(State::closing, moved);
  enter_next_state();
  // A silent client ends at once, so that a server whose clients are idle stops at once. But if
  // something moved just now, the client may be in the middle of something: should it send more, a
  // close would reset the connection, and it could lose its answer. So it lingers.
  if (state_ == State::lingering && !moved.anything()) state_ = State::ended;
}

void Connection::expire() noexcept {
  if (input_.empty() && output_.empty()) allow_orderly_end();
  state_ = State::ended;
}

void Connection::receive(std::span<char> buffer, Moved& moved) {
  // What is held goes to the front of the buffer. So the protocol sees its input in one piece, and
  // an echo of it is one write.
  std::copy(input_.begin(), input_.end(), buffer.begin());
  const std::span<char> room = buffer.subspan(input_.size());
  assert(!room.empty() && "a read into no room returns 0, which looks like the end of input");
  const std::optional<std::size_t> count = socket_.read(room);
  if (!count) return;
  if (*count == 0) {
    send_held(State::at_end, moved);
    return;
  }
  moved.received += *count;

  const std::string_view input(buffer.data(), input_.size() + *count);
  const LineEcho::Reply reply = protocol_.feed(input);
  send(input.substr(0, reply.echo), moved);
  if (reply.close) state_ = State::closing;
  // What came behind an empty line is not answered.
  const std::string_view held = reply.close ? std::string_view() : input.substr(reply.echo);
  // A new string has no more memory than it needs, which an assignment would not promise.
  if (!held.empty() || !input_.empty()) std::string(held).swap(input_);
}

/// Sends new output, and keeps what the kernel does not take.
void Connection::send(std::string_view bytes, Moved& moved) {
  assert(output_.empty() && "new output would overtake what is unsent");
  if (bytes.empty()) return;
  const std::size_t sent = socket_.write(bytes);
  moved.sent += sent;
  output_ = bytes.substr(sent);
}

/// Sends what is held although it is not complete, because no more input counts.
void Connection::send_held(State next, Moved& moved) {
  send(input_, moved);
  std::string().swap(input_);
  state_ = next;
}

void Connection::send_unsent(Moved& moved) {
  const std::size_t sent = socket_.write(output_);
  moved.sent += sent;
  output_.erase(0, sent);  // in place: a copy could run out of memory
  if (output_.empty()) output_.shrink_to_fit();
}

/// The client may still be sending after the end. If the server closed with input unread, or if
/// input arrived after the close, the kernel would reset the connection (FreeBSD only in the second
/// case), and output that is still on its way could be lost (RFC 1122, 4.2.2.13).
void Connection::discard(std::span<char> buffer, Moved& moved) {
  const std::optional<std::size_t> count = socket_.read(buffer);
  if (!count) return;
  moved.received += *count;
  if (*count == 0) state_ = State::ended;
}

/// Goes on to the next state when the last output is sent.
void Connection::enter_next_state() noexcept {
  if (!output_.empty()) return;
  if (state_ == State::at_end) {
    allow_orderly_end();
    state_ = State::ended;
  }
  if (state_ == State::closing) {
    // In this order: a server that dies between the two must not reset what is complete.
    allow_orderly_end();
    socket_.shut_down_sending();
    state_ = State::lingering;
  }
}

void Connection::allow_orderly_end() noexcept {
  socket_.allow_orderly_end();
  orderly_ = true;
}
}  // namespace echod
