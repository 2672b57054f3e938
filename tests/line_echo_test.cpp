// LineEcho: [E1] to [E4], bytes in, bytes out.
#include "echod/line_echo.hpp"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

using echod::LineEcho;

namespace {

constexpr std::size_t limit = LineEcho::max_line;

struct Outcome {
  std::string bytes;
  bool closed = false;

  bool operator==(const Outcome&) const = default;
};

/// Feeds the pieces of `input` that begin at `cuts` (ascending).
Outcome feed(std::string_view input, const std::vector<std::size_t>& cuts = {}, bool end_of_input = true) {
  LineEcho echo;
  Outcome outcome;
  std::size_t start = 0;
  for (std::size_t piece = 0; piece <= cuts.size(); ++piece) {
    const std::size_t end = piece < cuts.size() ? cuts[piece] : input.size();
    const std::vector<char> alone(input.data() + start, input.data() + end);  // a look beyond it is seen by ASan
    const LineEcho::Output output = echo.feed({alone.data(), alone.size()});
    outcome.bytes += output.held;
    outcome.bytes += output.fresh;
    outcome.closed = output.close;
    start = end;
    if (echo.held() >= limit) outcome.bytes += "<more is held than one line>";
  }
  if (end_of_input) outcome.bytes += echo.finish();
  return outcome;
}

/// All ways to cut `input` in pieces give the same as the whole.
bool any_split_gives(const std::string& input, const Outcome& expected) {
  for (unsigned cut_set = 0; cut_set < 1U << (input.size() - 1); ++cut_set) {
    std::vector<std::size_t> cuts;
    for (std::size_t i = 1; i < input.size(); ++i)
      if ((cut_set >> (i - 1) & 1U) != 0) cuts.push_back(i);
    if (!(feed(input, cuts) == expected)) return false;
  }
  return true;
}

/// `line`, as often as it takes for `size` bytes.
std::string repeated(const char* line, std::size_t size) {
  std::string text;
  while (text.size() < size) text += line;
  return text;
}

std::string blanks(std::size_t count) {
  std::string text = repeated(" \t\v\f\r", count);
  text.resize(count);
  return text;
}

}  // namespace

TEST_CASE("[E1] a complete line comes back byte for byte, its ending included") {
  CHECK(feed("hello\n", {}, false) == Outcome{"hello\n"});
  CHECK(feed("hello\r\n", {}, false) == Outcome{"hello\r\n"});
  CHECK(feed("one\ntwo\r\nthree\n", {}, false) == Outcome{"one\ntwo\r\nthree\n"});
}

TEST_CASE("[E1] any byte value is echoed, NUL included") {
  std::string line;
  for (int byte = 0; byte < 256; ++byte)
    if (byte != '\n') line += static_cast<char>(byte);
  line += '\n';
  CHECK(feed(line, {}, false) == Outcome{line});
}

TEST_CASE("[E2] an incomplete line is held until its newline arrives") {
  LineEcho echo;
  CHECK(echo.feed("hel").fresh.empty());
  CHECK(echo.held() == 3);
  const LineEcho::Output output = echo.feed("lo\nwor");
  CHECK(output.held == "hel");
  CHECK(output.fresh == "lo\n");
  CHECK(echo.held() == 3);
}

TEST_CASE("[E2] a line longer than the limit passes through as it arrives") {
  LineEcho echo;
  CHECK(echo.feed(std::string(limit - 1, 'x')).fresh.empty());
  LineEcho::Output output = echo.feed("x");
  CHECK(output.held.size() + output.fresh.size() == limit);
  CHECK(echo.held() == 0);
  CHECK(echo.feed("yz").fresh == "yz");
  CHECK(echo.feed("\nnext").fresh == "\n");
  CHECK(echo.held() == 4);
}

TEST_CASE("[E3] an empty line closes: lines before it are echoed, it and what follows are not") {
  CHECK(feed("a\n\nb\n") == Outcome{"a\n", true});
  CHECK(feed("a\r\n\r\nb") == Outcome{"a\r\n", true});
  CHECK(feed("\n") == Outcome{"", true});
}

TEST_CASE("[E3] a line of white space counts as empty") { CHECK(feed("a\n \t\v\f\r\nb\n") == Outcome{"a\n", true}); }

TEST_CASE("[E3] an empty line is found wherever it stands among short lines") {
  const std::string lines = repeated("ab\n", 900);
  for (const char* const empty : {"\n", " \n", "\t\n", "\v\n", "\f\n", "\r\n", "\t \r\n"})
    for (std::size_t before = 0; before <= lines.size(); before += 3)
      REQUIRE(feed(lines.substr(0, before) + empty + lines) == Outcome{lines.substr(0, before), true});
}

TEST_CASE("[E3] short lines that end in white space are not taken for empty ones") {
  for (const char* const line : {"ab\r\n", "a \n", " \ta\t\v\f\n"}) {
    const std::string lines = repeated(line, 1000);
    CHECK(feed(lines) == Outcome{lines});
    CHECK(feed(lines + "\nz") == Outcome{lines, true});
  }
}

TEST_CASE("[E3] a line with anything else in it does not count as empty") {
  for (const std::string& line :
       {std::string("  x\n"), std::string("\0\n", 2), std::string("\xa0\n"), std::string("\x85 \n")})
    CHECK(feed(line) == Outcome{line});
}

TEST_CASE("[E3] after an empty line nothing is echoed any more") {
  LineEcho echo;
  CHECK(echo.feed("\n").close);
  const LineEcho::Output output = echo.feed("late\n");
  CHECK(output.close);
  CHECK(output.fresh.empty());
  CHECK(echo.finish().empty());
}

TEST_CASE("[E3] 65,535 blanks and a newline close, one blank more is echoed") {
  const std::string closing = blanks(limit - 1) + "\n";
  const std::string too_long = blanks(limit) + "\n";
  for (const std::size_t cut : {std::size_t{1}, std::size_t{2}, limit - 2, limit - 1}) {
    CHECK(feed(closing, {cut}) == Outcome{"", true});
    CHECK(feed("a\n" + closing, {2, cut + 2}) == Outcome{"a\n", true});
    CHECK(feed(too_long, {cut}) == Outcome{too_long});
    CHECK(feed(too_long, {cut, limit}) == Outcome{too_long});
  }
  CHECK(feed(closing) == Outcome{"", true});
  CHECK(feed(too_long) == Outcome{too_long});
}

TEST_CASE("[E3] the end of a line that passed through is no empty line") {
  const std::string input = std::string(limit, 'x') + "  \n" + "y\n";
  CHECK(feed(input, {limit, limit + 1}) == Outcome{input});
}

TEST_CASE("[E4] at the end of input an unterminated line is echoed, white space too") {
  CHECK(feed("a\nb") == Outcome{"a\nb"});
  CHECK(feed("a\n  ") == Outcome{"a\n  "});
  CHECK(feed("").bytes.empty());
}

TEST_CASE("[E1] [E2] [E3] how the input was split never matters") {
  CHECK(any_split_gives("ab\ncd\r\ne", {"ab\ncd\r\ne"}));
  CHECK(any_split_gives("ab\n \t\r\ncd\n", {"ab\n", true}));
  CHECK(any_split_gives("a\n\n\nb\n", {"a\n", true}));
  CHECK(any_split_gives(" \n", {"", true}));
  CHECK(any_split_gives("  x \n y\n ", {"  x \n y\n "}));
}

TEST_CASE("[E1] [E2] [E3] how the input was split does not matter among short lines") {
  const std::string lines = repeated("abc\n", 600);
  const std::string input = lines + " \r\n" + lines;
  for (std::size_t cut = 0; cut <= input.size(); ++cut) {
    REQUIRE(feed(input, {cut}) == Outcome{lines, true});
    REQUIRE(feed(lines, {std::min(cut, lines.size())}) == Outcome{lines});
  }
}

TEST_CASE("[E2] [E3] a line that passed through or is held may end before short ones") {
  const std::string lines = repeated("abc\n", 600);
  for (const std::string& first : {std::string(limit + 3, 'x') + "yz\n", std::string(limit + 3, ' ') + "  \n",
                                   std::string(limit - 5, 'x') + "y\n"})
    CHECK(feed(first + lines + std::string(300, 'h'), {first.size() - 3}, false) == Outcome{first + lines});
  const std::string held = std::string(limit - 100, 'x') + "y\n" + lines;
  CHECK(feed(held + blanks(6000) + "\n", {limit - 100}) == Outcome{held, true});
  CHECK(feed(blanks(300) + "\n" + lines, {200}) == Outcome{"", true});
}

TEST_CASE("[E2] [E3] how the input was split does not matter at the limit") {
  for (const std::size_t length : {limit - 2, limit - 1, limit, limit + 1}) {
    const std::string input = "a\n" + std::string(length, 'x') + "\nb\n\nc";
    for (std::size_t first = limit - 4; first <= limit + 6; ++first)
      for (std::size_t second = first; second <= limit + 6; ++second)
        REQUIRE(feed(input, {std::min(first, input.size()), std::min(second, input.size())}) ==
                Outcome{input.substr(0, length + 5), true});
  }
}
