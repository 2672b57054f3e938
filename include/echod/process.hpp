// The process: what it inherits, and what it says.
#pragma once

#include <exception>
#include <string>

namespace echod {
/// Opens /dev/null for each of the descriptors 0 to 2 that is closed: otherwise a client's socket
/// could get the number of standard error. Raises the limit of open descriptors as far as it can
/// without privilege. Ignores SIGPIPE: a write to a client that has gone then fails with EPIPE.
void prepare_process() noexcept;

/// FreeBSD: enters capability mode, cap_enter(2), if the kernel has it. From then on the process
/// can accept clients, but not open a file or look up a name. Throws std::system_error.
void enter_capability_mode();

/// Returns the limit of open descriptors as text if `error` says that it is too low (EMFILE),
/// otherwise nothing.
std::string descriptor_limit_hint(const std::exception& error);

/// Writes "echod: ", the text of printf(3) and a newline to stderr, at most 512 bytes. Drops them
/// if poll(2) says that stderr is full. So a stopped terminal or a full pipe does not block the
/// server. A terminal that is nearly full can.
void say(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));
}  // namespace echod
