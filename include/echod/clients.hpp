// Clients: all connections, each found by its descriptor, and ordered by the time at which it has
// to be closed.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "echod/connection.hpp"

namespace echod {
class Clients {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr Time at_once = Time::min();
  static constexpr Time never = Time::max();

  Clients() = default;
  Clients(Clients&&) = delete;  // places_ holds iterators of order_
  /// No connection may have this descriptor yet. If it throws std::bad_alloc, the connection is
  /// destroyed.
  void add(Connection connection, Time close_at) {
    const auto descriptor = static_cast<std::size_t>(connection.descriptor());
    if (descriptor >= places_.size()) places_.resize(descriptor + 1, order_.end());
    places_[descriptor] = order_.emplace(close_at, std::move(connection));
  }
  /// Returns nullptr if no connection has this descriptor.
  [[nodiscard]] Connection* find(int descriptor) noexcept {
    const bool known =
        static_cast<std::size_t>(descriptor) < places_.size() && place(descriptor) != order_.end();
    return known ? &place(descriptor)->second : nullptr;
  }
  /// Changes when to close a connection that is in here, O(log n). Allocates nothing, and does not
  /// move it in memory.
  void close_at(const Connection& connection, Time time) noexcept {
    auto node = order_.extract(place(connection.descriptor()));
    node.key() = time;
    place(connection.descriptor()) = order_.insert(std::move(node));
  }

  /// Returns when to close the first connection, or `never` if there is none. O(1)
  [[nodiscard]] Time first_time() const noexcept {
    return order_.empty() ? never : order_.begin()->first;
  }
  /// Returns the connection to close first. There must be one.
  [[nodiscard]] Connection& first() noexcept { return order_.begin()->second; }
  /// Destroys it, which closes its descriptor.
  void remove_first() noexcept {
    place(first().descriptor()) = order_.end();
    order_.erase(order_.begin());
  }
  [[nodiscard]] std::size_t size() const noexcept { return order_.size(); }
  /// Returns a number that is larger than the descriptor of any connection.
  [[nodiscard]] int descriptor_limit() const noexcept { return static_cast<int>(places_.size()); }

 private:
  using Order = std::multimap<Time, Connection>;
  Order::iterator& place(int descriptor) noexcept {
    return places_[static_cast<std::size_t>(descriptor)];
  }
  Order order_;
  std::vector<Order::iterator> places_;  // by descriptor; order_.end() where there is no connection
};
}  // namespace echod
