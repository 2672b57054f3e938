// Clients: all connections. Each is found by its descriptor, and they are ordered by deadline: the
// time at which the server has to look at a connection although no event has come.
//
// A connection that has ended gets a deadline in the past. So it is the next one to be looked at,
// and closed. To move a node of the order needs no memory, which may be just what is lacking.
#pragma once

#include <cassert>
#include <chrono>
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "echod/connection.hpp"

namespace echod {
class Clients {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr Time past = Time::min();
  static constexpr Time never = Time::max();

  Clients() = default;
  Clients(Clients&&) = delete;  // places_ holds iterators of order_
  /// Takes ownership. No connection in here may have the same descriptor. If it throws
  /// std::bad_alloc, the connection is destroyed, which resets it.
  void add(Connection connection, Time deadline) {
    const auto descriptor = static_cast<std::size_t>(connection.descriptor());
    if (descriptor >= places_.size()) places_.resize(descriptor + 1, order_.end());
    assert(places_[descriptor] == order_.end() && "two connections with one descriptor");
    places_[descriptor] = order_.emplace(deadline, std::move(connection));
  }
  /// Returns nullptr if no connection has this descriptor. O(1)
  [[nodiscard]] Connection* find(int descriptor) noexcept {
    if (static_cast<std::size_t>(descriptor) >= places_.size()) return nullptr;
    if (place(descriptor) == order_.end()) return nullptr;
    return &place(descriptor)->second;
  }
  /// Changes the deadline of a connection that is in here. O(log n). Allocates nothing, and does
  /// not move the connection in memory.
  void set_deadline(const Connection& connection, Time deadline) noexcept {
    auto node = order_.extract(place(connection.descriptor()));
    node.key() = deadline;
    place(connection.descriptor()) = order_.insert(std::move(node));
  }

  /// Returns the earliest deadline, or `never` if there is none. O(1)
  [[nodiscard]] Time next_deadline() const noexcept {
    return order_.empty() ? never : order_.begin()->first;
  }
  /// Returns the connection with the earliest deadline. There must be one.
  [[nodiscard]] Connection& first() noexcept { return order_.begin()->second; }
  /// Destroys a connection that is in here, which closes its descriptor.
  void remove(const Connection& connection) noexcept {
    order_.erase(std::exchange(place(connection.descriptor()), order_.end()));
  }
  [[nodiscard]] std::size_t size() const noexcept { return order_.size(); }
  /// Returns a number that is larger than the descriptor of any connection.
  [[nodiscard]] int descriptors_end() const noexcept { return static_cast<int>(places_.size()); }

 private:
  using Order = std::multimap<Time, Connection>;
  Order::iterator& place(int descriptor) noexcept {
    return places_[static_cast<std::size_t>(descriptor)];
  }
  Order order_;
  std::vector<Order::iterator> places_;  // by descriptor; order_.end() where there is none
};
}  // namespace echod
