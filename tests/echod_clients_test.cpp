// The program, end to end: many clients, bad clients. [M1] to [M5]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "echod/server.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

void check_echo(Client& client, const std::string& line) {
  client.send(line);
  CHECK(client.receive(line.size()) == line);
}

/// FreeBSD measures a process only when it runs for a while.
void warm_up(std::uint16_t port) {
  std::string lines;
  while (lines.size() < 5'000'000) lines += "to measure it by\n";
  CHECK((Client(port).exchange(lines) == lines));
}

}  // namespace

TEST_CASE("[M1] 3,000 clients at once are all echoed") {
  echod::raise_descriptor_limit();
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const std::size_t count = static_cast<std::size_t>(std::min<rlim_t>(3000, limit.rlim_cur - 64));
  Echod echod;
  std::vector<Client> clients;
  for (std::size_t i = 0; i < count; ++i) {
    clients.emplace_back(echod.port());
    if (i % 50 == 49) check_echo(clients.back(), "no more than the kernel's queue takes\n");
  }
  for (std::size_t i = 0; i < count; ++i) clients[i].send("client " + std::to_string(i) + "\n");
  for (std::size_t i = 0; i < count; ++i) {
    const std::string expected = "client " + std::to_string(i) + "\n";
    REQUIRE(clients[i].receive(expected.size()) == expected);
  }
}

TEST_CASE("[M1] [M2] clients that send and never read delay no other, and cost nothing while they are stuck") {
  constexpr auto time_stuck = 3s;
  Echod echod;
  std::vector<Client> stuck;
  for (int i = 0; i < 50; ++i) {
    stuck.emplace_back(echod.port(), "127.0.0.1", 32768);
    stuck.back().send_until_stuck(long_line, 20ms);
  }
  const auto start = std::chrono::steady_clock::now();
  Client client(echod.port());
  do {
    check_echo(client, "still here?\n");
    std::this_thread::sleep_for(100ms);
  } while (std::chrono::steady_clock::now() - start < time_stuck);
  stuck.clear();
  client.close();
  CHECK(echod.stop() == 0);
  // What it took to fill the fifty is in this as well; a loop that spins would take all of the time.
  if (!sanitized) CHECK(echod.cpu_seconds() < 0.5 * std::chrono::duration<double>(time_stuck).count());
}

TEST_CASE("[M2] a client that reads late loses nothing") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  const std::size_t sent = client.send_until_stuck(long_line, 500ms);
  client.shut_down_sending();
  const std::string received = client.receive_all();
  REQUIRE(received.size() == sent);
  for (std::size_t i = 0; i < sent; ++i)
    if (received[i] != long_line[i % long_line.size()]) FAIL("byte " << i << " differs");
}

TEST_CASE("[M2] a client that has caught up costs no CPU, and no buffer is left of it") {
  const std::string unterminated(60'000, 'x');
  double peaks[2] = {};
  for (const bool many : {false, true}) {
    Echod echod;
    warm_up(echod.port());
    std::vector<Client> clients;
    for (int i = 0; i < (many ? 150 : 1); ++i) {
      Client& client = clients.emplace_back(echod.port(), "127.0.0.1", 32768);
      const std::size_t sent = client.send_until_stuck(long_line, 20ms);
      CHECK(client.receive(sent / long_line.size() * long_line.size()).size() ==
            sent / long_line.size() * long_line.size());
      client.send("\x01" + unterminated);
      client.send("\n");
      const std::size_t rest = sent % long_line.size() + unterminated.size() + 2;
      CHECK(client.receive(rest).size() == rest);
    }
    if (!many) std::this_thread::sleep_for(2s);
    CHECK(echod.stop() == 0);
    peaks[many] = echod.peak_kilobytes();
    if (!many && !sanitized) CHECK(echod.cpu_seconds() < 0.5);
  }
  if (!sanitized) CHECK(peaks[1] - peaks[0] < 1500);
}

TEST_CASE("[M2] what is held and what is read are together at most 112 KiB") {
  Echod echod({"-v"});
  Client client(echod.port());
  client.send(std::string(60'000, 'x'));
  std::string line;
  do line = echod.line();
  while (line.find("holds 60000 bytes") == std::string::npos);
  client.send(std::string(60'000, 'y'));
  do line = echod.line();
  while (line.find(": read ") == std::string::npos);
  CHECK(std::stoi(line.substr(line.find(": read ") + 7)) <= 112 * 1024 - 60'000);
}

TEST_CASE("[M5] a client that resets ends nobody else's connection") {
  Echod echod;
  Client other(echod.port());
  check_echo(other, "before\n");
  for (int i = 0; i < 100; ++i) {
    Client client(echod.port());
    if (i % 2 == 0) client.send("held");
    client.reset();
  }
  check_echo(other, "after\n");
}

TEST_CASE("[M5] one that closes without reading its echo does not end the program") {
  Echod echod;
  for (int i = 0; i < 50; ++i) {
    Client client(echod.port());
    client.send_until_stuck(long_line, 0ms);
    client.close();
  }
  Client other(echod.port());
  check_echo(other, "no SIGPIPE\n");
}

TEST_CASE("[M5] a descriptor used again inherits nothing from a connection that was reset with output pending") {
  Echod echod;
  for (int round = 0; round < 300; ++round) {
    Client doomed(echod.port(), "127.0.0.1", 32768);
    doomed.send_until_stuck(long_line, 0ms);
    Client bystander(echod.port());
    doomed.reset();
    std::vector<Client> heirs;
    heirs.reserve(3);
    for (int i = 0; i < 3; ++i) heirs.emplace_back(echod.port());
    for (Client& heir : heirs) check_echo(heir, "heir of round " + std::to_string(round) + "\n");
    check_echo(bystander, "bystander\n");
    for (Client& heir : heirs) REQUIRE_FALSE(heir.hears_within(0ms));
  }
}

TEST_CASE("[M5] a client may reset at any stage") {
  Echod echod({}, 64);
  const std::string stages[] = {"",   "half a line", "a line\n",      "a line\nand a half",
                                "\n", "a line\n\n",  "a line\n\nmore"};
  for (int round = 0; round < 20; ++round) {
    for (const std::string& stage : stages) {
      for (const bool half_close : {false, true}) {
        for (const bool wait : {false, true}) {
          Client client(echod.port());
          client.send(stage);
          if (half_close) client.shut_down_sending();
          if (wait) client.hears_within(1ms);
          client.reset();
        }
      }
    }
  }
  Client other(echod.port());
  check_echo(other, "still here\n");
}

TEST_CASE("[M5] 2,000 connections, half of them ended by a reset, leave no descriptor open") {
  Echod echod({}, 64);
  for (int i = 0; i < 2000; ++i) {
    Client client(echod.port());
    if (i % 3 != 0) check_echo(client, "line\n");
    if (i % 2 == 0) client.reset();
  }
  std::vector<Client> clients;  // as many as the limit leaves room for, but for a few that the server needs
  clients.reserve(50);
  for (int i = 0; i < 50; ++i) clients.emplace_back(echod.port());
  for (Client& client : clients) check_echo(client, "there is room for all\n");
}

TEST_CASE("[M4] with 32 descriptors 100 clients are all served, in turn, and the server sleeps in between") {
  const auto start = std::chrono::steady_clock::now();
  Echod echod({}, 32);
  std::vector<Client> clients;
  clients.reserve(100);
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back(echod.port());
    clients.back().send("client " + std::to_string(i) + "\n");
  }
  std::this_thread::sleep_for(2500ms);  // out of descriptors, with a queue: the time to spin, if it did
  int waiting = 0;
  for (Client& client : clients) waiting += !client.hears_within(0ms);
  CHECK(waiting >= 68);
  CHECK(waiting < 90);
  for (int i = 0; i < 100; ++i) {
    const std::string expected = "client " + std::to_string(i) + "\n";
    REQUIRE(clients[static_cast<std::size_t>(i)].receive(expected.size()) == expected);
    clients[static_cast<std::size_t>(i)].close();
  }
  CHECK(echod.stop() == 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!sanitized) CHECK(echod.cpu_seconds() < seconds / 4);
}

TEST_CASE("[M3] an idle connection costs under 512 bytes, and an idle server no CPU") {
  echod::raise_descriptor_limit();
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const auto most = static_cast<std::size_t>(std::min<rlim_t>(4000, limit.rlim_cur - 64));
  double peaks[2] = {};
  double cpu[2] = {};
  for (const bool many : {false, true}) {
    Echod echod;
    warm_up(echod.port());
    std::vector<Client> clients;
    clients.reserve(most);
    for (std::size_t i = 0; i < (many ? most : 10); ++i) {
      clients.emplace_back(echod.port());
      check_echo(clients.back(), "one line\n");
    }
    std::this_thread::sleep_for(many ? 0s : 2s);
    CHECK(echod.stop() == 0);
    peaks[many] = echod.peak_kilobytes();
    cpu[many] = echod.cpu_seconds();
  }
  if (sanitized) return;
  CHECK((peaks[1] - peaks[0]) * 1024 / static_cast<double>(most) < 512);
  CHECK(cpu[0] < 0.5);  // of two seconds: what it takes to start, to warm up and to stop
}
