// Tests what the programs of src/tutorial get right. What they get wrong is in traps_test.cpp.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "descriptors.hpp"
#include "model.hpp"
#include "patience.hpp"
#include "process.hpp"
#include "tutorial.hpp"

namespace {

/// A running server of the tutorial.
struct Server : Echod {
  explicit Server(const std::string& name = "kqueue_echo_server", rlim_t descriptors = 0)
      : Echod({.descriptors = descriptors, .program = tutorial_program(name)}) {}
};

/// Runs first_look on a pipe with a line in it.
class FirstLook {
 public:
  explicit FirstLook(bool at_end) {
    const std::string line = "hello\n";
    REQUIRE(::pipe(ends_) == 0);
    for (const int end : ends_) ::fcntl(end, F_SETFD, FD_CLOEXEC);
    REQUIRE(::write(ends_[1], line.data(), line.size()) == 6);
    if (at_end) close_input();
    const int saved = ::dup(STDIN_FILENO);
    ::dup2(ends_[0], STDIN_FILENO);
    process_ = std::make_unique<Process>(Start{.program = tutorial_program("first_look")});
    ::dup2(saved, STDIN_FILENO);
    ::close(saved);
    ::close(ends_[0]);
  }
  ~FirstLook() { close_input(); }
  FirstLook(const FirstLook&) = delete;

  std::string output() { return process_->output(); }

 private:
  void close_input() {
    if (ends_[1] >= 0) ::close(ends_[1]);
    ends_[1] = -1;
  }
  int ends_[2];
  std::unique_ptr<Process> process_;
};

/// Returns some lines, most of them short. None is blank.
std::string random_lines(std::mt19937& random) {
  std::string lines;
  for (auto count = random() % 20; count > 0; --count) {
    lines.append(random() % 10, ' ');
    lines.append(1 + random() % (random() % 20 == 0 ? 100'000 : 100), 'x');
    lines += random() % 2 == 0 ? "\r\n" : "\n";
  }
  return lines;
}

/// Sends `input` in random pieces. After some of them, waits for the echo of the lines that are
/// complete, so that the server cannot read the next piece with this one. Returns what has come.
std::string send_in_pieces(Client& client, std::string_view input, std::mt19937& random) {
  std::string received;
  for (std::size_t sent = 0; sent < input.size();) {
    const std::size_t most = random() % 4 == 0 ? input.size() : 40;
    const std::string_view piece = input.substr(sent, 1 + random() % most);
    client.send(piece);
    sent += piece.size();
    const std::size_t complete = input.substr(0, sent).rfind('\n') + 1;
    const std::string echo = echo_of(input.substr(0, complete));
    if (random() % 2 == 0) received += client.receive(echo.size() - received.size());
  }
  return received;
}

/// Returns the CPU time that the server uses to echo `input`.
double cost_of(const std::string& input) {
  Server server;
  CHECK(Client(server.port()).exchange(input) == input);
  server.stop();
  return server.cpu_seconds();
}

std::string repeated(const std::string& text, std::size_t size) {
  std::string result;
  while (result.size() < size) result += text;
  return result;
}

}  // namespace

TEST_CASE("the programs of the tutorial say how to use them", "[tutorial]") {
  for (const std::string name : {"one_client", "kqueue_echo_server"}) {
    Process process({.program = tutorial_program(name)});
    CHECK(process.output() == "usage: " + name + " address port\n");
    CHECK(process.wait() == 1);
  }
}

TEST_CASE("first_look shows what the flags do", "[tutorial]") {
#ifdef __linux__
  const std::string unread = "  an event: data 1";  // The adapter always says 1.
  const std::string read = "  an event: data 1";
#else
  const std::string unread = "  an event: data 6";
  const std::string read = "  an event: data 0";
#endif
  const std::string nothing = "  no event for two seconds\n";
  FirstLook open(false);
  FirstLook ended(true);
  const auto expected = [&](const std::string& event, const std::string& after_reading) {
    return "EV_ADD: type a line\n" + event + event + "EV_DISABLE\n" + nothing + "EV_ENABLE\n" +
           event + "read: 6 bytes\n" + after_reading + "EV_DELETE\n" + nothing + "EV_ENABLE\n";
  };
  // Its standard output is a pipe, so the error comes first.
  const std::string error = "  kevent: No such file or directory\n";
  CHECK(open.output() == error + expected(unread + "\n", nothing));
  CHECK(ended.output() == error + expected(unread + ", EV_EOF\n", read + ", EV_EOF\n"));
}

TEST_CASE("one_client echoes lines, and serves one client after the other", "[tutorial]") {
  const Server server("one_client");
  for (int i = 0; i < 3; ++i) {
    Client client(server.port());
    CHECK(client.echoes("hello\n"));
    client.send("two ");
    client.send("words\n");
    CHECK(client.receive(10) == "two words\n");
    client.send("\r\n");
    CHECK(client.how_it_ends() == "end-of-file");
  }
}

TEST_CASE("an empty line ends a connection of kqueue_echo_server", "[tutorial]") {
  const Server server;
  for (const std::string blank : {"\n", "\r\n", " \n", " \t\v\f\r\n"}) {
    Client client(server.port());
    client.send("before\n" + blank);
    CHECK(client.receive_all() == "before\n");
  }
}

TEST_CASE("kqueue_echo_server echoes 5 MB after a half-close", "[tutorial]") {
  const Server server;
  const std::string input = repeated("a line of some length\n", 5'000'000) + "no newline";
  Client client(server.port());
  CHECK(client.exchange(input) == input);
}

TEST_CASE("a slow reader delays no other client of kqueue_echo_server", "[tutorial]") {
  const Server server;
  StuckClient slow(server.port());
  CHECK(Client(server.port()).echoes("hello\n"));
  slow.shut_down_sending();
  CHECK(Client(server.port()).echoes("hello\n"));
  const std::string received = slow.receive_all();
  CHECK(received.size() == slow.sent());
  CHECK(slow.has_sent(received));
}

TEST_CASE("an echo that does not fit into the kernel's buffers waits for its reader",
          "[tutorial]") {
  const Server server;
  const std::string line = std::string(8'000'000, 'x') + "\n";
  Client slow(server.port());
  slow.send(line);
  REQUIRE(slow.hears_within(patience));  // By now the server has written once.
  CHECK(Client(server.port()).echoes("hello\n"));
  CHECK(slow.receive(line.size()) == line);
  CHECK(slow.echoes("hello\n"));
}

TEST_CASE("kqueue_echo_server echoes 1,000 clients at once", "[tutorial]") {
  if (!can_open(1100)) return;
  const Server server;  // inherits the limit
  std::vector<Client> clients;
  while (clients.size() < 1000) {
    clients.emplace_back(server.port());
    if (clients.size() % 50 == 0) REQUIRE(clients.back().echoes("the queue is empty again\n"));
  }
  const auto line = [](std::size_t i) { return "client " + std::to_string(i) + "\n"; };
  for (std::size_t i = 0; i < clients.size(); ++i) clients[i].send(line(i));
  for (std::size_t i = 0; i < clients.size(); ++i)
    REQUIRE(clients[i].receive(line(i).size()) == line(i));
}

TEST_CASE("how its input is split does not matter to kqueue_echo_server", "[tutorial]") {
  const Server server;
  std::mt19937 random(1);  // the same pieces in each run
  for (int i = 0; i < 200; ++i) {
    std::string input = random_lines(random);
    const bool blank_line = random() % 2 == 0;
    input += blank_line ? " \t\r\n" : "no newline";
    Client client(server.port());
    std::string received = send_in_pieces(client, input, random);
    if (!blank_line) client.shut_down_sending();
    received += client.receive_all();
    REQUIRE(received == echo_of(input));
  }
}

TEST_CASE("a client that resets ends only its own connection of kqueue_echo_server", "[tutorial]") {
  const Server server("kqueue_echo_server", 20);  // A leak of descriptors would show.
  Client other(server.port());
  for (int i = 0; i < 30; ++i) {
    Client idle(server.port());
    idle.reset();
    Client talking(server.port());
    talking.send("line\nhalf a line");
    talking.reset();
    StuckClient stuck(server.port());
    stuck.reset();
    REQUIRE(other.echoes("still here?\n"));
  }
}

TEST_CASE("short lines cost kqueue_echo_server about as much as long ones", "[tutorial]") {
  const double long_lines = cost_of(repeated(std::string(999, 'x') + "\n", 8'000'000));
  const double short_lines = cost_of(repeated("x\n", 8'000'000));
  CAPTURE(long_lines, short_lines);
  CHECK(short_lines < 10 * long_lines + 0.2);
}
