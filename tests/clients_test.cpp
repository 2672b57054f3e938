// Tests how Clients finds a client, and in which order clients are closed.
#include "echod/clients.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <chrono>

#include "catch.hpp"

using namespace std::chrono_literals;
using echod::Clients;
using echod::Connection;

namespace {

const Clients::Time now = std::chrono::steady_clock::now();

/// Returns the descriptor.
int add(Clients& clients, Clients::Time time) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(descriptor >= 0);
  clients.add(Connection(echod::Socket(descriptor)), time);
  return descriptor;
}

int first_of(Clients& clients) { return clients.first().descriptor(); }

}  // namespace

TEST_CASE("a client is found by its descriptor", "[M6]") {
  Clients clients;
  CHECK(clients.find(0) == nullptr);
  const int one = add(clients, now);
  const int other = add(clients, now);
  REQUIRE(clients.find(one) != nullptr);
  CHECK(clients.find(one)->descriptor() == one);
  CHECK(clients.find(other)->descriptor() == other);
  for (const int none : {-1, 0, one + other, 1'000'000}) CHECK(clients.find(none) == nullptr);
  CHECK(clients.size() == 2);
  CHECK(clients.descriptors_end() > std::max(one, other));
}

TEST_CASE("the client that has to be closed first comes first", "[M6]") {
  Clients clients;
  CHECK(clients.size() == 0);
  CHECK(clients.next_deadline() == Clients::never);
  add(clients, Clients::never);
  CHECK(clients.next_deadline() == Clients::never);
  const int late = add(clients, now + 2s);
  const int early = add(clients, now + 1s);
  CHECK(clients.next_deadline() == now + 1s);
  CHECK(first_of(clients) == early);
  clients.remove(clients.first());
  CHECK(first_of(clients) == late);
  clients.remove(clients.first());
  CHECK(clients.next_deadline() == Clients::never);
  CHECK(clients.size() == 1);
}

TEST_CASE("a client can get another time, and keeps its place in memory", "[M6]") {
  Clients clients;
  const int one = add(clients, now + 1s);
  const int two = add(clients, now + 2s);
  const int three = add(clients, now + 3s);
  Connection* const before = clients.find(three);
  clients.set_deadline(*before, Clients::past);
  CHECK(clients.find(three) == before);
  CHECK(first_of(clients) == three);
  CHECK(clients.next_deadline() == Clients::past);
  clients.set_deadline(*clients.find(one), Clients::never);
  clients.set_deadline(*before, now + 4s);
  for (const int expected : {two, three, one}) {
    CHECK(first_of(clients) == expected);
    clients.remove(clients.first());
  }
  CHECK(clients.size() == 0);
}

TEST_CASE("removing a client closes its descriptor, and the number can be another client's",
          "[M5]") {
  Clients clients;
  const int descriptor = add(clients, now);
  clients.remove(clients.first());
  CHECK(::fcntl(descriptor, F_GETFD) == -1);
  CHECK(clients.find(descriptor) == nullptr);
  CHECK(add(clients, now) == descriptor);
  CHECK(clients.find(descriptor) == &clients.first());
}
