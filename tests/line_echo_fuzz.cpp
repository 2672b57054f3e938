// A libFuzzer target: LineEcho against the model, whatever the bytes and however they are split. Built with clang and
// -DECHOD_FUZZ=ON; run as `line_echo_fuzz -max_total_time=600`.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "echod/line_echo.hpp"
#include "model.hpp"

namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "line_echo_fuzz: %s\n", what);
  std::abort();
}

}  // namespace

/// The data are read as steps of three bytes: append a byte so many times (up to 65,535), and feed what has gathered
/// if the number is odd. So a short input can make long lines.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t most = 1 << 19;
  echod::LineEcho echo;
  std::string input;
  std::string output;
  bool closed = false;
  std::size_t fed = 0;
  const auto feed = [&] {
    const echod::LineEcho::Output step = echo.feed(std::string_view(input).substr(fed));
    output.append(step.held).append(step.fresh);
    if (closed && !step.close) fail("closed, and open again");
    closed = step.close;
    fed = input.size();
    if (echo.held() >= echod::LineEcho::max_line) fail("more is held than a line");
    if (echo.held() > 0 && output.size() + echo.held() != input.size()) fail("bytes are missing");
  };
  for (std::size_t i = 0; i + 2 < size && input.size() < most; i += 3) {
    const std::size_t times = data[i + 1] + (std::size_t{data[i + 2]} << 8);
    input.append(times, static_cast<char>(data[i]));
    if (times % 2 == 1) feed();
  }
  feed();
  output += echo.finish();
  if (output != echo_of(input)) fail("not the echo of the model");
  if (closed != (output.size() < input.size())) fail("close and echo do not agree");
  return 0;
}
