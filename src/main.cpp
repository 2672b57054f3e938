// echod, a line echo server on kqueue(2): a Socket listens, an EventLoop waits on the kqueue, and a
// Server gives each client a LineEcho, which sends every line back and closes on an empty line.
// Calls follow the includes.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "echod/event_loop.hpp"
#include "echod/options.hpp"
#include "echod/process.hpp"
#include "echod/protocol.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "trace.hpp"

int main(int argc, char** argv) {
  using namespace echod;
  const Options options = parse_command_line(argc, argv);
  trace::on = options.verbose;
  try {
    prepare_process();
    Socket listener = Socket::listen(options.address, options.port);
    const std::string address = listener.local_address();
    EventLoop loop;
    Server server(loop, std::move(listener), Protocol(), {.idle = options.idle});
    std::fprintf(stderr, "echod: listening on %s\n", address.c_str());  // say() could drop it
    enter_capability_mode();
    loop.run(server);  // until a signal to stop
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    say("%s%s", error.what(), descriptor_limit_hint(error).c_str());
    return EXIT_FAILURE;
  }
}
