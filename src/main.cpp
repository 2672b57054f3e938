// echod: a line echo server on kqueue(2).
#include <getopt.h>
#include <sysexits.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "echod/trace.hpp"

namespace {

constexpr const char* usage = "usage: echod [-hVv] [-t seconds] [address [port]]\n";
constexpr const char* help =
    "Sends every line back; an empty line closes the connection.\n\n"
    "  address        where to listen: IPv4, IPv6 or a host name (127.0.0.1)\n"
    "  port           0 to 65535, 0 takes a free one (8080)\n"
    "  -t seconds     close a connection on which nothing moved for so long, 1 to 86400 (never)\n"
    "  -v             show every event and what comes of it\n"
    "  -h, --help     print this and exit\n"
    "  -V, --version  print the version and exit\n";

struct Options {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8080;
  std::chrono::seconds idle{0};
};

[[noreturn]] void bad_usage(const std::string& message) {
  std::fprintf(stderr, "%s%s", message.c_str(), usage);
  std::exit(EX_USAGE);
}

int parse_number(std::string_view text, int least, int most, const char* what) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most)
    bad_usage("echod: " + std::string(what) + " must be a number from " + std::to_string(least) + " to " +
              std::to_string(most) + ": '" + std::string(text) + "'\n");
  return number;
}

Options parse_command_line(int argc, char** argv) {
  static constexpr option long_options[] = {
      {"help", no_argument, nullptr, 'h'}, {"version", no_argument, nullptr, 'V'}, {nullptr, 0, nullptr, 0}};
  Options options;
  for (int letter; (letter = getopt_long(argc, argv, "+ht:Vv", long_options, nullptr)) != -1;) {
    switch (letter) {
      case 'h': std::printf("%s%s", usage, help); std::exit(EXIT_SUCCESS);
      case 'V': std::puts("echod " ECHOD_VERSION); std::exit(EXIT_SUCCESS);
      case 't': options.idle = std::chrono::seconds(parse_number(optarg, 1, 86400, "the timeout")); break;
      case 'v': echod::trace::on = true; break;
      default: bad_usage("");  // getopt has said what is wrong
    }
  }
  argv += optind;
  argc -= optind;
  if (argc > 2) bad_usage("echod: too many arguments: '" + std::string(argv[2]) + "'\n");
  if (argc > 0) options.address = argv[0];
  if (options.address.empty()) bad_usage("echod: the address is empty\n");
  if (argc > 1) options.port = static_cast<std::uint16_t>(parse_number(argv[1], 0, 65535, "the port"));
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_command_line(argc, argv);
  try {
    echod::occupy_standard_descriptors();
    echod::raise_descriptor_limit();
    std::signal(SIGPIPE, SIG_IGN);  // a client that has gone is an error of write, EPIPE, not the end of us

    echod::Socket listener = echod::Socket::listen(options.address, options.port);
    const std::string address = listener.local_address();
    echod::EventLoop loop;
    echod::Server server(loop, std::move(listener), {.idle = options.idle});
    std::fprintf(stderr, "echod: listening on %s\n", address.c_str());

    echod::enter_capability_mode();
    loop.run([&server] { return server.after_batch(); });
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "echod: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
