// Tests the program end to end: what it echoes, and how it closes a connection.
#include <chrono>
#include <csignal>
#include <string>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "descriptors.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_line = 65536;

/// Returns lines of many lengths. None of them is empty.
std::string lines(std::size_t size) {
  std::string text;
  for (std::size_t i = 0; text.size() < size; ++i) {
    text += "line " + std::to_string(i);
    text.append(i * 7919 % 300, static_cast<char>('a' + i % 26));
    text += '\n';
  }
  return text;
}

}  // namespace

TEST_CASE("lines come back as they are sent", "[E1]") {
  const Echod echod;
  Client client(echod.port());
  for (const std::string& sent :
       {std::string("hello\n"), std::string("two\r\nat once\n"), std::string("\0\xff\x01\n", 4)})
    CHECK(client.echoes(sent));
}

TEST_CASE("half a line waits for the other half", "[E2]") {
  const Echod echod;
  Client client(echod.port());
  client.send("whole\nha");
  CHECK(client.receive(6) == "whole\n");
  CHECK_FALSE(client.hears_within(100ms));
  client.send("lf\n");
  CHECK(client.receive(5) == "half\n");
}

TEST_CASE("a line without end is held up to the limit only", "[E2]") {
  const Echod echod;
  Client client(echod.port());
  CHECK(client.echoes(std::string(max_line, 'x')));
  CHECK(client.echoes("y"));
}

TEST_CASE("30 MB without a newline come back, and the process grows by less than 1 MB",
          "[E2][M2]") {
  const Echod echod;
  CHECK((Client(echod.port()).exchange(lines(5'000'000)) == lines(5'000'000)));
  const double before = echod.peak_kilobytes();
  const std::string much(30'000'000, 'x');
  CHECK((Client(echod.port()).exchange(much) == much));
  CHECK(echod.peak_kilobytes() - before < 1024);
}

TEST_CASE("an empty line ends the session and is not echoed", "[E3]") {
  const Echod echod;
  Client client(echod.port());
  client.send("a\n\nb\n");
  CHECK(client.receive_all() == "a\n");
}

TEST_CASE("a line of white space ends the session, unless it is too long to be held", "[E3]") {
  const Echod echod;
  Client client(echod.port());
  client.send("a\n" + std::string(max_line - 1, ' '));
  client.send("\nb\n");
  CHECK(client.receive_all() == "a\n");

  const std::string longer = std::string(max_line, '\t') + "\n";
  CHECK((Client(echod.port()).exchange(longer) == longer));
}

TEST_CASE("after a half-close everything comes back, with an unterminated line, and then the end",
          "[E4]") {
  const Echod echod;
  for (const char* const sent : {"a\nb", " ", ""})
    CHECK(Client(echod.port()).exchange(sent) == sent);
}

TEST_CASE("5 MB that are sent and half-closed at once come back identical", "[E4]") {
  const Echod echod;
  const std::string much = lines(5'000'000);
  CHECK((Client(echod.port()).exchange(much) == much));
}

TEST_CASE("a client that is still sending after the empty line is not reset", "[E5]") {
  const Echod echod;
  Client client(echod.port());
  const std::string header = "POST / HTTP/1.1\r\nContent-Length: 5000000\r\n";
  client.send(header + "\r\n");
  CHECK(client.receive_all() == header);  // the end has come, but the client keeps sending
  client.send(std::string(5'000'000, 'x'));
  CHECK(client.how_it_ends() == "end-of-file");
}

TEST_CASE("output that is pending at the empty line is sent before the end", "[E5]") {
  const Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  const std::string much = lines(3'000'000);
  CHECK((client.exchange(much + "\nrest\n") == much));
}

TEST_CASE("the clients of a server that is killed are reset", "[E6]") {
  Echod echod;
  Client idle(echod.port());
  CHECK(idle.echoes("a line\n"));
  StuckClient halfway(echod.port());
  CHECK(halfway.has_sent(halfway.receive(1000)));
  echod.signal(SIGKILL);
  CHECK(echod.wait() == -SIGKILL);
  CHECK(halfway.how_it_ends() == "reset");
  CHECK(idle.how_it_ends() == "reset");
}

TEST_CASE("a lingering connection ends when its client closes", "[E5][M3]") {
  Echod echod;
  Client client(echod.port());
  const auto start = std::chrono::steady_clock::now();
  client.send("\n");
  CHECK(client.how_it_ends() == "end-of-file");
  client.close();
  const std::string closed = "echod: connections: 0 open, 1 accepted; 0 bytes echoed";
  const auto ask = [&] {
    echod.signal(SIGUSR1);
    return echod.line();
  };
  std::string status = ask();
  while (status != closed && std::chrono::steady_clock::now() - start < 4s) status = ask();
  CHECK(status == closed);  // its time would be up after 5 s
}
