// The program, end to end: what it echoes, and how it closes. [E1] to [E5]
#include <chrono>
#include <string>

#include "catch.hpp"
#include "client.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

constexpr std::size_t max_line = 65536;

/// Lines of many lengths, none of them empty.
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

TEST_CASE("[E1] lines come back as they are sent") {
  Echod echod;
  Client client(echod.port());
  client.send("hello\n");
  CHECK(client.receive(6) == "hello\n");
  client.send("two\r\nat once\n");
  CHECK(client.receive(13) == "two\r\nat once\n");
  client.send(std::string("\0\xff\x01\n", 4));
  CHECK(client.receive(4) == std::string("\0\xff\x01\n", 4));
}

TEST_CASE("[E2] half a line waits for the other half") {
  Echod echod;
  Client client(echod.port());
  client.send("whole\nha");
  CHECK(client.receive(6) == "whole\n");
  CHECK_FALSE(client.hears_within(100ms));
  client.send("lf\n");
  CHECK(client.receive(5) == "half\n");
}

TEST_CASE("[E2] of a line without end no more than the limit is held") {
  Echod echod;
  Client client(echod.port());
  client.send(std::string(max_line, 'x'));
  CHECK(client.receive(max_line) == std::string(max_line, 'x'));
  client.send("y");
  CHECK(client.receive(1) == "y");
}

TEST_CASE("[E2] 30 MB without a newline come back, and the process does not grow by 1 MB") {
  const std::string much(30'000'000, 'x');
  double peaks[2] = {};
  for (const bool big : {false, true}) {
    Echod echod;
    const std::string few = lines(5'000'000);  // FreeBSD measures a process only when it runs for a while
    CHECK((Client(echod.port()).exchange(few) == few));
    if (big) CHECK((Client(echod.port()).exchange(much) == much));
    CHECK(echod.stop() == 0);
    peaks[big] = echod.peak_kilobytes();
  }
  if (!sanitized) CHECK(peaks[1] - peaks[0] < 1024);
}

TEST_CASE("[E3] an empty line ends the session, and is not echoed") {
  Echod echod;
  Client client(echod.port());
  client.send("a\n\nb\n");
  CHECK(client.receive_all() == "a\n");
}

TEST_CASE("[E3] a line of white space ends it, too, as far as it is held") {
  Echod echod;
  Client client(echod.port());
  client.send("a\n" + std::string(max_line - 1, ' '));
  client.send("\nb\n");
  CHECK(client.receive_all() == "a\n");

  const std::string longer = std::string(max_line, '\t') + "\n";
  CHECK((Client(echod.port()).exchange(longer) == longer));
}

TEST_CASE("[E4] after a half-close everything comes back, an unterminated line too, then the end") {
  Echod echod;
  CHECK(Client(echod.port()).exchange("a\nb") == "a\nb");
  CHECK(Client(echod.port()).exchange(" ") == " ");
  Client silent(echod.port());
  silent.shut_down_sending();
  CHECK(silent.receive_all().empty());
}

TEST_CASE("[E4] 5 MB sent and half-closed at once come back identical") {
  Echod echod;
  const std::string much = lines(5'000'000);
  CHECK((Client(echod.port()).exchange(much) == much));
}

TEST_CASE("[E5] a client that is still sending after the empty line is not reset") {
  Echod echod;
  Client client(echod.port());
  const std::string header = "POST / HTTP/1.1\r\nContent-Length: 5000000\r\n";
  client.send(header + "\r\n");
  CHECK(client.receive_all() == header);  // the end is there, and yet
  client.send(std::string(5'000'000, 'x'));
  CHECK(client.wait_for_end() == 0);
}

TEST_CASE("[E5] what is pending at the empty line is sent before the end") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  const std::string much = lines(3'000'000);
  CHECK((client.exchange(much + "\nrest\n") == much));
}
