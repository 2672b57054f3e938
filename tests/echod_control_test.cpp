// Tests the program end to end: its command line, its signals and its messages.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <deque>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __FreeBSD__
#include <sys/types.h>
// <sys/types.h> comes first: the other two need it.
#include <sys/sysctl.h>
#include <sys/user.h>
#include <unistd.h>
#endif

#include "catch.hpp"
#include "client.hpp"
#include "process.hpp"

using namespace std::chrono_literals;

namespace {

bool begins(const std::string& text, const std::string& part) { return text.rfind(part, 0) == 0; }

/// Runs echod with a bad command line, and returns its message.
std::string complaint(const std::vector<std::string>& options) {
  const Result result = run_echod(options);
  INFO(result.output);
  CHECK(result.status == 64);
  CHECK(begins(result.output, "echod: "));
  CHECK(contains(result.output, "\nusage: echod "));
  return result.output.substr(0, result.output.find('\n'));
}

}  // namespace

TEST_CASE("an IPv6 address is served, and announced in brackets", "[C1][C2]") {
  Process echod({.options = {"::1", "0"}});
  const std::string announcement = echod.line();
  if (begins(announcement, "echod: cannot listen on [::1]:0: ")) {
    WARN("no IPv6 on this machine");
    return;
  }
  CHECK(begins(announcement, "echod: listening on [::1]:"));
  CHECK(Client(port_of(announcement), "::1").exchange("six") == "six");
}

TEST_CASE("a host name is served", "[C1]") {
  const std::string line = Process({.options = {"localhost", "0"}}).line();
  INFO(line << " (is localhost in /etc/hosts?)");
  CHECK(begins(line, "echod: listening on "));
}

TEST_CASE("a single argument of digits is the port", "[C1]") {
  const std::string port = std::to_string(free_port());
  CHECK(Process({.options = {port}}).line() == "echod: listening on 127.0.0.1:" + port);
  CHECK(complaint({"99999"}) == "echod: the port must be a number from 0 to 65535: '99999'");
}

TEST_CASE("a bad port is a usage error", "[C1][C6]") {
  for (const std::string port :
       {"99999", "65536", "-1", "-0", "80x", "http", " 80", "", "+80", "0x50"}) {
    CHECK(complaint({"--", "127.0.0.1", port}) ==
          "echod: the port must be a number from 0 to 65535: '" + port + "'");
  }
  CHECK(complaint({"127.0.0.1", "-1"}) == "echod: the port must be a number from 0 to 65535: '-1'");
}

TEST_CASE("a bad timeout is a usage error", "[C6][M6]") {
  for (const std::string seconds : {"0", "86401", "-1", "1.5", "x", ""}) {
    for (const char* const option : {"-t", "--timeout"}) {
      CHECK(complaint({option, seconds}) ==
            "echod: the timeout must be a number from 1 to 86400: '" + seconds + "'");
    }
  }
}

TEST_CASE("an unknown option, a missing or empty argument and a third argument are usage errors",
          "[C6]") {
  CHECK(complaint({"-x"}) == "echod: bad option: -x");
  CHECK(complaint({"-vx"}) == "echod: bad option: -x");
  for (const std::string option : {"--nonsense", "--verbose=1", "--verb=1"})
    CHECK(complaint({option}) == "echod: bad option: " + option);
  CHECK(complaint({"a", "0", "b"}) == "echod: too many arguments: 'b'");
  complaint({""});
  CHECK(complaint({"", "0"}) == "echod: the address is empty");
  for (const char* const option : {"-t", "--timeout"})
    CHECK(complaint({option}) == "echod: the timeout is missing");
}

TEST_CASE("help and version go to standard output", "[C6]") {
  for (const char* const option : {"-h", "--help"}) {
    const Result result = run_echod({option});
    CHECK(result.status == 0);
    CHECK(begins(result.output, "usage: echod "));
  }
  for (const char* const option : {"-V", "--version"}) {
    const Result result = run_echod({option});
    CHECK(result.status == 0);
    CHECK(begins(result.output, "echod "));
  }
}

TEST_CASE("help that cannot be written is an error", "[C6]") {
  for (const char* const option : {"--help", "--version"})
    CHECK(Process({.options = {option}, .closed = true}).wait() == 1);
}

TEST_CASE("a failure to listen is one line with the address and the reason", "[C6]") {
  const Echod first;
  const std::string port = std::to_string(first.port());
  const Result in_use = run_echod({"127.0.0.1", port});
  CHECK(in_use.status == 1);
  CHECK(in_use.output ==
        "echod: cannot listen on 127.0.0.1:" + port + ": " + std::strerror(EADDRINUSE) + "\n");

  const Result unknown = run_echod({"no-such-host.invalid", "80"});
  CHECK(unknown.status == 1);
  CHECK(begins(unknown.output, "echod: cannot listen on no-such-host.invalid:80: "));
}

TEST_CASE("an address that contains a port or brackets is a bad command line", "[C1][C6]") {
  for (const std::string address : {"127.0.0.1:9090", "localhost:9090", "[::1]", "[::1]:9090"}) {
    const Result result = run_echod({address});
    INFO(result.output);
    CHECK(result.status == 64);
    CHECK(begins(result.output,
                 "echod: the address and the port are two arguments, without brackets: '" +
                     address + "'\nusage: echod "));
  }
}

TEST_CASE("an address that would not fit into a message is a bad command line", "[C6]") {
  const Result longest = run_echod({std::string(255, 'x'), "80"});
  CHECK(longest.status == 1);
  CHECK(begins(longest.output, "echod: cannot listen on " + std::string(255, 'x') + ":80: "));
  const Result too_long = run_echod({std::string(256, 'x'), "80"});
  CHECK(too_long.status == 64);
  CHECK(begins(too_long.output, "echod: the address is too long\nusage: echod "));
}

TEST_CASE("with any limit of descriptors the program serves a client or names the limit",
          "[C6][M4]") {
  if (sanitized) return;  // the sanitizer needs descriptors of its own
  bool serves = false;
  for (rlim_t limit = 4; limit < 24; ++limit) {
    Process echod({.options = {"127.0.0.1", "0"}, .descriptors = limit});
    const std::string line = echod.line();
    INFO(line);
    if (!begins(line, "echod: ")) continue;  // too few to load the program's libraries
    serves = begins(line, "echod: listening on ");
    if (serves) {
      CHECK(Client(port_of(line)).exchange("a line\n") == "a line\n");
    } else {
      CHECK(contains(line, " (the limit is " + std::to_string(limit) + ": see ulimit -n)"));
      CHECK(echod.output().empty());
      CHECK(echod.wait() == 1);
    }
  }
  CHECK(serves);
}

TEST_CASE("the timeout closes a silent client", "[C6][M6]") {
  std::deque<Echod> servers;
  for (const std::vector<std::string>& options :
       {std::vector<std::string>{"-t", "1"}, {"--timeout", "1"}, {"--timeout=1"}})
    servers.emplace_back(Start{.options = options});
  const auto start = std::chrono::steady_clock::now();
  std::vector<Client> silent;
  silent.reserve(servers.size());
  for (const Echod& echod : servers) silent.emplace_back(echod.port());
  for (const Echod& echod : servers) {
    echod.signal(SIGSTOP);  // so its time does not begin before everything is sent
    Client client(echod.port());
    client.send("in time");
    client.shut_down_sending();
    echod.signal(SIGCONT);
    CHECK(client.receive_all() == "in time");
  }
  for (Client& client : silent) {
    CHECK(client.receive_all().empty());
    CHECK(std::chrono::steady_clock::now() - start >= 1s);
  }
}

// A program that starts a server waits for this line, and may send a signal right after it.
TEST_CASE("signals are watched before the announcement", "[C2][C3]") {
  Process echod({.options = {"-v", "127.0.0.1", "0"}});
  std::vector<int> watched;
  for (std::string line = echod.line(); !begins(line, "echod: listening on ");
       line = echod.line()) {
    REQUIRE_FALSE(line.empty());
    if (begins(line, "change  signal ")) watched.push_back(std::stoi(line.substr(15)));
  }
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1})
    CHECK(std::count(watched.begin(), watched.end(), number) == 1);
}

TEST_CASE("SIGINT, SIGTERM and SIGHUP end the program with status 0", "[C3]") {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    Echod echod;
    echod.signal(number);
    CHECK(echod.wait() == 0);
  }
}

TEST_CASE("everything that had arrived before the signal is echoed", "[C3][E6]") {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    bool in_time = false;
    while (!in_time) {
      Echod echod;
      StuckClient client(echod.port());
      const std::size_t arrived = client.arrived();
      const auto start = std::chrono::steady_clock::now();
      echod.signal(number);
      wait_until_refused(echod.port());
      try {
        const std::string echo = client.receive_all();  // throws if it is reset
        in_time = true;
        CHECK(echo.size() >= arrived);
        CHECK(client.has_sent(echo));
      } catch (const std::system_error&) {
        // The program gives its clients 5 s. On a starved machine that may be too short to read.
        REQUIRE(std::chrono::steady_clock::now() - start > 4s);
      }
      client.close();
      CHECK(echod.wait() == 0);
    }
  }
}

TEST_CASE("input that the server has not read before the signal is echoed", "[C3][E6]") {
  Echod echod;
  Client client(echod.port());
  CHECK(client.echoes("a line\n"));
  std::string unread;
  for (int i = 0; i < 1000; ++i) unread += "line " + std::to_string(i) + "\n";
  echod.signal(SIGSTOP);
  client.send(unread + "held");
  client.wait_until_arrived();
  echod.signal(SIGTERM);
  echod.signal(SIGCONT);
  CHECK(client.receive(unread.size() + 4) == unread + "held");
  CHECK(client.how_it_ends() == "end-of-file");
  client.close();
  CHECK(echod.wait() == 0);
}

TEST_CASE(
    "a client that never reads has 5 seconds at a stop, and is reset unless another signal comes",
    "[C3][E6]") {
  Echod one;
  Echod other;
  StuckClient client(one.port());
  StuckClient others_client(other.port());
  const auto start = std::chrono::steady_clock::now();
  one.signal(SIGTERM);
  other.signal(SIGTERM);
  wait_until_refused(other.port());
  std::this_thread::sleep_for(1100ms);
  const auto second_signal = std::chrono::steady_clock::now();
  other.signal(SIGTERM);
  CHECK(other.wait() == 0);
  // If the second signal came much later, this may have been the end of the 5 seconds.
  if (second_signal - start < 2s) CHECK(std::chrono::steady_clock::now() - start < 5s);
  CHECK(others_client.how_it_ends() == "reset");
  CHECK(one.wait() == 0);
  CHECK(std::chrono::steady_clock::now() - start >= 5s);
  CHECK(client.how_it_ends() == "reset");
}

TEST_CASE("SIGUSR1, and SIGINFO where there is one, print a status line", "[C4]") {
  Echod echod;
  CHECK(Client(echod.port()).exchange("12345\n67") == "12345\n67");
  Client open(echod.port());
  open.send("abc\nheld");
  CHECK(open.receive(4) == "abc\n");
  std::vector<int> signals{SIGUSR1};
#ifdef SIGINFO
  signals.push_back(SIGINFO);
#endif
  for (const int number : signals) {
    echod.signal(number);
    CHECK(echod.line() == "echod: connections: 1 open, 2 accepted; 12 bytes echoed");
  }
}

TEST_CASE("status lines that nobody reads stop neither the server nor its end", "[C4]") {
  Echod echod;
  Client client(echod.port());
  for (int i = 0; i < 3000; ++i) {  // more than a pipe can hold
    echod.signal(SIGUSR1);
    REQUIRE(client.echoes("x\n"));
  }
  CHECK(echod.stop() == 0);
}

TEST_CASE("the trace shows each event, each change and what came of it", "[C5]") {
  Echod echod({.options = {"-v"}});
  CHECK(Client(echod.port()).exchange("hello\nwor") == "hello\nwor");
  CHECK(echod.stop() == 0);
  const std::string trace = echod.output();
  INFO(trace);
  std::size_t at = 0;
  for (const char* const expected : {"batch ",
                                     "event ",
                                     "EVFILT_READ ",
                                     ": accepted from 127.0.0.1:",
                                     "change ",
                                     "EVFILT_READ ",
                                     "EV_ADD ",
                                     "event ",
                                     "EVFILT_READ ",
                                     "received ",
                                     "held 3",
                                     "echoing\n",
                                     "event ",
                                     "EV_EOF ",
                                     "received 0, sent 3",
                                     "ended\n",
                                     "closed\n",
                                     "event ",
                                     "signal 15 ",
                                     "EVFILT_SIGNAL ",
                                     "stops listening\n"}) {
    at = trace.find(expected, at);
    INFO("expected next: " << expected);
    REQUIRE(at != std::string::npos);
  }
}

TEST_CASE("the trace tells a reset from an orderly end", "[C5][E6]") {
  Echod echod({.options = {"-v"}});
  CHECK(Client(echod.port()).exchange("a line\n") == "a line\n");
  CHECK(contains(echod.line_with("held 0: ended"), ": received 0, sent 0"));
  CHECK(contains(echod.line(), ": closed"));

  Client resets(echod.port());
  CHECK(resets.echoes("a line\n"));
  resets.reset();
  const std::string reason = std::string("held 0: ended: read: ") + std::strerror(ECONNRESET);
  CHECK_FALSE(echod.line_with(reason).empty());
  CHECK(contains(echod.line(), ": reset"));

  Client lingers(echod.port());
  lingers.send("\n");
  CHECK(lingers.receive_all().empty());
  lingers.reset();
  CHECK_FALSE(echod.line_with("held 0: ended: read: ").empty());
  CHECK(contains(echod.line(), ": reset"));
}

TEST_CASE("the trace shows the address of each client", "[C5]") {
  for (const std::string host : {"127.0.0.1", "::1"}) {
    Process echod({.options = {"-v", host, "0"}});
    const std::string announcement = echod.line_with("echod: ");
    if (contains(announcement, "cannot listen")) {
      WARN("no IPv6 on this machine");
      continue;
    }
    const Client client(port_of(announcement), host.c_str());
    const std::string line = echod.line_with("accepted");
    const std::string address = host == "::1" ? "[::1]" : host;
    const std::string expected = ": accepted from " + address + ":" + std::to_string(client.port());
    INFO(line);
    CHECK(begins(line, "  fd "));
    CHECK(line.substr(line.find(':')) == expected);
    CHECK(line.find_first_not_of("0123456789", 5) == line.find(':'));
  }
}

TEST_CASE("without -v only the announcement is printed", "[C5]") {
  Echod echod;
  CHECK(Client(echod.port()).exchange("hello\n") == "hello\n");
  CHECK(echod.stop() == 0);
  CHECK(echod.output().empty());
}

TEST_CASE("with standard error closed, no client receives what is meant for it", "[C4]") {
  const std::uint16_t port = free_port();
  const Process echod({.options = {"127.0.0.1", std::to_string(port)}, .closed = true});
  Client client = connect_when_listening(port);
  CHECK(client.echoes("a line\n"));
  echod.signal(SIGUSR1);
  CHECK_FALSE(client.hears_within(200ms));
  CHECK(client.echoes("another\n"));
}

#ifdef __FreeBSD__
TEST_CASE("the program serves its clients in capability mode", "[C7]") {
  if (::feature_present("security_capability_mode") == 0) {
    WARN("this kernel has no capability mode");
    return;
  }
  const Echod echod;
  CHECK(Client(echod.port()).exchange("a line\n") == "a line\n");
  const int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, static_cast<int>(echod.pid())};
  kinfo_proc process{};
  std::size_t size = sizeof process;
  REQUIRE(::sysctl(name, 4, &process, &size, nullptr, 0) == 0);
  CHECK((process.ki_cr_flags & KI_CRF_CAPABILITY_MODE) != 0);
}
#endif
