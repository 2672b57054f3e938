// Tests what the programs of src/tutorial get right. What they get wrong is in traps_test.cpp.
#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "catch.hpp"
#include "client.hpp"
#include "process.hpp"
#include "tutorial.hpp"

namespace {

/// A running server of the tutorial.
struct Server : Echod {
  explicit Server(const std::string& name) : Echod({.program = tutorial_program(name)}) {}
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

}  // namespace

TEST_CASE("the programs of the tutorial say how to use them", "[tutorial]") {
  Process process({.program = tutorial_program("one_client")});
  CHECK(process.output() == "usage: one_client address port\n");
  CHECK(process.wait() == 1);
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
