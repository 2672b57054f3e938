// KeyValue, a protocol: clients store values under keys and ask for them. All share one Store. It
// makes no system calls, and does not know how its input arrives or how its replies leave: that is
// Connection.
//
//   SET KEY VALUE   stores the value; the reply is OK
//   GET KEY         the reply is VALUE and the value, or NOT FOUND
//   QUIT            the reply is BYE, and the connection closes
//
// A line ends with "\n" or "\r\n". A key has no spaces. A value is the rest of the line, and can be
// empty. Each line has one line as its reply. If nothing was done, that is ERROR and the reason. A
// line that is too long closes the connection, because it cannot be held until its end comes.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace echod {
/// What all clients share. It must outlive the Server.
class Store {
 public:
  /// `max_size`: how many bytes all keys and values may take.
  explicit Store(std::size_t max_size = std::size_t{64} * 1024 * 1024) : max_size_(max_size) {}

  /// Returns nullptr if there is no such key. The result is valid until the next set().
  [[nodiscard]] const std::string* get(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }

  /// Returns false if there is no room in the store. Throws std::bad_alloc if there is no memory.
  /// In both cases nothing has changed.
  [[nodiscard]] bool set(std::string_view key, std::string_view value) {
    const std::string* const old = get(key);
    const std::size_t freed = old == nullptr ? 0 : size_of(key, *old);
    const std::size_t size = size_ - freed + size_of(key, value);
    if (size > max_size_) return false;
    // The copy comes first: without memory for it, no key may be left with an empty value. It is
    // swapped in, because an assignment can keep the memory of a longer value, which nobody counts.
    std::string copy(value);
    values_[std::string(key)].swap(copy);
    size_ = size;
    return true;
  }

  /// Room for a reply. One is enough for all clients, because Connection needs a reply only until
  /// the next call of any protocol object.
  std::string reply;

 private:
  /// 160 is about what the map and malloc(3) need for a pair, however short it is.
  static std::size_t size_of(std::string_view key, std::string_view value) {
    return key.size() + value.size() + 160;
  }

  std::map<std::string, std::string, std::less<>> values_;  // by key
  std::size_t size_ = 0;
  std::size_t max_size_;
};

/// The functions and the Reply of LineEcho, where the contract is.
class KeyValue {
 public:
  static constexpr std::size_t max_key = 250;
  static constexpr std::size_t max_value = 60'000;  // a reply may have 65,536 bytes

  explicit KeyValue(Store& store) noexcept : store_(&store) {}

  struct Reply {
    std::string_view bytes;
    std::size_t used;
    bool close;
  };

  /// Answers the first line. Connection asks again for the next one, when the kernel has taken this
  /// reply. If this throws std::bad_alloc, Connection resets the client, and no other.
  [[nodiscard]] Reply feed(std::string_view input) {
    const std::size_t newline = input.substr(0, max_line).find('\n');
    if (newline == std::string_view::npos) {
      if (input.size() < max_line) return {{}, 0, false};  // more input is needed
      return {"ERROR the line is too long\n", 0, true};
    }
    std::string_view line = input.substr(0, newline);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return {answer(line), newline + 1, line == "QUIT"};
  }

  /// An unfinished line is not done: its value could be cut off.
  [[nodiscard]] Reply finish(std::string_view held) noexcept {
    return {held.empty() ? "" : "ERROR the line is not finished\n", held.size(), true};
  }

  [[nodiscard]] std::size_t max_held() const noexcept { return max_line; }

 private:
  // "SET", a space, a key, a space, a value, and "\r\n"
  static constexpr std::size_t max_line = 3 + 1 + max_key + 1 + max_value + 2;

  std::string_view answer(std::string_view line) {
    const auto [command, arguments] = split(line);
    const auto [key, value] = split(arguments);
    if (command == "SET") return set(key, value);
    if (command == "GET") return get(arguments);
    if (line == "QUIT") return "BYE\n";
    return "ERROR a line is SET KEY VALUE, GET KEY or QUIT\n";
  }

  std::string_view set(std::string_view key, std::string_view value) {
    if (key.empty() || key.size() > max_key) return "ERROR the key is empty or too long\n";
    if (value.size() > max_value) return "ERROR the value is too long\n";
    if (!store_->set(key, value)) return "ERROR the store is full\n";
    return "OK\n";
  }

  std::string_view get(std::string_view key) {
    const std::string* const value = store_->get(key);
    if (value == nullptr) return "NOT FOUND\n";
    std::string& reply = store_->reply;
    reply = "VALUE ";
    reply += *value;
    reply += '\n';
    return reply;
  }

  /// Splits `text` at its first space.
  static std::pair<std::string_view, std::string_view> split(std::string_view text) {
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos) return {text, {}};
    return {text.substr(0, space), text.substr(space + 1)};
  }

  Store* store_;
};
}  // namespace echod
