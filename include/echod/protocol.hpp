// The protocol of this server, named in this one place. Another protocol is a class with what
// LineEcho has: Reply, feed(), finish() and max_held(). It is named here, and constructed in main.
// Each client has a copy of that object. feed() and finish() may throw: then that client is reset.
// A protocol only answers: it cannot speak first, act after a time, or write to another client.
#pragma once

#include "echod/line_echo.hpp"

namespace echod {
using Protocol = LineEcho;
}  // namespace echod
