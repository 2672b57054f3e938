// The matrix of traps. Each case is a trap that a client can provoke, and says which of the three
// programs falls into it: the two of src/tutorial, and echod. The tutorial's table of traps is
// checked against this file.
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <ctime>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "patience.hpp"
#include "process.hpp"
#include "transcript.hpp"
#include "tutorial.hpp"

using namespace std::chrono_literals;

namespace {

enum Verdict { falls, escapes, cannot_occur };

/// What is expected of each program.
struct Row {
  Verdict one_client;
  Verdict kqueue_echo_server;
  Verdict echod;
};

/// One of the three programs, running.
struct Server : Echod {
  Server(const Start& how, bool to_fall) : Echod(how), start(how), limit(to_fall ? 1s : patience) {}
  Start start;
  /// How long a client waits for its echo: only briefly if none is expected.
  std::chrono::milliseconds limit;
};

/// Runs `trap` against each program. `trap` returns whether the server falls into it.
template <typename Trap>
void check(const Row& row, const Trap& trap, rlim_t descriptors = 0) {
  for (const auto& [name, verdict] :
       {std::pair(std::string("one_client"), row.one_client),
        std::pair(std::string("kqueue_echo_server"), row.kqueue_echo_server),
        std::pair(std::string("echod"), row.echod)}) {
    if (verdict == cannot_occur) continue;
    const bool to_fall = verdict == falls;
    Start start{.descriptors = descriptors};
    if (name != "echod") start.program = tutorial_program(name);
    bool fell = false;
    // Some traps depend on which process runs first, so a program has several chances to fall.
    for (int chances = to_fall ? 20 : 1; !fell && chances > 0; --chances) {
      transcript::note("server", "is " + name);
      Server server(start, to_fall);
      fell = trap(server);
    }
    INFO(name << (fell ? " falls into the trap" : " does not fall into the trap"));
    CHECK(fell == to_fall);
  }
}

/// Returns whether another client is served.
bool serves(const Server& server) {
  Client client(server.port());
  client.send("served?\n");
  return client.hears_within(server.limit);
}

/// Uses half a second of CPU time. A server that spins gets its share meanwhile, also on a slow
/// machine.
class BusyTime {
 public:
  explicit BusyTime(Server& server)
      : server_(server), used_before_(std::max(cpu_of(server.pid()), 0.0)) {
    const std::clock_t start = std::clock();
    while (std::clock() - start < CLOCKS_PER_SEC / 2) {
    }
  }
  /// Ends the server, and returns whether it has used more than half as much.
  bool was_shared() const {
    server_.signal(SIGKILL);
    server_.wait();
    return server_.cpu_seconds() - used_before_ > 0.25;
  }

 private:
  Server& server_;
  double used_before_;
};

template <typename Call>
bool throws(Call call) {
  try {
    call();
    return false;
  } catch (const std::exception&) {
    return true;
  }
}

std::string repeated(std::string_view text, std::size_t size) {
  std::string result;
  while (result.size() < size) result += text;
  return result;
}

/// A client that does not read.
struct DeafClient : Client {
  explicit DeafClient(std::uint16_t port) : Client(port, "127.0.0.1", 32768) {}
  /// Sends `bytes`, until the connection has taken nothing for half a second. Returns whether it
  /// has taken all.
  bool sends(std::string_view bytes) {
    while (!bytes.empty() && ready_within(POLLOUT, 500ms)) send_some(bytes);
    return bytes.empty();
  }
};

}  // namespace

TEST_CASE("EV_EOF is taken for the end of input", "[trap][E4]") {
  check({.one_client = falls, .kqueue_echo_server = escapes, .echod = escapes}, [](Server& server) {
    server.signal(SIGSTOP);
    Client client(server.port());
    client.send("a\nb\n");
    client.shut_down_sending();
    server.signal(SIGCONT);
    std::string echo;
    const bool broken = throws([&] { echo = client.receive_all(); });
    return broken || echo != "a\nb\n";
  });
}

TEST_CASE("a handler waits for one client to send", "[trap][M1]") {
  check({.one_client = falls, .kqueue_echo_server = escapes, .echod = escapes}, [](Server& server) {
    Client slow(server.port());
    slow.send("half a line");
    return !serves(server);
  });
}

TEST_CASE("a handler waits for one client to read", "[trap][M1]") {
  check({.one_client = falls, .kqueue_echo_server = escapes, .echod = escapes}, [](Server& server) {
    const StuckClient deaf(server.port(), 100ms);
    return !serves(server);
  });
}

TEST_CASE("reading on while echo is unsent takes all memory", "[trap][M2]") {
  // one_client waits in write until its client reads, so it cannot read on meanwhile.
  check({.one_client = cannot_occur, .kqueue_echo_server = escapes, .echod = escapes},
        [](Server& server) {
          // Far more than all buffers of the kernel.
          return DeafClient(server.port()).sends(repeated("line\n", 64'000'000));
        });
}

TEST_CASE("a write filter that stays on makes the loop spin", "[trap][M3]") {
  // one_client has no write filter.
  check({.one_client = cannot_occur, .kqueue_echo_server = escapes, .echod = escapes},
        [](Server& server) {
          // While this client does not read, the filter is on. Afterwards it must be off.
          StuckClient client(server.port());
          client.receive(client.sent() / StuckClient::line_size * StuckClient::line_size);
          return BusyTime(server).was_shared();
        });
}

TEST_CASE("a line that never ends takes all memory", "[trap][E2]") {
  if (Echod().peak_kilobytes() == 0) return;  // memory use is not known here
  check({.one_client = falls, .kqueue_echo_server = falls, .echod = escapes}, [](Server& server) {
    const std::string line = std::string(60'000'000, 'x') + '\n';
    return Client(server.port()).exchange(line) != line || server.peak_kilobytes() > 50'000;
  });
}

TEST_CASE("closing a socket with unread input resets the connection", "[trap][E5]") {
  // FreeBSD resets only if more input arrives after the close, so this client goes on sending.
  check({.one_client = falls, .kqueue_echo_server = falls, .echod = escapes}, [](Server& server) {
    // So that the empty line and more than one read after it are there at once.
    server.signal(SIGSTOP);
    Client client(server.port());
    client.send("a\n\n");
    client.send(std::string(40'000, 'x'));
    server.signal(SIGCONT);
    return throws([&] {
      client.send(std::string(1'000'000, 'x'));
      client.receive_all();
      for (int i = 0; i < 10; ++i) {
        client.send("x");
        std::this_thread::sleep_for(10ms);
      }
    });
  });
}

TEST_CASE("writing to a client that has gone raises SIGPIPE", "[trap][M5]") {
  check({.one_client = falls, .kqueue_echo_server = escapes, .echod = escapes}, [](Server& server) {
    // More than one read of kqueue_echo_server, so that it writes twice.
    const std::string lines = repeated("y\n", 40'000);
    for (int tries = 0; tries < 5; ++tries) {
      const bool gone = throws([&] {
        Client client(server.port());
        client.send("x");
        // Nothing comes: by then one_client waits for the rest of the line.
        client.hears_within(100ms);
        server.signal(SIGSTOP);
        // So that echod also writes twice: the lines, then this half.
        client.send("\n" + lines + "half a line");
        client.close();
        server.signal(SIGCONT);
        serves(server);
      });
      if (gone) return true;
    }
    return false;
  });
}

TEST_CASE("without a descriptor a connection is lost or the loop spins", "[trap][M4]") {
  // macOS drops the connection. FreeBSD and Linux keep it in the queue, and the loop spins.
  check(
      {.one_client = falls, .kqueue_echo_server = falls, .echod = escapes},
      [](Server& server) {
        std::vector<Client> clients;
        clients.reserve(40);
        for (int i = 0; i < 40; ++i) clients.emplace_back(server.port());
        const BusyTime time(server);
        const bool lost = std::any_of(clients.begin(), clients.end(),
                                      [](Client& client) { return client.hears_within(0ms); });
        return lost || time.was_shared();
      },
      20);
}

TEST_CASE("a restarted server cannot bind because of TIME_WAIT", "[trap][C3]") {
  check({.one_client = falls, .kqueue_echo_server = escapes, .echod = escapes}, [](Server& server) {
    Client client(server.port());
    client.send("\n");
    CHECK(client.how_it_ends() == "end-of-file");
    server.signal(SIGKILL);
    server.wait();
    Process again(
        {.options = {"127.0.0.1", std::to_string(server.port())}, .program = server.start.program});
    return again.line().find("listening on") == std::string::npos;
  });
}

TEST_CASE("a crash looks like an orderly end", "[trap][E6]") {
  check({.one_client = falls, .kqueue_echo_server = falls, .echod = escapes}, [](Server& server) {
    Client client(server.port());
    client.send("a\nhalf a line");
    // The server has read the other half, too: it came in one segment.
    REQUIRE(client.receive(2) == "a\n");
    server.signal(SIGKILL);
    return client.how_it_ends() == "end-of-file";
  });
}

TEST_CASE("a signal to stop loses input that has arrived", "[trap][C3]") {
  check({.one_client = falls, .kqueue_echo_server = falls, .echod = escapes}, [](Server& server) {
    Client client(server.port());
    REQUIRE(client.echoes("accepted\n"));
    server.signal(SIGSTOP);
    client.send("line\n");
    client.wait_until_arrived();
    server.signal(SIGTERM);
    server.signal(SIGCONT);
    std::string echo;
    const bool broken = throws([&] { echo = client.receive(5); });
    return broken || echo != "line\n";
  });
}
