// key_value, a key-value store: echod's parts with another protocol. Compare main.cpp.
//
//   cmake --build build --target key_value && build/tutorial/key_value 127.0.0.1 8081
//
// src/tutorial/key_value stands in front of the include path, so "echod/protocol.hpp" is the one
// there, and Connection and Server are compiled with it.
#include <sysexits.h>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "echod/event_loop.hpp"
#include "echod/process.hpp"
#include "echod/protocol.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "trace.hpp"

namespace {
std::optional<std::uint16_t> port_in(std::string_view text) {
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, port);
  if (error != std::errc() || rest != end) return std::nullopt;
  return port;
}
}  // namespace

int main(int argc, char** argv) {
  using namespace echod;
  trace::on = argc == 4 && std::string_view(argv[1]) == "-v";
  const auto port = argc == 3 || trace::on ? port_in(argv[argc - 1]) : std::nullopt;
  if (!port) {
    std::fputs("usage: key_value [-v] address port\n", stderr);
    return EX_USAGE;
  }
  try {
    prepare_process();
    Socket listener = Socket::listen(argv[argc - 2], *port);
    const std::string address = listener.local_address();
    EventLoop loop;
    Store store;  // before the server, because its clients use the store to the end
    Server server(loop, std::move(listener), KeyValue(store), {});
    std::fprintf(stderr, "key_value: listening on %s\n", address.c_str());
    enter_capability_mode();
    say_waits = false;  // from now on there are clients
    loop.run(server);   // until a signal to stop
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "key_value: %s%s\n", error.what(), descriptor_limit_hint(error).c_str());
    return EXIT_FAILURE;
  }
}
