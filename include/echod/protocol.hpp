// The protocol of this server, named in this one place. Another protocol is a class with the same
// functions as LineEcho, its name here, and its construction in main.
#pragma once

#include "echod/line_echo.hpp"

namespace echod {
using Protocol = LineEcho;
}  // namespace echod
