// Tests the first eight traps of README's table. The naive server falls into each of them, and
// echod into none.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "process.hpp"
#include "transcript.hpp"

using namespace std::chrono_literals;

namespace {

/// Returns the path that ONE_CLIENT gives. Without it, looks where the build has put one_client,
/// near echod, and in the current directory. Returns an empty string, with a warning, if it is in
/// none of these places.
std::string naive_program() {
  const char* const named = std::getenv("ONE_CLIENT");
  if (named != nullptr) return named;
  const char* const echod = std::getenv("ECHOD");
  const std::string program = echod != nullptr ? echod : "";
  const std::string near_echod = program.substr(0, program.rfind('/') + 1);
  for (const std::string& path : {std::string(ONE_CLIENT_PATH), near_echod + "one_client",
                                  near_echod + "tutorial/one_client", std::string("./one_client")})
    if (::access(path.c_str(), X_OK) == 0) return path;
  WARN("cannot find one_client, and ONE_CLIENT does not name it: only echod is tested");
  return {};
}

/// Runs `trap` against both servers. `trap` returns whether the server falls into it.
template <typename Trap>
void check_only_naive_falls_into(Trap trap, rlim_t descriptors = 0) {
  const std::string program = naive_program();
  if (!program.empty()) {
    transcript::note("server", "is one_client");
    Echod naive({.descriptors = descriptors, .program = program});
    CHECK(trap(naive));
  }
  transcript::note("server", "is echod");
  INFO("echod falls into the trap, too");
  Echod echod({.descriptors = descriptors});
  CHECK_FALSE(trap(echod));
}

/// Returns whether another client is served.
bool serves(const Echod& server) {
  Client client(server.port());
  client.send("served?\n");
  return client.hears_within(2s);
}

template <typename Call>
bool throws(Call call) {
  try {
    call();
    return false;
  } catch (const std::exception&) {
    return true;
  }
}

}  // namespace

TEST_CASE("EV_EOF is taken for the end of input", "[trap][E4]") {
  check_only_naive_falls_into([](Echod& server) {
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
  check_only_naive_falls_into([](Echod& server) {
    Client slow(server.port());
    slow.send("half a line");
    return !serves(server);
  });
}

TEST_CASE("a handler waits for one client to read", "[trap][M1]") {
  check_only_naive_falls_into([](Echod& server) {
    const StuckClient deaf(server.port(), 100ms);
    return !serves(server);
  });
}

TEST_CASE("closing a socket with unread input resets the connection", "[trap][E5]") {
  check_only_naive_falls_into([](Echod& server) {
    Client client(server.port());
    return throws([&] {
      client.send("a\n\n");
      client.send(std::string(5'000'000, 'x'));
      client.shut_down_sending();
      client.receive_all();
    });
  });
}

TEST_CASE("writing to a client that has gone raises SIGPIPE", "[trap][M5]") {
  check_only_naive_falls_into([](Echod& server) {
    std::string lines = "\n";
    while (lines.size() < 4000) lines += "y\n";
    for (int tries = 0; tries < 5; ++tries) {
      const bool gone = throws([&] {
        Client client(server.port());
        client.send("x");
        // Nothing comes: by then one_client waits for the rest of the line.
        client.hears_within(100ms);
        server.signal(SIGSTOP);
        // So that echod also writes twice: the lines, then this half.
        client.send(lines + "half a line");
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
  check_only_naive_falls_into(
      [](Echod& server) {
        std::vector<Client> clients;
        clients.reserve(40);
        for (int i = 0; i < 40; ++i) clients.emplace_back(server.port());
        std::this_thread::sleep_for(2s);
        const auto lost = std::any_of(clients.begin(), clients.end(),
                                      [](Client& client) { return client.hears_within(0ms); });
        clients.clear();
        server.stop();
        return lost || server.cpu_seconds() > 0.25;
      },
      20);
}

TEST_CASE("a line that never ends takes all memory", "[trap][E2]") {
  if (Echod().peak_kilobytes() == 0) return;  // memory use is not known here
  check_only_naive_falls_into([](Echod& server) {
    const std::string line = std::string(60'000'000, 'x') + '\n';
    return Client(server.port()).exchange(line) != line || server.peak_kilobytes() > 50'000;
  });
}

TEST_CASE("a restarted server cannot bind because of TIME_WAIT", "[trap][C3]") {
  for (const bool naive : {true, false}) {
    const std::string program = naive ? naive_program() : "";
    if (naive && program.empty()) continue;
    Echod server({.program = program});
    Client client(server.port());
    client.send("\n");
    CHECK(client.how_it_ends() == "end-of-file");
    server.signal(SIGKILL);
    server.wait();
    Process again({.options = {"127.0.0.1", std::to_string(server.port())}, .program = program});
    CHECK((again.line().find("listening on") == std::string::npos) == naive);
  }
}
