// A soak test. Random clients use the real program for a given time, and compare every byte with
// the model.
//   soak SECONDS [SEED]
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>

#include "process.hpp"
#include "sessions.hpp"

namespace {

/// Returns the resident kilobytes and open descriptors as text, if the system has a /proc that
/// shows them.
std::string use_of(const Process& process) {
  const std::filesystem::path proc = "/proc/" + std::to_string(process.pid());
  std::ifstream file(proc / "statm");
  long total = 0;
  long resident = 0;
  if (!(file >> total >> resident)) return "memory and descriptors are not known on this system";
  const auto descriptors = std::distance(std::filesystem::directory_iterator(proc / "fd"), {});
  return std::to_string(resident * (sysconf(_SC_PAGESIZE) / 1024)) + " KiB resident, " +
         std::to_string(descriptors) + " descriptors";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: soak seconds [seed]\n");
    return 64;
  }
  const std::uint64_t seed =
      argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device()();
  try {
    Echod echod;
    Sessions clients(echod.port(), seed, 100);
    const auto say = [&] {
      std::printf("seed %llu: %llu connections, %.1f MB echoed; %s\n",
                  static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(clients.started()),
                  static_cast<double>(clients.bytes_echoed()) / 1e6, use_of(echod).c_str());
      std::fflush(stdout);
    };
    const auto finish = [&] {
      while (clients.step(clients.started())) {
      }
    };
    while (clients.step(1000)) {  // the first report comes after the first clients have been served
    }
    say();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atol(argv[1]));
    auto report = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::chrono::steady_clock::now() < end) {
      clients.step(std::numeric_limits<std::uint64_t>::max());
      if (clients.resets() > 0) throw std::runtime_error("a client was reset");
      if (std::chrono::steady_clock::now() < report) continue;
      say();
      report += std::chrono::minutes(1);
    }
    finish();
    say();
    return echod.stop();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "soak: seed %llu: %s\n", static_cast<unsigned long long>(seed),
                 error.what());
    return 1;
  }
}
