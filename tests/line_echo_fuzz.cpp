// A libFuzzer target. It compares LineEcho with the model, for any bytes in any pieces. Build it
// with clang and --target line_echo_fuzz. Run it with `line_echo_fuzz -max_total_time=600`.
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

/// Reads `data` in steps of three bytes. The first is a byte, the others say how often to append it
/// to the input (up to 65,535 times). If that number is odd, the input is fed. So short data can
/// make long lines.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t most = 1 << 19;
  echod::LineEcho echo;
  std::string input;
  std::string output;
  std::size_t done = 0;  // bytes of the input that were echoed
  bool closed = false;
  const auto feed = [&] {
    if (closed) return;
    // A copy, so that ASan detects a read beyond its end.
    const std::string piece = input.substr(done);
    if (piece.empty()) return;
    const echod::LineEcho::Reply reply = echo.feed(piece);
    if (reply.echo > piece.size()) fail("more is echoed than there is");
    output += piece.substr(0, reply.echo);
    done += reply.echo;
    closed = reply.close;
    if (!closed && piece.size() - reply.echo >= echod::LineEcho::most_held)
      fail("more is held than a line");
  };
  for (std::size_t i = 0; i + 2 < size && input.size() < most; i += 3) {
    const std::size_t times = data[i + 1] + (std::size_t{data[i + 2]} << 8);
    input.append(times, static_cast<char>(data[i]));
    if (times % 2 == 1) feed();
  }
  feed();
  if (!closed) output += input.substr(done);
  if (output != echo_of(input)) fail("not the echo of the model");
  return 0;
}
