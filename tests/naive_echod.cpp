// The server that a first try at kqueue gives: the one of the blog post "Writing a Simple TCP Server Using Kqueue",
// from Go to C++, with all that the post leaves out left out. It works, until a client does anything unusual: see
// traps_test.cpp for what goes wrong, and do not copy it. (It does listen on the given address; the post's listens on
// all.)
#include <sys/types.h>
#include <sys/event.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

/// Reads up to the next newline, however long that takes; empty at the end of input.
std::string read_line(int socket, std::string& buffered) {
  std::size_t newline = buffered.find('\n');
  while (newline == std::string::npos) {
    char chunk[4096];
    const ssize_t count = read(socket, chunk, sizeof chunk);
    if (count <= 0) return {};
    buffered.append(chunk, static_cast<std::size_t>(count));
    newline = buffered.find('\n', buffered.size() - static_cast<std::size_t>(count));
  }
  std::string line = buffered.substr(0, newline + 1);
  buffered.erase(0, newline + 1);
  return line;
}

void handle(int socket) {
  std::string buffered;
  for (;;) {
    const std::string line = read_line(socket, buffered);
    if (line.find_first_not_of(" \t\v\f\r\n") == std::string::npos) break;
    if (write(socket, line.data(), line.size()) < 0) break;
  }
  close(socket);
}

void subscribe(int kq, int socket) {
  struct kevent change;
  EV_SET(&change, static_cast<std::uintptr_t>(socket), EVFILT_READ, EV_ADD | EV_ENABLE, 0, 0, nullptr);
  kevent(kq, &change, 1, nullptr, 0, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  sockaddr_in address{};
  socklen_t length = sizeof address;
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[2])));
  inet_pton(AF_INET, argv[1], &address.sin_addr);

  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror("bind");
    return 1;
  }
  listen(listener, SOMAXCONN);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);

  const int kq = kqueue();
  subscribe(kq, listener);
  std::fprintf(stderr, "naive_echod: listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  for (;;) {
    struct kevent event;
    if (kevent(kq, nullptr, 0, &event, 1, nullptr) <= 0) continue;
    const int socket = static_cast<int>(event.ident);
    if ((event.flags & EV_EOF) != 0)
      close(socket);
    else if (socket == listener)
      subscribe(kq, accept(listener, nullptr, nullptr));
    else if ((event.filter & EVFILT_READ) != 0)
      handle(socket);
  }
}
