// echod, a line echo server on kqueue(2): a Socket listens, an EventLoop waits on the kqueue, and a
// Server gives each client a LineEcho, which sends every line back and closes on an empty line.
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "echod/event_loop.hpp"
#include "echod/options.hpp"
#include "echod/process.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "trace.hpp"

int main(int argc, char** argv) {
  using namespace echod;
  try {
    const Options options = parse_command_line(argc, argv);
    trace::on = options.verbose;
    prepare_process();
    Socket listener = Socket::listen(options.address, options.port);
    const std::string address = listener.local_address();
    EventLoop loop;
    Server server(loop, std::move(listener), {.idle = options.idle});
    // Not before the Server watches its signals: one that follows this line must not be lost.
    say("listening on %s", address.c_str());
    enter_capability_mode();
    say_waits = false;  // from now on it serves clients
    loop.run(server);   // until a signal to stop
    return EXIT_SUCCESS;
  } catch (const std::bad_alloc&) {
    say("out of memory");
  } catch (const std::exception& error) {
    say("%s%s", error.what(), descriptor_limit_hint(error).c_str());
  }
  return EXIT_FAILURE;
}
