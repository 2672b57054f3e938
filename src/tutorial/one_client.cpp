// The first program: a line echo server on kqueue(2), as one would write it after an hour with the
// manual. It sends back each line of its client, and an empty line ends the connection. It works
// with one client at a time, and has many faults: tests/traps_test.cpp shows them.
#include <sys/types.h>
#include <sys/event.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <string>

// Tells the kqueue to watch a descriptor: a client for input, the listener for a new client.
void watch(int kq, int descriptor) {
  struct kevent change;
  EV_SET(&change, static_cast<std::uintptr_t>(descriptor), EVFILT_READ, EV_ADD, 0, 0, nullptr);
  kevent(kq, &change, 1, nullptr, 0, nullptr);
}

// Returns a socket that listens. If that is not possible, says why and ends the program.
int listen_on(const char* host, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    std::fprintf(stderr, "one_client: not an IPv4 address: %s\n", host);
    std::exit(1);
  }
  socklen_t size = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 128) != 0) {
    std::perror("one_client: cannot listen");
    std::exit(1);
  }
  // With port 0 the system chooses a free port.
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::fprintf(stderr, "one_client: listening on %s:%d\n", host, ntohs(address.sin_port));
  return listener;
}

// Serves a client until it sends an empty line, closes, or is lost.
void serve(int client) {
  std::string line;
  char bytes[4096];
  for (;;) {
    const ssize_t count = read(client, bytes, sizeof bytes);  // waits for input
    if (count <= 0) return;
    for (ssize_t i = 0; i < count; ++i) {
      line += bytes[i];
      if (bytes[i] != '\n') continue;
      if (line == "\n" || line == "\r\n") return;
      if (write(client, line.data(), line.size()) < 0) return;  // waits for room
      line.clear();
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: one_client address port\n");
    return 1;
  }
  const int listener = listen_on(argv[1], argv[2]);
  const int kq = kqueue();
  watch(kq, listener);
  for (;;) {
    struct kevent event;
    if (kevent(kq, nullptr, 0, &event, 1, nullptr) != 1) continue;
    const int ready = static_cast<int>(event.ident);
    if (ready == listener) {
      watch(kq, accept(listener, nullptr, nullptr));
      continue;
    }
    // EV_EOF says that the client has gone: close. Otherwise it has sent something.
    if ((event.flags & EV_EOF) == 0) serve(ready);
    close(ready);
  }
}
