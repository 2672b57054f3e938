// Tests the program end to end, with many clients and with clients that misbehave.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "descriptors.hpp"
#include "patience.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

/// Connects `count` clients.
std::vector<Client> connect_many(std::uint16_t port, int count) {
  std::vector<Client> clients;
  for (int i = 0; i < count; ++i) {
    clients.emplace_back(port);
    if (i % 50 == 49) REQUIRE(clients.back().echoes("no more than the accept queue can hold\n"));
  }
  return clients;
}

/// Reads the echo of all complete lines. The rest of the last one stays with the server.
void catch_up(StuckClient& client) {
  const std::size_t lines = client.sent() / StuckClient::line_size * StuckClient::line_size;
  CHECK(client.receive(lines).size() == lines);
}

/// Checks that a server uses little CPU time while it has nothing to do.
class SleepCheck {
 public:
  /// From now on, the server has nothing to do.
  void begin(const Process& server) {
    begin_ = Clock::now();
    cpu_before_ = cpu_of(server.pid());
    // If it is not known: a single thread has used no more than all of the time.
    if (cpu_before_ < 0) cpu_before_ = seconds(begin_ - start_);
  }
  /// Stops the server, and checks its CPU time since begin(). A loop that spins uses all of the
  /// time, or its share on a busy machine.
  void end(Process& server) const {
    CHECK(server.stop() == 0);
    const double time = seconds(Clock::now() - begin_);
    if (!sanitized) CHECK(server.cpu_seconds() - cpu_before_ < time / 6);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds(Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  }
  Clock::time_point start_ = Clock::now();  // before the server starts
  Clock::time_point begin_;
  double cpu_before_ = 0;
};

/// A server with 32 descriptors, and more clients than it can serve at once.
struct Crowd {
  Echod echod{{.descriptors = 32}};
  std::vector<Client> clients;
  std::string announcement;  // of the pause

  explicit Crowd(std::size_t count) {
    while (clients.size() < count) clients.emplace_back(echod.port());
    announcement = echod.line();
  }
  std::string status() {
    echod.signal(SIGUSR1);
    return echod.line_with("connections: ");
  }
};

}  // namespace

TEST_CASE("3,000 clients at once are all echoed", "[M1]") {
  if (!can_open(3100)) return;
  const Echod echod;
  std::vector<Client> clients = connect_many(echod.port(), 3000);
  const auto line = [](std::size_t i) { return "client " + std::to_string(i) + "\n"; };
  for (std::size_t i = 0; i < clients.size(); ++i) clients[i].send(line(i));
  for (std::size_t i = 0; i < clients.size(); ++i)
    REQUIRE(clients[i].receive(line(i).size()) == line(i));
}

TEST_CASE(
    "clients that send and never read delay no other client, and use no CPU while they are stuck",
    "[M1][M2]") {
  SleepCheck sleeps;
  Echod echod;
  std::vector<StuckClient> stuck;
  while (stuck.size() < 50) stuck.emplace_back(echod.port());
  Client client(echod.port());
  sleeps.begin(echod);
  for (int i = 0; i < 20; ++i) {
    CHECK(client.echoes("still here?\n"));
    std::this_thread::sleep_for(100ms);
  }
  stuck.clear();
  client.close();
  sleeps.end(echod);
}

TEST_CASE("a client that reads late loses nothing", "[M2]") {
  const Echod echod;
  StuckClient client(echod.port());
  client.shut_down_sending();
  const std::string received = client.receive_all();
  CHECK(received.size() == client.sent());
  CHECK(client.has_sent(received));
}

TEST_CASE("at most 112 KiB of a client are held and read", "[M2]") {
  Echod echod({.options = {"--verbose"}});
  Client client(echod.port());
  client.send(std::string(60'000, 'x'));
  CHECK_FALSE(echod.line_with("held 60000").empty());
  client.send(std::string(60'000, 'y'));
  const std::string line = echod.line_with("received ");
  CHECK(std::stoi(line.substr(line.find("received ") + 9)) <= 112 * 1024 - 60'000);
}

TEST_CASE(
    "a descriptor that is used again has nothing left of a reset connection with pending output",
    "[M5]") {
  const Echod echod;
  for (int round = 0; round < 20; ++round) {
    StuckClient doomed(echod.port());
    Client bystander(echod.port());
    doomed.reset();
    std::vector<Client> heirs;
    while (heirs.size() < 3) heirs.emplace_back(echod.port());
    for (Client& heir : heirs)
      REQUIRE(heir.echoes("heir of round " + std::to_string(round) + "\n"));
    REQUIRE(bystander.echoes("bystander\n"));
    for (const Client& heir : heirs) REQUIRE_FALSE(heir.hears_within(0ms));
  }
}

TEST_CASE("a client may reset at any stage", "[M5]") {
  const Echod echod({.descriptors = 64});
  const std::string stages[] = {"",   "half a line", "a line\n",      "a line\nand a half",
                                "\n", "a line\n\n",  "a line\n\nmore"};
  const auto connect = [&] {
    for (int tries = 0;; ++tries) {
      try {
        return Client(echod.port());
      } catch (const std::system_error& error) {  // the accept queue is full (FreeBSD)
        if (error.code().value() != ECONNRESET || tries == 100) throw;
        std::this_thread::sleep_for(100ms);
      }
    }
  };
  for (int i = 0; i < 20 * 7 * 4; ++i) {
    try {
      Client client = connect();
      client.send(stages[i % 7]);
      if (i / 7 % 2 == 1) client.shut_down_sending();
      if (i / 14 % 2 == 1) client.hears_within(1ms);
      client.reset();
    } catch (const std::system_error& error) {
      CHECK(error.code().value() == ECONNRESET);
    }
  }
  CHECK(connect().echoes("still here\n"));
}

TEST_CASE("2,000 connections leave no descriptor open, half of them ended by a reset", "[M5]") {
  const Echod echod({.descriptors = 64});
  for (int i = 0; i < 2000; ++i) {
    Client client(echod.port());
    if (i % 3 != 0) REQUIRE(client.echoes("line\n"));
    if (i % 2 == 0) client.reset();
  }
  // Nearly as many as the limit allows: the server needs a few descriptors itself.
  std::vector<Client> clients;
  while (clients.size() < 50) clients.emplace_back(echod.port());
  for (Client& client : clients) CHECK(client.echoes("there is room for all\n"));
}

TEST_CASE(
    "with 32 descriptors 100 clients are all served in turn, and the server sleeps in between",
    "[M4]") {
  if (!can_open(120)) return;
  SleepCheck sleeps;
  Crowd crowd(100);
  const auto line = [](std::size_t i) { return "client " + std::to_string(i) + "\n"; };
  for (std::size_t i = 0; i < 100; ++i) crowd.clients[i].send(line(i));
  // Clients wait and no descriptor is free: a faulty loop would spin now.
  sleeps.begin(crowd.echod);
  std::this_thread::sleep_for(1s);
  CHECK_FALSE(crowd.clients.back().hears_within(0ms));
  for (std::size_t i = 0; i < 100; ++i) {
    REQUIRE(crowd.clients[i].receive(line(i).size()) == line(i));
    crowd.clients[i].close();
  }
  sleeps.end(crowd.echod);
}

TEST_CASE("a pause is said once a second at most", "[C4][M4]") {
  if (!can_open(100)) return;
  const auto start = std::chrono::steady_clock::now();
  Crowd crowd(60);
  CHECK(crowd.announcement == std::string("echod: accepting paused: ") + std::strerror(EMFILE));
  for (std::size_t i = 0; i < 30; ++i) {
    CHECK(crowd.clients[i].echoes("a line\n"));
    crowd.clients[i].close();  // the next one is accepted, and the server pauses again
  }
  crowd.echod.signal(SIGUSR1);
  int said = 1;
  while (contains(crowd.echod.line(), "accepting paused: ")) ++said;
  CHECK(said <= 1 + (std::chrono::steady_clock::now() - start) / 1s);
}

TEST_CASE("the status line says whether accepting is paused", "[C4][M4]") {
  Crowd crowd(40);
  const std::string paused = crowd.status();
  CHECK(paused.substr(paused.find(';')) == "; 0 bytes echoed; accepting paused");
  for (std::size_t i = 0; i < 20; ++i) crowd.clients[i].close();
  CHECK(crowd.clients.back().echoes("a line\n"));
  const auto start = std::chrono::steady_clock::now();
  std::string status = crowd.status();
  while (contains(status, "paused") && std::chrono::steady_clock::now() - start < patience)
    status = crowd.status();  // it may not have seen all ends yet
  CHECK_FALSE(contains(status, "paused"));
}

TEST_CASE("a server that has paused can be stopped", "[C3][M4]") {
  Crowd crowd(40);
  CHECK(crowd.echod.stop() == 0);
}

TEST_CASE("an idle connection costs less than 512 bytes", "[M3]") {
  if (!can_open(4200)) return;
  const Echod echod;
  connect_many(echod.port(), 100);
  const double before = echod.peak_kilobytes();
  const std::vector<Client> clients = connect_many(echod.port(), 4000);
  CHECK((echod.peak_kilobytes() - before) * 1024 / static_cast<double>(clients.size()) < 512);
}

TEST_CASE("idle clients use no CPU", "[M2][M3]") {
  if (!can_open(120)) return;
  SleepCheck sleeps;
  Echod echod;
  const std::vector<Client> clients = connect_many(echod.port(), 100);
  StuckClient client(echod.port());
  catch_up(client);
  sleeps.begin(echod);
  std::this_thread::sleep_for(1s);
  sleeps.end(echod);
}

#ifdef __linux__
TEST_CASE("without memory no client has an orderly end before its echo is complete", "[E6][M4]") {
  if (sanitized || !can_open(350)) return;  // the sanitizer needs more address space
  const std::string unfinished(50'000, 'x');
  Echod echod({.memory = 8'000'000});
  std::vector<std::optional<Client>> clients(300);
  for (auto& client : clients) {
    client.emplace(echod.port());
    client->send("a line\n" + unfinished);
  }
  CHECK(echod.line() == std::string("echod: accepting paused: ") + std::strerror(ENOMEM));
  int complete = 0;
  int reset = 0;
  for (auto& client : clients) {
    try {
      client->send("\n");
      const bool all = client->receive(unfinished.size() + 8) == "a line\n" + unfinished + "\n";
      CHECK(all);  // otherwise an orderly end truncated it
      complete += all;
    } catch (const std::system_error& error) {
      const int number = error.code().value();
      CHECK((number == ECONNRESET || number == EPIPE));
      ++reset;
    }
    client.reset();  // frees memory for the others
  }
  CHECK(complete > 0);
  CHECK(reset > 0);
  CHECK(Client(echod.port()).exchange("again\n") == "again\n");
  CHECK(echod.stop() == 0);
}
#endif
