// If the environment has ECHOD_TRANSCRIPT, writes to stderr what the clients of a test do, as lines
// that begin with '~'. tests/break-it sets it to show what a client of a broken server sees.
#pragma once

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace transcript {
inline std::string visible(char byte) {
  if (byte == '\n') return "\\n";
  if (byte == '\r') return "\\r";
  if (byte >= ' ' && byte <= '~') return {byte};
  char code[5];
  std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned char>(byte));
  return code;
}

/// Returns at most the first 60 bytes, in quotes and on one line.
inline std::string quoted(std::string_view bytes) {
  std::string text = "\"";
  for (const char byte : bytes.substr(0, 60)) text += visible(byte);
  return text + "\"";
}

/// While one of these exists, nothing is written.
struct Silence {
  static inline int count = 0;
  Silence() { ++count; }
  Silence(const Silence&) = delete;
  ~Silence() { --count; }
};

inline std::string name_of_signal(int number) {
  switch (number) {
    case SIGHUP: return "SIGHUP";
    case SIGINT: return "SIGINT";
    case SIGKILL: return "SIGKILL";
    case SIGTERM: return "SIGTERM";
    case SIGSTOP: return "SIGSTOP";
    case SIGCONT: return "SIGCONT";
    case SIGUSR1: return "SIGUSR1";
    default: return "signal " + std::to_string(number);
  }
}

/// Writes the notes. A client may send or receive in a thousand pieces. Then the first is a line,
/// and all others together are another.
class Writer {
 public:
  void write(const std::string& step, std::string_view bytes) {
    if (!on_ || Silence::count > 0) return;
    if (!bytes.empty() && step == step_) {
      more_ += bytes.size();
      return;
    }
    finish();
    step_ = step;
    std::fprintf(stderr, "~ %s", step.c_str());
    if (bytes.size() > 60) std::fprintf(stderr, " %zu bytes:", bytes.size());
    if (!bytes.empty()) std::fprintf(stderr, " %s", quoted(bytes).c_str());
    std::fputc('\n', stderr);
  }
  ~Writer() { finish(); }

 private:
  void finish() {
    if (more_ > 0) std::fprintf(stderr, "~ %s %zu bytes more\n", step_.c_str(), more_);
    more_ = 0;
  }

  const bool on_ = std::getenv("ECHOD_TRANSCRIPT") != nullptr;
  std::string step_;      // the last one
  std::size_t more_ = 0;  // bytes of it that are not written yet
};

/// Writes what `who` ("client 1", "server") did, and with which bytes, if any.
inline void note(const std::string& who, const std::string& what, std::string_view bytes = {}) {
  static Writer writer;
  writer.write(who + " " + what, bytes);
}
}  // namespace transcript
