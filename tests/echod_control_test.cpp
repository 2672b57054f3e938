// The program, end to end: the command line, and signals. [C1] to [C7]
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

constexpr int ex_usage = 64;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Until it has seen its first signal, a program accepts connections.
void wait_until_refused(std::uint16_t port) {
  try {
    for (;;) Client client(port);
  } catch (const std::exception&) {
  }
}

}  // namespace

TEST_CASE("[C1] [C2] an IPv6 address is served, and announced in brackets") {
  Process echod({"::1", "0"});
  const std::string announcement = echod.line();
  if (announcement.rfind("echod: cannot listen on [::1]:0: ", 0) == 0) {
    WARN("no IPv6 on this machine");
    return;
  }
  CHECK(announcement.rfind("echod: listening on [::1]:", 0) == 0);
  CHECK(Client(port_of(announcement), "::1").exchange("six") == "six");
}

TEST_CASE("[C1] a host name is served") {
  Process echod({"localhost", "0"});
  CHECK(echod.line().rfind("echod: listening on ", 0) == 0);
}

TEST_CASE("[C1] [C6] a bad port is a message, the usage, and exit status 64") {
  for (const char* port : {"99999", "65536", "-1", "80x", "http", " 80", "", "+80", "0x50"}) {
    const Result result = run_echod({"--", "127.0.0.1", port});
    INFO(result.output);
    CHECK(result.status == ex_usage);
    CHECK(contains(result.output, "echod: the port must be a number from 0 to 65535: '" + std::string(port) + "'\n"));
    CHECK(contains(result.output, "usage: echod "));
  }
  CHECK(run_echod({"127.0.0.1", "-1"}).status == ex_usage);
}

TEST_CASE("[C6] [M6] so is a bad timeout") {
  for (const char* seconds : {"0", "86401", "-1", "1.5", "x", ""}) {
    const Result result = run_echod({"-t", seconds});
    CHECK(result.status == ex_usage);
    CHECK(contains(result.output,
                   "echod: the timeout must be a number from 1 to 86400: '" + std::string(seconds) + "'\n"));
  }
  CHECK(run_echod({"-t"}).status == ex_usage);
}

TEST_CASE("[M6] -t closes a silent client after so many seconds") {
  Echod echod({"-t", "1"});
  Client client(echod.port());
  CHECK(client.exchange("in time") == "in time");
  Client silent(echod.port());
  CHECK(silent.receive_all().empty());
}

TEST_CASE("[C6] so are an unknown option, an empty address and a third argument") {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"-x"}, {"--nonsense"}, {""}, {"127.0.0.1", "0", "more"}}) {
    const Result result = run_echod(arguments);
    INFO(result.output);
    CHECK(result.status == ex_usage);
    CHECK(result.output.find("usage: echod ") > 0);
    CHECK(contains(result.output, "\nusage: echod "));
  }
}

TEST_CASE("[C6] help and version are asked for, and no error") {
  for (const char* option : {"-h", "--help"}) {
    const Result result = run_echod({option});
    CHECK(result.status == 0);
    CHECK(contains(result.output, "usage: echod "));
  }
  for (const char* option : {"-V", "--version"}) {
    const Result result = run_echod({option});
    CHECK(result.status == 0);
    CHECK(result.output.rfind("echod ", 0) == 0);
  }
}

TEST_CASE("[C6] what cannot be listened on is one line with the address and the reason") {
  Echod first;
  const std::string port = std::to_string(first.port());
  const Result in_use = run_echod({"127.0.0.1", port});
  CHECK(in_use.status == 1);
  CHECK(in_use.output == "echod: cannot listen on 127.0.0.1:" + port + ": " + std::strerror(EADDRINUSE) + "\n");

  const Result elsewhere = run_echod({"192.0.2.1", "0"});
  CHECK(elsewhere.status == 1);
  CHECK(elsewhere.output == "echod: cannot listen on 192.0.2.1:0: " + std::string(std::strerror(EADDRNOTAVAIL)) + "\n");

  const Result unknown = run_echod({"no-such-host.invalid", "80"});
  CHECK(unknown.status == 1);
  CHECK(unknown.output.rfind("echod: cannot listen on no-such-host.invalid:80: ", 0) == 0);
}

TEST_CASE("[C3] SIGINT and SIGTERM end the program with status 0") {
  for (const int number : {SIGINT, SIGTERM}) {
    Echod echod;
    echod.signal(number);
    CHECK(echod.wait() == 0);
  }
}

TEST_CASE("[C3] a client that is idle at the signal has its echo, then the end") {
  Echod echod;
  Client client(echod.port());
  client.send("line\nheld");
  CHECK(client.receive(5) == "line\n");
  CHECK(echod.stop() == 0);
  CHECK(client.receive_all().empty());
}

TEST_CASE("[C3] output that is pending at the signal is still sent, and the end is clean") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  client.send_until_stuck(long_line, 500ms);
  echod.signal(SIGTERM);
  wait_until_refused(echod.port());
  const std::string echo = client.receive_all();  // throws if it is reset, although we have more to send
  CHECK(echo.size() > long_line.size());
  CHECK(echo.substr(0, long_line.size()) == long_line);
  client.close();
  CHECK(echod.wait() == 0);
}

TEST_CASE("[C3] a client that never reads has its time, then the program ends all the same") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  client.send_until_stuck(long_line, 500ms);
  const auto start = std::chrono::steady_clock::now();
  CHECK(echod.stop() == 0);
  CHECK(std::chrono::steady_clock::now() - start > 4s);
  CHECK(std::chrono::steady_clock::now() - start < 10s);
}

TEST_CASE("[C3] a second signal ends the program at once") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  client.send_until_stuck(long_line, 500ms);
  echod.signal(SIGTERM);
  wait_until_refused(echod.port());
  echod.signal(SIGTERM);
  CHECK(echod.wait() == -SIGTERM);
}

TEST_CASE("[C3] input that the server has not read at the signal does not take the echo away") {
  Echod echod;
  Client client(echod.port());
  client.send("a line\n");
  CHECK(client.hears_within(60s));
  echod.signal(SIGSTOP);
  echod.signal(SIGTERM);
  const std::size_t sent = client.send_until_stuck(long_line, 0ms);  // more than one read takes
  echod.signal(SIGCONT);
  const std::string echo = client.receive_all();
  CHECK(echo.size() >= 7);
  CHECK(echo.size() <= 7 + sent);
  CHECK(echo.substr(0, 7) == "a line\n");
  client.close();
  CHECK(echod.wait() == 0);
}

TEST_CASE("[C3] two signals that come as one end the program at once") {
  Echod echod;
  Client client(echod.port(), "127.0.0.1", 32768);
  client.send_until_stuck(long_line, 500ms);
  echod.signal(SIGSTOP);
  echod.signal(SIGINT);
  echod.signal(SIGTERM);
  echod.signal(SIGCONT);
  const int status = echod.wait();
  CHECK((status == -SIGTERM || status == -SIGINT));
}

TEST_CASE("[C3] the same port can be listened on again at once") {
  std::uint16_t port = 0;
  {
    Echod echod;
    port = echod.port();
    Client client(port);
    client.send("line\n");
    CHECK(client.receive(5) == "line\n");
    CHECK(echod.stop() == 0);  // it closes first: the connection is left in TIME_WAIT
    CHECK(client.receive_all().empty());
  }
  Process again({"127.0.0.1", std::to_string(port)});
  CHECK(again.line() == "echod: listening on 127.0.0.1:" + std::to_string(port));
}

TEST_CASE("[C4] SIGUSR1, and SIGINFO where there is one, report in a line") {
  Echod echod;
  CHECK(Client(echod.port()).exchange("12345\n67") == "12345\n67");
  Client open(echod.port());
  open.send("abc\nheld");
  CHECK(open.receive(4) == "abc\n");
  echod.signal(SIGUSR1);
  CHECK(echod.line() == "echod: 1 connections open, 2 accepted, 12 bytes echoed");
#ifdef SIGINFO
  echod.signal(SIGINFO);
  CHECK(echod.line() == "echod: 1 connections open, 2 accepted, 12 bytes echoed");
#endif
  CHECK(echod.stop() == 0);
}

TEST_CASE("[C5] -v tells a session: what the kqueue was asked, what it said, and what came of it") {
  Echod echod({"-v"});
  CHECK(Client(echod.port()).exchange("hello\nwor") == "hello\nwor");
  CHECK(echod.stop() == 0);
  const std::string trace = echod.output();
  INFO(trace);
  std::size_t at = 0;
  for (const char* expected :
       {"batch   ", "event   fd ", "EVFILT_READ ", ": accepted from 127.0.0.1:", "change  fd ",
        "EVFILT_READ    EV_ADD ", "event   fd ", ": read ", ": holds 3 bytes of an unfinished line\n", "event   fd ",
        "EV_EOF ", ": read 0 bytes: end of input\n", ": wrote 3 of 3 bytes\n", ": ended: all is sent\n", ": closed\n",
        "event   signal 15 ", "EVFILT_SIGNAL ", ": stops listening\n"}) {
    at = trace.find(expected, at);
    INFO("expected next: " << expected);
    REQUIRE(at != std::string::npos);
  }
}

TEST_CASE("[C5] without -v nothing but the announcement is said") {
  Echod echod;
  CHECK(Client(echod.port()).exchange("hello\n") == "hello\n");
  CHECK(echod.stop() == 0);
  CHECK(echod.output().empty());
}

TEST_CASE("[C4] with standard error closed, no client gets what is meant for it") {
  const std::uint16_t port = Echod().port();  // it was free, and will be again
  Process echod({"127.0.0.1", std::to_string(port)}, 0, "", Process::Output::closed);
  std::optional<Client> client;
  for (int tries = 0; !client && tries < 600; ++tries) {
    try {
      client.emplace(port);
    } catch (const std::exception&) {
      std::this_thread::sleep_for(100ms);
    }
  }
  REQUIRE(client);
  client->send("a line\n");
  CHECK(client->receive(7) == "a line\n");
  echod.signal(SIGUSR1);
  CHECK_FALSE(client->hears_within(200ms));
  client->send("another\n");
  CHECK(client->receive(8) == "another\n");
}
