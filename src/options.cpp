#include "echod/options.hpp"

#include <getopt.h>
#include <sysexits.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace echod {
namespace {
constexpr const char* usage = "usage: echod [-hVv] [-t seconds] [address] [port]\n";
constexpr const char* help =
    "Sends every line back. An empty line closes the connection.\n\n"
    "  address               where to listen: IPv4, IPv6 or a host name (default: 127.0.0.1)\n"
    "  port                  0 to 65535; 0 picks a free port (default: 8080)\n"
    "  -t, --timeout SECONDS close connections that have been idle that long, 1 to 86400\n"
    "  -v, --verbose         show every event and what the server does\n"
    "  -h, --help            print this text and exit\n"
    "  -V, --version         print the version and exit\n";

[[noreturn]] void bad_usage(const std::string& message) {
  std::fprintf(stderr, "echod: %s\n%s", message.c_str(), usage);
  std::exit(EX_USAGE);
}

[[noreturn]] void print_and_exit(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) != EOF && std::fflush(stdout) == 0) std::exit(EXIT_SUCCESS);
  std::fprintf(stderr, "echod: cannot write to standard output: %s\n", std::strerror(errno));
  std::exit(EXIT_FAILURE);
}

/// getaddrinfo(3) accepts 99999 and " 80" silently, so numbers are parsed here.
unsigned parse_number(const std::string& text, unsigned least, unsigned most,
                      const std::string& what) {
  unsigned number = 0;
  const char* const text_end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), text_end, number);
  if (error != std::errc() || rest != text_end || number < least || number > most) {
    const std::string range = std::to_string(least) + " to " + std::to_string(most);
    bad_usage(what + " must be a number from " + range + ": '" + text + "'");
  }
  return number;
}

/// Refuses what getaddrinfo(3) would explain badly or not at all.
void check_address(const std::string& address) {
  // It would take this for every address of the machine.
  if (address.empty()) bad_usage("the address is empty");
  // A name of the DNS has at most 253 bytes.
  if (address.size() > 255) bad_usage("the address is too long");
  const bool has_brackets = address.find_first_of("[]") != std::string::npos;
  const bool has_port = std::count(address.begin(), address.end(), ':') == 1;
  if (has_brackets || has_port)
    bad_usage("the address and the port are two arguments, without brackets: '" + address + "'");
}
}  // namespace

Options parse_command_line(int argc, char** argv) {
  static constexpr option long_options[] = {{"help", no_argument, nullptr, 'h'},
                                            {"timeout", required_argument, nullptr, 't'},
                                            {"verbose", no_argument, nullptr, 'v'},
                                            {"version", no_argument, nullptr, 'V'},
                                            {}};
  Options options;
  // The '+' ends the options at the first argument, so in "127.0.0.1 -1" the port is wrong, and not
  // an option. The ':' tells a missing argument from an unknown option. It also keeps getopt quiet:
  // its own messages begin with the path of the program.
  for (;;) {
    const std::string typed = optind < argc ? argv[optind] : "";
    const int letter = getopt_long(argc, argv, "+:ht:Vv", long_options, nullptr);
    if (letter == -1) break;
    switch (letter) {
      case 'h': print_and_exit(std::string(usage) + help);
      case 'V': print_and_exit("echod " ECHOD_VERSION "\n");
      case 't':
        options.idle = std::chrono::seconds(parse_number(optarg, 1, 86400, "the timeout"));
        break;
      case 'v': options.verbose = true; break;
      case ':': bad_usage("the timeout is missing");
      default:
        // A long option is named as it was typed, of several letters the one that is bad.
        const bool is_long = typed.rfind("--", 0) == 0;
        bad_usage("bad option: " + (is_long ? typed : std::string{'-', static_cast<char>(optopt)}));
    }
  }
  argv += optind;
  argc -= optind;
  if (argc > 2) bad_usage("too many arguments: '" + std::string(argv[2]) + "'");
  const bool only_port =
      argc == 1 && std::string(argv[0]).find_first_not_of("0123456789") == std::string::npos;
  if (argc > 0 && !only_port) options.address = argv[0];
  check_address(options.address);
  if (argc == 2 || only_port)
    options.port = static_cast<std::uint16_t>(parse_number(argv[argc - 1], 0, 65535, "the port"));
  return options;
}
}  // namespace echod
