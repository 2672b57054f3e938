#include "echod/connection.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <new>

namespace echod {
namespace {
// The bounds of one step, so that a client that asks for much does not keep the others waiting. An
// echo never meets them: it is one write, and no longer than the read buffer.
constexpr std::size_t most_bytes = std::size_t{256} * 1024;
constexpr int most_replies = 64;
}  // namespace

/// The state decides what to do, not the event, which only says when. In particular EV_EOF does not
/// end a connection: the peer has shut down its sending side, but what it sent before may be
/// queued. Input ends when read returns 0.
StepResult Connection::step(std::span<char> buffer) noexcept {
  StepResult result;
  try {
    switch (state_) {
      case State::echoing:
        if (output_.empty()) {
          receive(buffer, result);
        } else {
          send_unsent(result);
          // No event will come for input that is here already.
          const std::size_t used = answer(input_, result);
          input_.erase(0, used);
          // erase() gives no memory back. This does, unless there is none for a smaller copy. While
          // output is unsent the input may be large, and a copy of it would be too much.
          if (output_.empty()) input_.shrink_to_fit();
        }
        break;
      case State::at_end:
      case State::closing: send_unsent(result); break;
      case State::lingering: discard(buffer, result); break;
      case State::ended: break;
    }
  } catch (const std::bad_alloc&) {
    result.error = ENOMEM;
  } catch (...) {
    result.error = EPROTO;
  }
  enter_next_state(result);
  return result;
}

bool Connection::has_nothing_to_do() const noexcept {
  return output_.empty() && !socket_.has_input();
}

void Connection::finish(StepResult& result) noexcept {
  try {
    if (state_ == State::echoing) answer_last(State::closing, result);
  } catch (const std::bad_alloc&) {
    result.error = ENOMEM;
  } catch (...) {
    result.error = EPROTO;
  }
  enter_next_state(result);
  // If something moved just now, the client has not read its answer yet. Should it send more, a
  // close would reset the connection, so it lingers.
  if (state_ == State::lingering && !result.moved_anything()) end();
}

void Connection::expire() noexcept {
  if (input_.empty() && output_.empty()) socket_.allow_orderly_end();
  end();
}

void Connection::receive(std::span<char> buffer, StepResult& result) {
  // What is held goes to the front of the buffer. So the protocol sees its input in one piece, and
  // an echo of it is one write.
  std::copy(input_.begin(), input_.end(), buffer.begin());
  const std::span<char> room = buffer.subspan(input_.size());
  assert(!room.empty() && "a read into no room returns 0, which looks like the end of input");
  const ssize_t count = socket_.read(room);
  if (count < 0) {
    if (errno != EAGAIN) result.error = errno;
    return;
  }
  if (count == 0) {
    answer_last(State::at_end, result);
    return;
  }
  result.received = static_cast<std::size_t>(count);

  const std::string_view input(buffer.data(), input_.size() + result.received);
  const std::size_t used = answer(input, result);
  const std::string_view rest = input.substr(used);
  // A new string has no more memory than it needs, which an assignment would not promise.
  if (!rest.empty() || !input_.empty()) std::string(rest).swap(input_);
}

/// Asks the protocol what to answer to `input`, and returns how much of it is done with. The caller
/// keeps the rest, but only after this: the replies may point into the input, and if there is no
/// memory for the rest, what was answered is sent at least.
std::size_t Connection::answer(std::string_view input, StepResult& result) {
  std::size_t used = 0;
  for (int replies = 0; used < input.size() && output_.empty() && result.error == 0; ++replies) {
    const Protocol::Reply reply = protocol_.feed(input.substr(used));
    if (reply.bytes.empty() && reply.used == 0 && !reply.close) break;
    used += reply.used;
    if (replies < most_replies)
      send_or_keep(reply.bytes, result);
    else
      output_ = reply.bytes;  // it cannot be given back; EVFILT_WRITE brings the next step at once
    if (reply.close) {
      state_ = State::closing;
      return input.size();  // what came behind the client's last request is not answered
    }
  }
  return used;
}

void Connection::answer_last(State next, StepResult& result) {
  const Protocol::Reply reply = protocol_.finish(input_);
  send_or_keep(reply.bytes, result);
  state_ = next;
  std::string().swap(input_);
}

/// Sends new output, and keeps what the kernel does not take now, or the step does not allow.
void Connection::send_or_keep(std::string_view bytes, StepResult& result) {
  assert(output_.empty() && "new output would overtake what is unsent");
  const std::size_t sent = write(bytes, result);
  if (result.error == 0) output_ = bytes.substr(sent);
}

void Connection::send_unsent(StepResult& result) noexcept {
  const std::size_t sent = write(output_, result);
  output_.erase(0, sent);  // in place: a copy could run out of memory
  if (output_.empty()) output_.shrink_to_fit();
}

/// The client may still be sending after the end. If the server closed with input unread, or if
/// input arrived after the close, the kernel would reset the connection, and the client could lose
/// output that it has not read yet (RFC 1122, 4.2.2.13).
void Connection::discard(std::span<char> buffer, StepResult& result) noexcept {
  const ssize_t count = socket_.read(buffer);
  if (count < 0 && errno != EAGAIN) result.error = errno;
  if (count == 0) end();
  if (count > 0) result.received = static_cast<std::size_t>(count);
}

/// Writes once, within what is left of the step. Returns how many bytes the kernel took.
std::size_t Connection::write(std::string_view bytes, StepResult& result) noexcept {
  const std::string_view allowed = bytes.substr(0, most_bytes - result.sent);
  if (allowed.empty()) return 0;
  const ssize_t count = socket_.write(allowed);
  if (count < 0) {
    if (errno != EAGAIN) result.error = errno;
    return 0;
  }
  result.sent += static_cast<std::size_t>(count);
  return static_cast<std::size_t>(count);
}

/// Goes on to the next state after an error, or when the last output is sent.
void Connection::enter_next_state(const StepResult& result) noexcept {
  if (result.error != 0) {
    end();
    return;
  }
  if (!output_.empty()) return;
  if (state_ == State::at_end) {
    socket_.allow_orderly_end();
    state_ = State::ended;
  }
  if (state_ == State::closing) {
    // In this order: a server that dies between the two must not reset what is complete.
    socket_.allow_orderly_end();
    socket_.shut_down_sending();
    state_ = State::lingering;
  }
}
}  // namespace echod
