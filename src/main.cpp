// echod: a line echo server on kqueue(2).
#include <getopt.h>
#include <sysexits.h>
#ifdef __FreeBSD__
#include <sys/capsicum.h>
#endif

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"

namespace {

constexpr const char* usage = "usage: echod [-hV] [-t seconds] [address [port]]\n";

constexpr const char* help =
    "Sends every line back; an empty line closes the connection.\n"
    "\n"
    "  address        where to listen: IPv4, IPv6 or a host name (127.0.0.1)\n"
    "  port           0 to 65535, 0 takes a free one (8080)\n"
    "  -t seconds     close a connection on which nothing moved for so long, 1 to 86400 (never)\n"
    "  -h, --help     print this and exit\n"
    "  -V, --version  print the version and exit\n"
    "\n"
    "SIGINT and SIGTERM end it, a second one at once. SIGUSR1 reports, and so does control-T\n"
    "(SIGINFO) on macOS and FreeBSD.\n";

struct Options {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8080;
  std::chrono::seconds idle{0};
};

[[noreturn]] void bad_usage(const std::string& message) {
  std::fprintf(stderr, "%s%s", message.c_str(), usage);
  std::exit(EX_USAGE);
}

/// The whole text as a decimal number, or a complaint about `what`.
template <typename Number>
Number parse_number(std::string_view text, Number least, Number most, const char* what) {
  Number number = 0;
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
  for (int letter; (letter = getopt_long(argc, argv, "+ht:V", long_options, nullptr)) != -1;) {
    switch (letter) {
      case 't': options.idle = std::chrono::seconds(parse_number<int>(optarg, 1, 86400, "the timeout")); break;
      case 'h': std::printf("%s%s", usage, help); std::exit(EXIT_SUCCESS);
      case 'V': std::puts("echod " ECHOD_VERSION); std::exit(EXIT_SUCCESS);
      default: bad_usage("");  // getopt has said what is wrong
    }
  }
  argv += optind;
  argc -= optind;
  if (argc > 2) bad_usage("echod: too many arguments: '" + std::string(argv[2]) + "'\n");
  if (argc > 0) options.address = argv[0];
  if (options.address.empty()) bad_usage("echod: the address is empty\n");
  if (argc > 1) options.port = parse_number<std::uint16_t>(argv[1], 0, 65535, "the port");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_command_line(argc, argv);
  try {
    echod::raise_descriptor_limit();
    std::signal(SIGPIPE, SIG_IGN);  // a client that has gone is an error of write, EPIPE, not the end of us

    echod::EventLoop loop;
    echod::Socket listener = echod::Socket::listen(options.address, options.port);
    const std::string address = listener.local_address();
    echod::Server server(loop, std::move(listener), {.idle = options.idle});
    std::fprintf(stderr, "echod: listening on %s\n", address.c_str());
#ifdef __FreeBSD__
    if (::cap_enter() < 0 && errno != ENOSYS) throw std::system_error(errno, std::generic_category(), "cap_enter");
#endif

    loop.run([&server] { return server.after_batch(); });
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "echod: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
