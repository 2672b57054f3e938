// Found instead of include/echod/protocol.hpp, if src/tutorial/key_value comes first in the include
// path: makes KeyValue the protocol of Connection and Server.
#pragma once

#include "key_value.hpp"

namespace echod {
using Protocol = KeyValue;
}  // namespace echod
