// A first look at kqueue(2): this program watches its standard input. Type a line when it asks for
// one, and read along below. Then try it with a pipe: echo hello | first_look
#include <sys/types.h>
#include <sys/event.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>

// Makes a change to the knote that watches standard input for something to read.
void change_knote(int kq, unsigned short flags, const char* name) {
  std::puts(name);
  struct kevent change;
  EV_SET(&change, STDIN_FILENO, EVFILT_READ, flags, 0, 0, nullptr);
  if (kevent(kq, &change, 1, nullptr, 0, nullptr) == 0) return;
  std::perror("  kevent");
  std::exit(1);
}

// Waits for an event, two seconds at most, and prints it. Returns how many came, 0 or 1, or -1 if a
// signal ended the wait.
int look(int kq) {
  const timespec two_seconds{2, 0};
  struct kevent event;
  const int count = kevent(kq, nullptr, 0, &event, 1, &two_seconds);
  const char* const end = count > 0 && (event.flags & EV_EOF) != 0 ? ", EV_EOF" : "";
  if (count > 0) std::printf("  an event: data %d%s\n", static_cast<int>(event.data), end);
  if (count == 0) std::puts("  no event for two seconds");
  return count;
}

int main() {
  const int kq = kqueue();
  change_knote(kq, EV_ADD, "EV_ADD: type a line");
  while (look(kq) < 1) continue;
  look(kq);  // the same event again, because nobody has read the line
  change_knote(kq, EV_DISABLE, "EV_DISABLE");
  look(kq);  // no event, although the line is still there
  change_knote(kq, EV_ENABLE, "EV_ENABLE");
  look(kq);  // nothing was lost: here it is again
  char bytes[4096];
  std::printf("read: %d bytes\n", static_cast<int>(read(STDIN_FILENO, bytes, sizeof bytes)));
  look(kq);  // no event until there is more to read, or the end of the input
  change_knote(kq, EV_DELETE, "EV_DELETE");
  look(kq);  // no event, whatever you type
  // This fails, because there is no knote any more.
  change_knote(kq, EV_ENABLE, "EV_ENABLE");
}
