// Connection: what cannot be seen from outside.
#include "echod/connection.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>

#include "catch.hpp"

using echod::Connection;
using echod::EventLoop;
using echod::Socket;

namespace {

struct Recorder : Connection::Owner {
  int events = 0;

  void after_event(Connection&, bool) override { ++events; }
};

struct Ends {  // of a socket pair; the server's is non-blocking
  Socket server;
  Socket client;

  Ends() {
    int descriptors[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, descriptors) == 0);
    server = Socket(descriptors[0]);
    client = Socket(descriptors[1]);
    ::fcntl(descriptors[0], F_SETFL, O_NONBLOCK);
    std::signal(SIGPIPE, SIG_IGN);
  }
};

struct kevent stale_event(const Connection& connection) {
  struct kevent event;
  EV_SET(&event, static_cast<std::uintptr_t>(connection.socket().descriptor()), EVFILT_READ, 0, 0, 1, nullptr);
  return event;
}

}  // namespace

TEST_CASE("[M5] an event that was copied out before its connection ended does nothing") {
  EventLoop loop;
  Recorder owner;
  Ends ends;
  Connection connection(loop, owner, std::move(ends.server));
  ends.client.write("a line\n");
  connection.end("for the test");
  connection.on_event(stale_event(connection));
  CHECK(owner.events == 0);
  CHECK(connection.echoed() == 0);
}

TEST_CASE("[M5] an ended connection keeps its descriptor's number taken until it is destroyed") {
  EventLoop loop;
  Recorder owner;
  Ends ends;
  auto connection = std::make_unique<Connection>(loop, owner, std::move(ends.server));
  const int descriptor = connection->socket().descriptor();
  connection->end("for the test");
  CHECK(::fcntl(descriptor, F_GETFD) >= 0);
  connection.reset();
  CHECK(::fcntl(descriptor, F_GETFD) == -1);
}

TEST_CASE("an event too many finds nothing to read, and that is no error") {
  EventLoop loop;
  Recorder owner;
  Ends ends;
  Connection connection(loop, owner, std::move(ends.server));
  connection.on_event(stale_event(connection));
  CHECK(connection.state() == Connection::State::echoing);
  CHECK(owner.events == 1);
}

TEST_CASE("[M5] a connection that cannot be written to ends, and its owner is told") {
  EventLoop loop;
  Recorder owner;
  Ends ends;
  Connection connection(loop, owner, std::move(ends.server));
  ends.client.write("a line\n");
  ends.client = Socket();
  connection.on_event(stale_event(connection));
  CHECK(connection.state() == Connection::State::ended);
  CHECK(owner.events == 1);
}
