// If the environment has ECHOD_TRANSCRIPT, writes to stderr what the clients of a test do.
// tests/break-it sets it to show what a client of a broken server sees.
#pragma once

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

/// Writes what `who` ("client 1", "server") did, and with which bytes, if any.
inline void note(const std::string& who, const std::string& what, std::string_view bytes = {}) {
  static const bool on = std::getenv("ECHOD_TRANSCRIPT") != nullptr;
  if (!on || Silence::count > 0) return;
  std::fprintf(stderr, "~ %s: %s", who.c_str(), what.c_str());
  if (!bytes.empty()) std::fprintf(stderr, " %zu bytes: %s", bytes.size(), quoted(bytes).c_str());
  std::fputc('\n', stderr);
}
}  // namespace transcript
