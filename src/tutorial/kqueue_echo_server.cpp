// The second program: a TCP line echo server on kqueue(2) for many clients at once, in one file.
// Each line comes back. An empty line, or one of white space, ends the connection.
//
// One thread serves all clients, so it must not wait for any of them: only kevent() waits. For each
// event of a client the server reads once or writes once, and goes on to the next event. Whatever
// is left to read or to write, the next kevent() reports again.
//
// Each "Pretend" marks a place where echod, the third program, does more.
#include <sys/types.h>
#include <sys/event.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

struct Client {
  std::string held;      // the beginning of a line, until its newline arrives
  std::string echo;      // complete lines that go back to the client
  std::size_t sent = 0;  // how many bytes of the echo the kernel has taken so far
  bool ending = false;   // further input is ignored: close the connection when the echo is sent
};

// Adds, deletes, enables or disables a knote: what the kqueue watches, a descriptor and a filter.
void change_knote(int kq, int descriptor, short filter, unsigned short flags) {
  struct kevent change;
  EV_SET(&change, static_cast<std::uintptr_t>(descriptor), filter, flags, 0, 0, nullptr);
  // Pretend this will not fail. Without memory it does, and echod then resets the client.
  kevent(kq, &change, 1, nullptr, 0, nullptr);
}

// Returns a socket that listens. If that is not possible, says why and ends the program.
int listen_on(const char* host, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  // Pretend the port is a number. echod checks that, and also takes IPv6 addresses and names.
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    std::fprintf(stderr, "kqueue_echo_server: not an IPv4 address: %s\n", host);
    std::exit(1);
  }
  socklen_t size = sizeof address;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  // Without SO_REUSEADDR a restart fails while old connections of this port are in TIME_WAIT.
  // Pretend that no client disappears silently. (echod sets SO_KEEPALIVE, which notices it.)
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Clients inherit TCP_NODELAY. Without it the last piece of an echo can wait until the client's
  // kernel has confirmed the pieces before it, which it delays: on Linux by 40 ms.
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // Non-blocking, because a client can vanish between its event and accept(). Then accept() must
  // not wait for another one.
  fcntl(listener, F_SETFL, O_NONBLOCK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener, 128) != 0) {
    std::perror("kqueue_echo_server: cannot listen");
    std::exit(1);
  }
  // With port 0 the system chooses a free port.
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::fprintf(stderr, "kqueue_echo_server: listening on %s:%d\n", host, ntohs(address.sin_port));
  return listener;
}

void accept_client(int kq, int listener, std::map<int, Client>& clients) {
  const int descriptor = accept(listener, nullptr, nullptr);
  // Pretend that accept() fails only if the client has vanished. If no descriptor is free (EMFILE),
  // the client is still in the queue, so kevent() reports it again at once, and the loop spins.
  // (macOS drops the client.) echod stops watching the listener until a descriptor is free.
  if (descriptor < 0) return;
  fcntl(descriptor, F_SETFL, O_NONBLOCK);  // On Linux it is not inherited from the listener.
  clients[descriptor] = Client();
  change_knote(kq, descriptor, EVFILT_READ, EV_ADD);
}

// Reads once, and prepares the echo. Returns false when the client is to be closed.
bool receive(int kq, int descriptor, Client& client) {
  char bytes[16384];
  const ssize_t count = read(descriptor, bytes, sizeof bytes);
  if (count < 0) return errno == EAGAIN;  // nothing to read now; other errors end the connection
  if (count == 0) {
    // Only this is the end of the input. EV_EOF can come while there is still something to read.
    // An unfinished line goes back, too. (`echo` is empty here: while it is not, nobody reads.)
    client.echo = client.held;
    client.ending = true;
  }
  // Pretend that every line ends. One that does not takes all memory. echod holds 64 KiB of it.
  for (ssize_t i = 0; i < count && !client.ending; ++i) {
    client.held += bytes[i];
    if (bytes[i] != '\n') continue;
    const bool is_blank = client.held.find_first_not_of(" \t\v\f\r\n") == std::string::npos;
    if (!is_blank) client.echo += client.held;
    client.ending = is_blank;
    client.held.clear();
  }
  if (client.echo.empty()) return !client.ending;
  // Until the echo is sent, no more is read: a client that sends and never reads must not fill our
  // memory. The read filter has to be off meanwhile, or kevent() reports the input that we leave
  // unread again and again. (echod writes first, and does this only if something is left.)
  change_knote(kq, descriptor, EVFILT_READ, EV_DISABLE);
  change_knote(kq, descriptor, EVFILT_WRITE, EV_ADD);
  return true;
}

// Writes once. Returns false when the client is to be closed.
bool transmit(int kq, int descriptor, Client& client) {
  const char* const unsent = client.echo.data() + client.sent;
  const ssize_t count = write(descriptor, unsent, client.echo.size() - client.sent);
  if (count < 0) return errno == EAGAIN;
  client.sent += static_cast<std::size_t>(count);
  if (client.sent < client.echo.size()) return true;  // the rest has to wait for the next event
  client.echo.clear();
  client.sent = 0;
  // The write filter has to be off again, because a socket is nearly always ready for writing.
  change_knote(kq, descriptor, EVFILT_WRITE, EV_DELETE);
  change_knote(kq, descriptor, EVFILT_READ, EV_ENABLE);  // EV_ADD would leave it disabled
  return !client.ending;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: kqueue_echo_server address port\n");
    return 1;
  }
  std::signal(SIGPIPE, SIG_IGN);  // Otherwise a write to a client that has gone kills the server.
  const int listener = listen_on(argv[1], argv[2]);
  const int kq = kqueue();
  if (kq < 0) {
    std::perror("kqueue_echo_server: kqueue");
    return 1;
  }
  change_knote(kq, listener, EVFILT_READ, EV_ADD);
  std::map<int, Client> clients;  // by descriptor
  // Pretend that nothing ends this loop, neither Control-C nor a crash. If something does, a client
  // can see an orderly end although some of its echo is missing. echod sends first what had
  // arrived, and sets SO_LINGER for each client, so that the kernel resets it after a crash.
  for (;;) {
    struct kevent events[64];
    const int count = kevent(kq, nullptr, 0, events, 64, nullptr);
    if (count < 0 && errno != EINTR) {  // EINTR: a signal interrupted it, and there are no events
      std::perror("kqueue_echo_server: kevent");
      return 1;
    }
    std::vector<int> finished;
    for (int i = 0; i < count; ++i) {
      const int ready = static_cast<int>(events[i].ident);
      if (ready == listener) {
        accept_client(kq, listener, clients);
        continue;
      }
      Client& client = clients.at(ready);
      const bool keep = events[i].filter == EVFILT_READ ? receive(kq, ready, client)
                                                        : transmit(kq, ready, client);
      if (!keep) finished.push_back(ready);
    }
    // Not before the batch is done: accept() can give the number of a closed descriptor to the next
    // client, and that one would get what is left of the old client's events. (Here a client has
    // one event in a batch, because only one of its filters is on. With both on it would have two.)
    for (const int descriptor : finished) {
      // Pretend that all input was read. If not, close() resets the connection (on FreeBSD only if
      // more comes), and the client can lose echo. echod shuts down its sending side first, and
      // reads until the client closes.
      close(descriptor);  // This also deletes its knotes.
      clients.erase(descriptor);
    }
  }
}
