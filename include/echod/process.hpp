// The process: what it inherits, and what it says.
#pragma once

#include <exception>
#include <string>

namespace echod {
/// Prepares what a server needs and its parent may not have given it. Opens /dev/null for each of
/// the descriptors 0 to 2 that is closed: otherwise a client's socket could get the number of
/// standard error. Raises the limit of open descriptors as far as it can without privilege. Ignores
/// SIGPIPE, SIGTTOU and SIGXFSZ, so that a write fails or succeeds but never stops or ends the
/// process; and SIGUSR1, until the server watches it. Unblocks the signals to stop. Throws
/// std::system_error if there is no /dev/null.
void prepare_process();

/// FreeBSD: enters capability mode, cap_enter(2), if the kernel has it. From then on the process
/// can accept clients, but not open a file or look up a name. Throws std::system_error.
void enter_capability_mode();

/// Returns the limit of open descriptors as text if `error` says that it is too low (EMFILE),
/// otherwise nothing.
std::string descriptor_limit_hint(const std::exception& error);

/// Writes "echod: ", the text of printf(3) and a newline to stderr, at most 512 bytes. While
/// `say_waits`, it waits up to five seconds for room, because a program that cannot start has to
/// say why. main() ends that before it serves clients. If poll(2) reports no room, it drops the
/// text, so that a stopped terminal or a full pipe does not block the server. (A terminal that has
/// room for a part only still can.)
void say(const char* format, ...) noexcept __attribute__((format(printf, 1, 2)));
extern bool say_waits;
}  // namespace echod
