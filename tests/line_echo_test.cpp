// Tests LineEcho: what it answers, and when it closes.
#include "echod/line_echo.hpp"

#include <algorithm>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "transcript.hpp"

using echod::LineEcho;

namespace {

constexpr std::size_t limit = LineEcho::most_held;

struct Outcome {
  std::string bytes;
  bool closed = false;

  bool operator==(const Outcome&) const = default;
  friend std::ostream& operator<<(std::ostream& stream, const Outcome& outcome) {
    return stream << transcript::quoted(outcome.bytes) << (outcome.closed ? ", then closed" : "");
  }
};

/// Feeds `input` in pieces, split at `cuts` (ascending). If `at_end`, the outcome also has what is
/// held at the end.
Outcome feed(std::string_view input, const std::vector<std::size_t>& cuts = {},
             bool at_end = true) {
  LineEcho echo;
  Outcome outcome;
  std::size_t start = 0;  // where the held bytes begin
  for (std::size_t piece = 0; piece <= cuts.size() && !outcome.closed; ++piece) {
    const std::size_t end = piece < cuts.size() ? cuts[piece] : input.size();
    // So that ASan detects a read beyond it.
    const std::vector<char> alone(input.data() + start, input.data() + end);
    const LineEcho::Reply reply = echo.feed({alone.data(), alone.size()});
    outcome.bytes += input.substr(start, reply.echo);
    outcome.closed = reply.close;
    start += reply.echo;
    if (!reply.close && end - start >= limit) outcome.bytes += "<too much is held>";
  }
  if (at_end && !outcome.closed) outcome.bytes += input.substr(start);
  return outcome;
}

/// Returns whether every way to split `input` gives `expected`.
bool any_split_gives(const std::string& input, const Outcome& expected) {
  for (unsigned cut_set = 0; cut_set < 1U << (input.size() - 1); ++cut_set) {
    std::vector<std::size_t> cuts;
    for (std::size_t i = 1; i < input.size(); ++i) {
      if ((cut_set >> (i - 1) & 1U) != 0) cuts.push_back(i);
    }
    if (feed(input, cuts) != expected) return false;
  }
  return true;
}

/// Returns `size` bytes that repeat `text`.
std::string repeated(std::string_view text, std::size_t size) {
  std::string all;
  while (all.size() < size) all += text;
  all.resize(size);
  return all;
}

}  // namespace

TEST_CASE("a complete line is answered byte for byte, with its ending", "[E1]") {
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) {
    if (byte != '\n') every_byte += static_cast<char>(byte);
  }
  for (const std::string& lines :
       {std::string("hello\n"), std::string("one\ntwo\r\nthree\n"), every_byte + "\n"})
    CHECK(feed(lines, {}, false) == Outcome{lines});
}

TEST_CASE("an incomplete line is held until its newline arrives", "[E2]") {
  LineEcho echo;
  CHECK(echo.feed("hel").echo == 0);
  CHECK(echo.feed("hello\nwor").echo == 6);
  CHECK(echo.feed("wor").echo == 0);
}

TEST_CASE("to ask again with the same input changes nothing", "[E2]") {
  LineEcho echo(4);
  for (int i = 0; i < 3; ++i) {
    const LineEcho::Reply reply = echo.feed("  ");
    CHECK(reply.echo == 0);
    CHECK_FALSE(reply.close);
  }
  CHECK(echo.feed("  \n").close);
}

TEST_CASE("a line that is longer than the limit passes through as it arrives", "[E2]") {
  LineEcho echo;
  CHECK(echo.feed(std::string(limit - 1, 'x')).echo == 0);
  CHECK(echo.feed(std::string(limit, 'x')).echo == limit);
  CHECK(echo.feed("yz").echo == 2);
  CHECK(echo.feed("\nnext").echo == 1);
  CHECK(echo.feed("next").echo == 0);
}

TEST_CASE("the limit can be another", "[E2]") {
  LineEcho echo(4);
  CHECK(echo.feed("abc").echo == 0);
  CHECK(echo.feed("abcd").echo == 4);
  CHECK_FALSE(echo.feed("\n").close);
  CHECK_FALSE(echo.feed("    \n").close);
  CHECK(echo.feed("   \n").close);
}

TEST_CASE("an empty line closes, and neither it nor what follows is answered", "[E3]") {
  CHECK(feed("\n") == Outcome{"", true});
  CHECK(feed("a\n\nb\n") == Outcome{"a\n", true});
  CHECK(feed("a\r\n\r\nb") == Outcome{"a\r\n", true});
}

TEST_CASE("a line of white space counts as empty, wherever it is", "[E3]") {
  CHECK(feed("a\n \t\v\f\r\nb\n") == Outcome{"a\n", true});
  const std::string lines = repeated("ab\n", 900);
  for (const char* const empty : {"\n", " \n", "\t\n", "\v\n", "\f\n", "\r\n", "\t \r\n"}) {
    for (std::size_t size = 0; size <= lines.size(); size += 3) {
      const std::string before = lines.substr(0, size);
      std::string input = before;
      input += empty;
      input += lines;
      REQUIRE(feed(input) == Outcome{before, true});
    }
  }
}

TEST_CASE("a line with anything else in it does not count as empty", "[E3]") {
  for (const std::string& line :
       {std::string("  x\n"), std::string("\0\n", 2), std::string("\xa0\n"), std::string("\x85 \n"),
        std::string("a \r\n"), std::string(" \ta\t\v\f\n")}) {
    CHECK(feed(line) == Outcome{line});
    const std::string lines = repeated(line, 1000 * line.size());
    CHECK(feed(lines + "\nz") == Outcome{lines, true});
  }
}

TEST_CASE("65,535 blanks and a newline close, and with one blank more they are echoed", "[E3]") {
  const std::string closing = repeated(" \t\v\f\r", limit - 1) + "\n";
  const std::string too_long = repeated(" \t\v\f\r", limit) + "\n";
  for (const std::size_t cut : {std::size_t{1}, std::size_t{2}, limit - 2, limit - 1}) {
    CHECK(feed(closing, {cut}) == Outcome{"", true});
    CHECK(feed("a\n" + closing, {2, cut + 2}) == Outcome{"a\n", true});
    CHECK(feed(too_long, {cut}) == Outcome{too_long});
    CHECK(feed(too_long, {cut, limit}) == Outcome{too_long});
  }
  CHECK(feed(closing) == Outcome{"", true});
  CHECK(feed(too_long) == Outcome{too_long});
}

TEST_CASE("the end of a line that passed through is not an empty line", "[E3]") {
  const std::string input = std::string(limit, 'x') + "  \n" + "y\n";
  CHECK(feed(input, {limit, limit + 1}) == Outcome{input});
}

TEST_CASE("an unterminated line is never empty", "[E3][E4]") {
  for (const char* const input : {"", "a\nb", "a\n  "}) CHECK(feed(input) == Outcome{input});
}

TEST_CASE("how the input was split never matters", "[E1][E2][E3]") {
  CHECK(any_split_gives("ab\ncd\r\ne", {"ab\ncd\r\ne"}));
  CHECK(any_split_gives("ab\n \t\r\ncd\n", {"ab\n", true}));
  CHECK(any_split_gives("a\n\n\nb\n", {"a\n", true}));
  CHECK(any_split_gives(" \n", {"", true}));
  CHECK(any_split_gives("  x \n y\n ", {"  x \n y\n "}));
}

TEST_CASE("how the input was split does not matter among short lines", "[E1][E2][E3]") {
  const std::string lines = repeated("abc\n", 2400);
  const std::string input = lines + " \r\n" + lines;
  for (std::size_t cut = 0; cut <= input.size(); ++cut) {
    REQUIRE(feed(input, {cut}) == Outcome{lines, true});
    REQUIRE(feed(lines, {std::min(cut, lines.size())}) == Outcome{lines});
  }
}

TEST_CASE("short lines may follow a line that passed through or was held", "[E2][E3]") {
  const std::string lines = repeated("abc\n", 2400);
  for (const std::string& first :
       {std::string(limit + 3, 'x') + "yz\n", std::string(limit + 3, ' ') + "  \n",
        std::string(limit - 5, 'x') + "y\n"}) {
    const std::string input = first + lines + std::string(300, 'h');
    CHECK(feed(input, {first.size() - 3}, false) == Outcome{first + lines});
  }
  const std::string held = std::string(limit - 100, 'x') + "y\n" + lines;
  CHECK(feed(held + std::string(6000, ' ') + "\n", {limit - 100}) == Outcome{held, true});
  CHECK(feed(std::string(300, ' ') + "\n" + lines, {200}) == Outcome{"", true});
}

TEST_CASE("how the input was split does not matter at the limit", "[E2][E3]") {
  for (const std::size_t length : {limit - 2, limit - 1, limit, limit + 1}) {
    const std::string echo = "a\n" + std::string(length, 'x') + "\nb\n";
    const std::string input = echo + "\nc";
    for (std::size_t first = limit - 4; first <= limit + 6; ++first) {
      for (std::size_t second = first; second <= limit + 6; ++second) {
        const std::vector<std::size_t> cuts{std::min(first, input.size()),
                                            std::min(second, input.size())};
        REQUIRE(feed(input, cuts) == Outcome{echo, true});
      }
    }
  }
}
