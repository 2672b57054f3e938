// The trace of -v, on stderr: every batch, event and change of the kqueue, and what the server did.
#pragma once

#include <cstddef>

struct kevent;

namespace echod::trace {
extern bool on;  // while it is false, nothing is printed
void batch(int events);
void event(const struct kevent& event);
/// `error` is the errno with which the kernel refused it, or 0.
void change(const struct kevent& change, int error);

/// What a step did, in bytes, and what it left.
struct Step {
  int descriptor;
  std::size_t received;
  std::size_t sent;
  std::size_t unsent;
  std::size_t held;
  const char* state;
  int error;  // an errno, or 0
};
void step(const Step& step);
void action(int descriptor, const char* what, const char* detail = "");
}  // namespace echod::trace
