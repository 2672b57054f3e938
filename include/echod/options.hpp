// The command line.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace echod {
struct Options {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8080;
  std::optional<std::chrono::seconds> idle = {};
  bool verbose = false;
};

/// Parses the command line with getopt_long(3). --help and --version print to stdout and exit with
/// 0, or with 1 if stdout fails. A bad command line prints a message and the usage to stderr and
/// exits with 64 (EX_USAGE).
Options parse_command_line(int argc, char** argv);
}  // namespace echod
