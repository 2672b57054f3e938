// A line echo server on kqueue(2) in its shortest form. It serves one client at a time, and has
// many faults.
#include <sys/types.h>
#include <sys/event.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>
#include <string>

static void watch(int kq, int descriptor) {
  struct kevent change;
  EV_SET(&change, static_cast<std::uintptr_t>(descriptor), EVFILT_READ, EV_ADD, 0, 0, nullptr);
  kevent(kq, &change, 1, nullptr, 0, nullptr);
}

static void serve(int client) {
  std::string line;
  char bytes[4096];
  for (ssize_t count; (count = read(client, bytes, sizeof bytes)) > 0;)
    for (ssize_t i = 0; i < count; ++i) {
      line += bytes[i];
      if (bytes[i] != '\n') continue;
      if (line == "\n" || line == "\r\n" || write(client, line.data(), line.size()) < 0) return;
      line.clear();
    }
}

int main(int, char** argv) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(argv[2])));
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 128) != 0)
    return 1;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::fprintf(stderr, "naive_echod: listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  const int kq = kqueue();
  watch(kq, listener);
  for (struct kevent event;;) {
    if (kevent(kq, nullptr, 0, &event, 1, nullptr) != 1) continue;
    const int ready = static_cast<int>(event.ident);
    if (ready == listener) {
      watch(kq, accept(listener, nullptr, nullptr));
      continue;
    }
    if ((event.flags & EV_EOF) == 0) serve(ready);
    close(ready);
  }
}
