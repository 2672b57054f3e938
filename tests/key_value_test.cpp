// Tests the key-value store of src/tutorial: what another protocol promises, and what Connection
// and Server do for it. Most tests talk to the program over a socket. Others run Connection and
// Server in this process. It links its own system calls and operator new, so that a test can say
// what the kernel takes, measure memory, and make allocations fail.
#include "key_value.hpp"

#include <sys/types.h>
// <sys/types.h> comes first: FreeBSD's <sys/event.h> needs it.
#include <sys/event.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "client.hpp"
#include "echod/connection.hpp"
#include "echod/event_loop.hpp"
#include "echod/server.hpp"
#include "echod/socket.hpp"
#include "patience.hpp"
#include "process.hpp"
#include "system.hpp"
#include "transcript.hpp"

using namespace std::chrono_literals;
using Clock = echod::EventLoop::Clock;
using echod::Connection;
using echod::KeyValue;
using echod::StepResult;
using echod::Store;

namespace {

constexpr std::size_t all = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kibibyte = 1024;
constexpr std::size_t read_buffer = 112 * kibibyte;  // as large as Server's

/// Memory from operator new, in bytes.
struct Memory {
  std::size_t used = 0;
  std::size_t peak = 0;          // the most since a test has set it
  std::size_t fails_from = all;  // an allocation of so many bytes or more fails
  int fails_after = -1;          // if not negative: the allocation after this number fails
};
Memory memory;

/// The kernel and the client behind it, for a Connection without a descriptor.
struct Kernel {
  std::string_view input;             // what the client sends
  std::string_view expected;          // what it must receive
  bool half_close = true;             // behind the input
  std::size_t room = all;             // how much the send buffer takes until the test drains it
  std::mt19937_64* random = nullptr;  // if not null: reads and writes are cut at random
  std::size_t received = 0;
  std::size_t writes = 0;
  bool right = true;  // everything that came back was expected

  std::size_t cut(std::size_t size) {
    if (random == nullptr || size == 0 || (*random)() % 2 == 0) return size;
    return 1 + (*random)() % std::min<std::size_t>(size, (*random)() % 2 == 0 ? 5 : size);
  }
  bool pauses() const { return random != nullptr && (*random)() % 4 == 0; }
};
Kernel* kernel = nullptr;

/// A client in a Server of this process that takes everything at once.
struct Sink {
  int descriptor = -1;
  std::size_t taken = 0;
};
Sink sink;
int last_accepted = -1;

ssize_t fail(int error) {
  errno = error;
  return -1;
}

/// In front of each block is its size, because operator delete is not always told.
constexpr std::size_t header = alignof(std::max_align_t);

// Not inline: otherwise g++ sees that operator delete frees another address than operator new gave.
__attribute__((noinline)) void* allocate(std::size_t size) {
  if (size >= memory.fails_from) return nullptr;
  if (memory.fails_after == 0) return nullptr;
  if (memory.fails_after > 0) --memory.fails_after;
  void* const block = std::malloc(header + size);
  if (block == nullptr) return nullptr;
  *static_cast<std::size_t*>(block) = size;
  memory.used += size;
  memory.peak = std::max(memory.peak, memory.used);
  return static_cast<char*>(block) + header;
}

__attribute__((noinline)) void release(void* bytes) {
  if (bytes == nullptr) return;
  void* const block = static_cast<char*>(bytes) - header;
  memory.used -= *static_cast<std::size_t*>(block);
  std::free(block);
}

}  // namespace

void* operator new(std::size_t size) {
  void* const block = allocate(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void operator delete(void* bytes) noexcept { release(bytes); }
void operator delete(void* bytes, std::size_t) noexcept { release(bytes); }

namespace echod {

ssize_t system::read(int descriptor, void* buffer, std::size_t size) {
  if (kernel == nullptr) return ::read(descriptor, buffer, size);
  if (kernel->input.empty() && kernel->half_close) return 0;
  if (kernel->input.empty() || kernel->pauses()) return fail(EAGAIN);
  const std::size_t count = kernel->cut(std::min(size, kernel->input.size()));
  kernel->input.copy(static_cast<char*>(buffer), count);
  kernel->input.remove_prefix(count);
  return static_cast<ssize_t>(count);
}

ssize_t system::write(int descriptor, const void* bytes, std::size_t size) {
  if (descriptor == sink.descriptor && descriptor >= 0) {
    sink.taken += size;
    return static_cast<ssize_t>(size);
  }
  if (kernel == nullptr) return ::write(descriptor, bytes, size);
  ++kernel->writes;
  const std::size_t count = kernel->cut(std::min(size, kernel->room));
  if (count == 0 || kernel->pauses()) return fail(EAGAIN);
  const std::string_view sent(static_cast<const char*>(bytes), count);
  if (kernel->received > kernel->expected.size() ||
      kernel->expected.substr(kernel->received, count) != sent)
    kernel->right = false;
  kernel->received += count;
  kernel->room -= kernel->room == all ? 0 : count;
  return static_cast<ssize_t>(count);
}

int system::accept(int descriptor) {
  const int accepted = ::accept(descriptor, nullptr, nullptr);
  if (accepted >= 0) last_accepted = accepted;
  return accepted;
}

int system::poll(pollfd& entry) {
  if (kernel != nullptr) return kernel->input.empty() && !kernel->half_close ? 0 : 1;
  return ::poll(&entry, 1, 0);
}

int system::change(int kqueue, const struct kevent& change) {
  return ::kevent(kqueue, &change, 1, nullptr, 0, nullptr);
}

int system::wait(int kqueue, std::span<struct kevent> events, const timespec* time) {
  return ::kevent(kqueue, nullptr, 0, events.data(), static_cast<int>(events.size()), time);
}

}  // namespace echod

namespace {

/// Returns a value whose parts all differ, so that a lost or repeated piece is seen.
std::string value_of(std::size_t size) {
  std::string value;
  for (int number = 0; value.size() < size; ++number) value += std::to_string(number) + ' ';
  value.resize(size);
  return value;
}

const std::string large = value_of(KeyValue::max_value);
const std::string large_reply = "VALUE " + large + "\n";

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

/// Returns the path of the program: what KEY_VALUE names, or where the build has put it.
std::string program() {
  const char* const named = std::getenv("KEY_VALUE");
  if (named != nullptr) return named;
  if (::access(KEY_VALUE_PATH, X_OK) == 0) return KEY_VALUE_PATH;
  return "./key_value";
}

/// The running program.
class Program : public Process {
 public:
  explicit Program(Start start = {}) : Process(with_arguments(std::move(start))) {
    const std::string announcement = line_with("key_value: listening on 127.0.0.1:");
    if (announcement.empty()) throw std::runtime_error("the server did not start");
    port_ = port_of(announcement);
  }
  std::uint16_t port() const { return port_; }

 private:
  static Start with_arguments(Start start) {
    start.program = program();
    start.options.insert(start.options.end(), {"127.0.0.1", "0"});
    return start;
  }
  std::uint16_t port_ = 0;
};

/// Returns what comes back until the server closes.
std::string answers_to(const Program& server, std::string_view requests) {
  return Client(server.port()).exchange(requests);
}

/// Returns the reply to one command, whose connection stays open.
std::string answer_to(Client& client, std::string_view line, std::size_t size) {
  client.send(line);
  return client.receive(size);
}

/// Receives replies with the large value, `times` times. Returns how many were right.
int receive_large(Client& client, int times) {
  int right = 0;
  while (right < times && client.receive(large_reply.size()) == large_reply) ++right;
  return right;
}

/// Sends requests without reading the replies, until the connection takes no more.
class Greedy : public Client {
 public:
  explicit Greedy(std::uint16_t port) : Client(port, "127.0.0.1", 32768) {}
  /// Returns how much it has sent.
  std::size_t fill(std::string_view requests) {
    const std::size_t size = requests.size();
    while (!requests.empty() && ready_within(POLLOUT, 100ms)) send_some(requests);
    return size - requests.size();
  }
};

/// A Server on a loop in this process. It takes over the signals.
class LocalServer final : public echod::EventLoop::Handler {
 public:
  explicit LocalServer(echod::Socket listener = echod::Socket::listen("127.0.0.1", 0),
                       echod::TimeLimits limits = {})
      : port_(port_of(listener.local_address())),
        server_(loop_, std::move(listener), KeyValue(store_), limits) {
    std::signal(SIGPIPE, SIG_IGN);
  }

  Store& store() { return store_; }
  std::uint16_t port() const { return port_; }
  /// The server has no memory for a large value.
  void set_no_memory(bool on) { no_memory_ = on; }

  /// Runs until it has stopped, or `goes_on`, which is called between the batches, returns false.
  /// Throws std::runtime_error if that takes too long.
  void run(std::function<bool()> goes_on = [] { return true; }) {
    goes_on_ = std::move(goes_on);
    start_ = Clock::now();
    loop_.run(*this);
  }

  /// Runs until it has accepted a client. Returns the descriptor.
  int accept_one() {
    last_accepted = -1;
    run([] { return last_accepted < 0; });
    return last_accepted;
  }

  void on_event(const struct kevent& event) override {
    if (no_memory_) memory.fails_from = large.size();
    server_.on_event(event);
    memory.fails_from = all;
  }
  std::optional<Clock::time_point> before_wait() override {
    const auto deadline = server_.before_wait();
    if (Clock::now() - start_ > patience) throw std::runtime_error("it takes too long");
    if (!deadline || !goes_on_()) return std::nullopt;
    return std::min(*deadline, Clock::now() + 1ms);
  }

 private:
  Store store_;
  std::uint16_t port_;
  echod::EventLoop loop_;
  echod::Server server_;
  bool no_memory_ = false;
  Clock::time_point start_;
  std::function<bool()> goes_on_;
};

/// A Server in a process of its own, which has any time to stop.
class PatientServer {
 public:
  PatientServer() {
    echod::Socket listener = echod::Socket::listen("127.0.0.1", 0);
    port_ = port_of(listener.local_address());
    pid_ = ::fork();
    if (pid_ < 0) throw std::runtime_error("no process for a server");
    if (pid_ > 0) return;
    LocalServer(std::move(listener), {.stop = 1h}).run();
    ::_exit(0);
  }
  PatientServer(const PatientServer&) = delete;
  ~PatientServer() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  std::uint16_t port() const { return port_; }
  void signal(int number) const { ::kill(pid_, number); }
  /// Returns 0 after a stop.
  int wait() {
    int status = -1;
    for (const auto start = Clock::now(); ::waitpid(pid_, &status, WNOHANG) == 0; ::usleep(1000))
      if (Clock::now() - start > patience) throw std::runtime_error("the server does not end");
    pid_ = -1;
    return status;
  }

 private:
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
};

/// A Connection to a Kernel, which it has for as long as this object exists.
struct Session {
  Session(Store& store, Kernel from) : now(from), connection(echod::Socket(), KeyValue(store)) {
    kernel = &now;
  }
  Session(const Session&) = delete;
  ~Session() { kernel = nullptr; }

  StepResult step() {
    static std::vector<char> buffer(read_buffer);
    if (++steps > 1'000'000) throw std::runtime_error("it makes no progress");
    kernel = &now;
    return connection.step(buffer);
  }
  /// Returns whether everything that was expected has come back.
  bool complete() const { return now.right && now.received == now.expected.size(); }

  Kernel now;
  Connection connection;
  int steps = 0;
};

/// Returns the replies to `input` and a half-close. Written without a look at KeyValue.
std::string replies_to(std::string_view input, std::map<std::string, std::string>& values) {
  constexpr std::size_t most = 250 + 60'000 + 7;
  std::string replies;
  while (!input.empty()) {
    const std::size_t size = std::min(input.find('\n'), input.size());
    if (size >= most) return replies + "ERROR the line is too long\n";
    if (size == input.size()) return replies + "ERROR the line is not finished\n";
    std::string line(input.substr(0, size));
    input.remove_prefix(size + 1);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line == "QUIT") return replies + "BYE\n";
    if (line.rfind("GET ", 0) == 0) {
      const auto found = values.find(line.substr(4));
      replies += found == values.end() ? "NOT FOUND\n" : "VALUE " + found->second + "\n";
    } else if (line.rfind("SET ", 0) == 0) {
      const std::string key = line.substr(4, line.find(' ', 4) - 4);
      const std::string value = line.substr(std::min(line.size(), 4 + key.size() + 1));
      const bool good_key = !key.empty() && key.size() <= 250;
      const bool good_value = value.size() <= 60'000;
      if (good_key && good_value) values[key] = value;
      replies += !good_key     ? "ERROR the key is empty or too long\n"
                 : !good_value ? "ERROR the value is too long\n"
                               : "OK\n";
    } else {
      replies += "ERROR a line is SET KEY VALUE, GET KEY or QUIT\n";
    }
  }
  return replies;
}

std::string random_line(std::mt19937_64& random) {
  const std::string key(1, "abc"[random() % 3]);
  const std::string end = random() % 3 == 0 ? "\r\n" : "\n";
  switch (random() % 40) {
    case 0: return "QUIT" + end;
    case 1: return std::string(1 + random() % 70'000, 'x') + end;
    case 2: return "SET " + std::string(249 + random() % 3, 'k') + " 1" + end;
    case 3: return "SET " + key + " " + value_of(59'999 + random() % 3) + end;
    case 4: return "SET " + key + " " + value_of(random() % 60'000) + end;
    case 5: return "get " + key + end;
    case 6: return "" + end;
    case 7: return "SET " + key + end;
    case 8: return "SET  " + key + end;
    default: break;
  }
  if (random() % 3 != 0) return "GET " + key + end;
  return "SET " + key + " " + value_of(random() % 20) + end;
}

}  // namespace

TEST_CASE("clients store values under keys, and ask for them") {
  const Program server;
  Client client(server.port());
  const auto answers = [&](std::string_view line, const std::string& reply) {
    INFO(line);
    CHECK(answer_to(client, line, reply.size()) == reply);
  };
  answers("GET color\n", "NOT FOUND\n");
  answers("SET color dark green\n", "OK\n");
  answers("GET color\n", "VALUE dark green\n");
  answers("SET color red\r\n", "OK\n");
  answers("GET color\r\n", "VALUE red\n");
  answers("SET empty\n", "OK\n");
  answers("GET empty\n", "VALUE \n");
  answers("SET spaces  two \n", "OK\n");
  answers("GET spaces\n", "VALUE  two \n");
  answers(std::string_view("SET bytes \0\x80\r\xff\n", 15), "OK\n");
  answers("GET bytes\n", std::string("VALUE \0\x80\r\xff\n", 11));
  client.send("QUIT\nGET color\n");
  CHECK(client.receive_all() == "BYE\n");
}

TEST_CASE("all clients use one store") {
  const Program server;
  Client one(server.port());
  Client other(server.port());
  CHECK(answer_to(one, "SET key 1\n", 3) == "OK\n");
  CHECK(answer_to(other, "GET key\n", 8) == "VALUE 1\n");
  CHECK(answer_to(other, "SET key 2\n", 3) == "OK\n");
  CHECK(answer_to(one, "GET key\n", 8) == "VALUE 2\n");
}

TEST_CASE("a line that is not understood, or asks too much, has a reply and changes nothing") {
  const Program server;
  const std::string usage = "ERROR a line is SET KEY VALUE, GET KEY or QUIT\n";
  const std::string bad_key = "ERROR the key is empty or too long\n";
  for (const std::string line : {"", "set a 1", "SETa 1", "QUIT now", "GE", " "})
    CHECK(answers_to(server, line + "\nGET a\n") == usage + "NOT FOUND\n");
  for (const std::string line : {"SET", "SET ", "SET  1"})
    CHECK(answers_to(server, line + "\n") == bad_key);
  const std::string key(KeyValue::max_key, 'k');
  CHECK(answers_to(server, "SET " + key + " 1\nGET " + key + "\n") == "OK\nVALUE 1\n");
  CHECK(answers_to(server, "SET " + key + "k 1\nGET " + key + "k\n") == bad_key + "NOT FOUND\n");
  CHECK(answers_to(server, "SET a " + large + "\r\nGET a\n") == "OK\n" + large_reply);
  CHECK(answers_to(server, "SET a " + large + "x\nGET a\n") ==
        "ERROR the value is too long\n" + large_reply);
  CHECK(answers_to(server, "SET " + key + " " + large + "\r\nGET " + key + "\n") ==
        "OK\n" + large_reply);
}

TEST_CASE("a line that is too long closes the connection, with or without its end") {
  const Program server;
  for (const std::string end : {"", "\nGET a\n"}) {
    Client client(server.port());
    client.send("GET a\n" + std::string(100'000, 'x') + end);
    CHECK(client.receive_all() == "NOT FOUND\nERROR the line is too long\n");
  }
  Store store;
  const std::string limit(KeyValue(store).max_held(), 'x');
  CHECK(answers_to(server, limit) == "ERROR the line is too long\n");
  CHECK(answers_to(server, limit.substr(1)) == "ERROR the line is not finished\n");
}

TEST_CASE("a half-close answers every line, but an unfinished one is not done") {
  const Program server;
  CHECK(answers_to(server, "SET key 1\nGET key\n") == "OK\nVALUE 1\n");
  CHECK(answers_to(server, "GET key\nSET key 2") == "VALUE 1\nERROR the line is not finished\n");
  CHECK(answers_to(server, "GET key") == "ERROR the line is not finished\n");
  CHECK(answers_to(server, "GET key\n") == "VALUE 1\n");
  CHECK(answers_to(server, "").empty());
}

TEST_CASE("when the store is full, it says so, and goes on with what it has") {
  const Program server;
  Client client(server.port());
  int stored = 0;
  for (bool full = false; !full; stored += full ? 0 : 1) {
    REQUIRE(stored < 2000);
    client.send("SET " + std::to_string(stored) + " " + large + "\n");
    std::string reply = client.receive(3);
    full = reply != "OK\n";
    if (full) CHECK(reply + client.receive(21) == "ERROR the store is full\n");
  }
  CHECK(stored == 64 * 1024 * 1024 / 60'163);
  CHECK(answer_to(client, "GET 0\n", large_reply.size()) == large_reply);
  CHECK(answer_to(client, "SET 0 short\n", 3) == "OK\n");
  CHECK(answer_to(client, "SET other " + large.substr(1000) + "\n", 3) == "OK\n");
}

TEST_CASE("2,000 GETs in one piece have all their replies") {
  const Program server;
  Client client(server.port());
  REQUIRE(answer_to(client, "SET key " + large + "\n", 3) == "OK\n");
  client.send(repeated("GET key\n", 2000));

  SECTION("although no more input comes") {
    CHECK(receive_large(client, 2000) == 2000);
    client.send("QUIT\n");
    CHECK(client.receive_all() == "BYE\n");
  }
  SECTION("and an orderly end after a half-close") {
    client.shut_down_sending();
    CHECK(receive_large(client, 2000) == 2000);
    CHECK(client.how_it_ends() == "end-of-file");
  }
}

TEST_CASE("a client that reads slowly has all its replies", "[M2]") {
  const Program server;
  Greedy client(server.port());
  REQUIRE(answer_to(client, "SET key " + large + "\n", 3) == "OK\n");
  const std::string requests = repeated("GET key\n", 100);
  REQUIRE(client.fill(requests) == requests.size());
  client.shut_down_sending();
  const std::size_t expected = 100 * large_reply.size();
  std::string replies;
  for (std::string piece = "?"; !piece.empty(); replies += piece)
    piece = client.receive(std::min<std::size_t>(1000, expected - replies.size()));
  CHECK((replies == repeated(large_reply, 100)));
  CHECK(client.how_it_ends() == "end-of-file");
}

TEST_CASE("a client may send and read at the same time, more than all buffers hold") {
  const Program server;
  const std::string key(KeyValue::max_key, 'k');
  const std::string requests = repeated("GET " + key + "\n", 600);
  const std::string replies = answers_to(server, "SET " + key + " " + large + "\n" + requests);
  CHECK((replies == "OK\n" + repeated(large_reply, 600)));
}

TEST_CASE("a stop answers 2,000 GETs that have come before, and ends orderly", "[C3]") {
  PatientServer server;
  Client client(server.port());
  REQUIRE(answer_to(client, "SET key " + large + "\n", 3) == "OK\n");
  client.send(repeated("GET key\n", 2000));
  REQUIRE(client.hears_within(patience));
  server.signal(SIGTERM);
  wait_until_refused(server.port());
  CHECK(receive_large(client, 2000) == 2000);
  CHECK(client.how_it_ends() == "end-of-file");
  client.close();
  CHECK(server.wait() == 0);
}

TEST_CASE("a stop of the program is orderly, for an idle client and for one with replies to come",
          "[C3]") {
  Program server;
  Client client(server.port());
  Client idle(server.port());
  REQUIRE(answer_to(idle, "GET key\n", 10) == "NOT FOUND\n");
  REQUIRE(answer_to(client, "SET key " + large + "\n", 3) == "OK\n");
  client.send(repeated("GET key\n", 100));
  REQUIRE(client.hears_within(patience));
  server.signal(SIGTERM);
  CHECK(receive_large(client, 100) == 100);
  CHECK(client.how_it_ends() == "end-of-file");
  CHECK(idle.how_it_ends() == "end-of-file");
  client.close();
  CHECK(server.wait() == 0);
}

TEST_CASE("at a stop, a line that is not finished has its reply", "[C3]") {
  Program server;
  Client client(server.port());
  client.send("GET key\nSET key 1");
  CHECK(client.receive(10) == "NOT FOUND\n");
  server.signal(SIGTERM);
  CHECK(client.receive_all() == "ERROR the line is not finished\n");
  client.close();
  CHECK(server.wait() == 0);
}

TEST_CASE("a bad command line is a usage error") {
  const std::vector<std::vector<std::string>> lines = {
      {}, {"8081"}, {"127.0.0.1", "99999"}, {"127.0.0.1", "80x"}, {"-x", "127.0.0.1", "0"}};
  for (const auto& line : lines) {
    Process process({.options = line, .program = program()});
    CHECK(process.wait() == 64);
    CHECK(process.output() == "usage: key_value [-v] address port\n");
  }
}

TEST_CASE("a port in use ends the program with a message") {
  const Program server;
  Process other({.options = {"127.0.0.1", std::to_string(server.port())}, .program = program()});
  CHECK_FALSE(other.line_with("key_value: cannot listen on 127.0.0.1:").empty());
  CHECK(other.wait() == 1);
}

TEST_CASE("with -v the program shows its events") {
  Program server({.options = {"-v"}});
  CHECK(answers_to(server, "GET key\n") == "NOT FOUND\n");
  CHECK_FALSE(server.line_with(": received 8, sent 10, unsent 0, held 0: echoing").empty());
}

#ifdef __linux__  // others do not report the peak of a process
TEST_CASE("a client that does not read costs less than 256 KiB, measured at the program", "[M2]") {
  if (sanitized) return;
  const Program server;
  Client first(server.port());
  REQUIRE(answer_to(first, "SET key " + large + "\n", 3) == "OK\n");
  REQUIRE(answer_to(first, "GET key\n", large_reply.size()) == large_reply);
  const double before = server.peak_kilobytes();
  const std::string requests = repeated("GET key\n", 100'000);
  std::vector<std::unique_ptr<Greedy>> clients;
  while (clients.size() < 20) {
    clients.push_back(std::make_unique<Greedy>(server.port()));
    CHECK(clients.back()->fill(requests) > 100'000);
  }
  for (const auto& client : clients) CHECK(receive_large(*client, 10) == 10);
  const double each = (server.peak_kilobytes() - before) / static_cast<double>(clients.size());
  CHECK(each < 256);
  CHECK(each > 60);  // otherwise the test has measured something else
}
#endif

// From here on, Connection and Server run in this process.

TEST_CASE("however the packets are split, the replies are the same") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int run = 0; run < 400; ++run) {
    std::string input;
    for (auto lines = random() % 60; lines > 0; --lines) input += random_line(random);
    if (random() % 2 == 0) input.resize(random() % (input.size() + 1));
    std::map<std::string, std::string> values;
    const std::string expected = replies_to(input, values);
    Store store;
    Session session(store, {.input = input, .expected = expected, .random = &random});
    bool failed = false;
    while (!session.connection.ended()) failed = failed || session.step().error != 0;
    INFO("run " << run << ", input " << transcript::quoted(input));
    REQUIRE_FALSE(failed);
    REQUIRE(session.complete());
    for (const auto& [key, value] : values) {
      REQUIRE(store.get(key) != nullptr);
      REQUIRE((*store.get(key) == value));
    }
  }
}

TEST_CASE("when output has drained, the next reply follows although no input comes", "[M2]") {
  Store store;
  REQUIRE(store.set("key", large));
  const std::string input = "GET key\nGET key\nGET key\nSET key";
  const std::string expected = repeated(large_reply, 3);
  Session session(store, {.input = input, .expected = expected, .half_close = false, .room = 1000});
  CHECK(session.step().sent == 1000);
  CHECK(session.connection.waits_for() == EVFILT_WRITE);
  session.now.room = 100'000;
  CHECK(session.step().sent == 100'000);
  CHECK(session.connection.waits_for() == EVFILT_WRITE);
  session.now.room = all;
  session.step();
  CHECK(session.complete());
  CHECK(session.connection.waits_for() == EVFILT_READ);
  CHECK(session.connection.held() == 7);
}

TEST_CASE("one step sends at most 256 KiB, although the kernel takes more", "[M1]") {
  Store store;
  REQUIRE(store.set("key", large));
  const std::string input = repeated("GET key\n", 2000);
  const std::string expected = repeated(large_reply, 2000);
  Session session(store, {.input = input, .expected = expected});
  std::size_t most = 0;
  while (!session.connection.ended()) most = std::max(most, session.step().sent);
  CHECK(session.complete());
  CHECK(most == 256 * kibibyte);
}

// A write for each of them would take as long as hundreds of large ones.
TEST_CASE("one step sends at most 64 short replies, and what was unsent", "[M1]") {
  Store store;
  const std::string input = repeated("GET key\n", 20'000);
  const std::string expected = repeated("NOT FOUND\n", 20'000);
  Session session(store, {.input = input, .expected = expected});
  std::size_t most = 0;
  while (!session.connection.ended()) {
    session.step();
    most = std::max(most, std::exchange(session.now.writes, 0));
  }
  CHECK(session.complete());
  CHECK(most == 65);
}

TEST_CASE("a client is served between the steps of another that always takes more", "[M1]") {
  LocalServer server;
  REQUIRE(server.store().set("key", large));
  Client greedy(server.port());
  sink = {.descriptor = server.accept_one()};
  Client other(server.port());
  const int other_socket = server.accept_one();

  greedy.send(repeated("GET key\n", 2000));
  server.run([] { return sink.taken == 0; });
  other.send("GET other\n");
  pollfd entry{other_socket, POLLIN, 0};
  REQUIRE(::poll(&entry, 1, static_cast<int>(patience.count())) == 1);
  const std::size_t before = sink.taken;
  server.run([&] { return sink.taken == before; });
  CHECK(sink.taken - before <= 256 * kibibyte);
  CHECK(other.receive(10) == "NOT FOUND\n");
  server.run([] { return sink.taken < 2000 * large_reply.size(); });
  sink = {};
}

TEST_CASE("a client costs less than 256 KiB beyond the store, whenever it reads", "[M2]") {
  const unsigned seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const std::string key(KeyValue::max_key, 'k');
  const std::string set = "SET " + key + " " + large + "\n";
  const std::string gets = repeated("GET " + key + "\n", 500);
  Store store;
  REQUIRE(store.set(key, large));
  store.reply.reserve(2 * large_reply.size());
  const std::string input = gets + set + gets + set + set + gets;
  const std::string replies = repeated(large_reply, 500);
  const std::string expected = replies + "OK\n" + replies + "OK\nOK\n" + replies;
  std::size_t most = 0;
  for (int run = 0; run < 20; ++run) {
    Session session(store, {.input = input, .expected = expected, .half_close = false, .room = 0});
    const std::size_t before = memory.used;
    memory.peak = memory.used;
    while (!session.complete()) {
      session.step();
      REQUIRE(session.now.right);
      session.now.room = random() % 4 == 0 ? random() % 300'000 : random() % 1000;
    }
    most = std::max(most, memory.peak - before);
    CHECK(memory.used == before);
  }
  CHECK(most < 256 * kibibyte);
  CHECK(most > 100 * kibibyte);  // otherwise the test has measured something else
}

TEST_CASE("without memory a client is reset, and the store has the old value or the new one",
          "[M4]") {
  const std::string key = "a-key-that-has-no-room-in-a-std::string-itself";
  const std::string set = "SET " + key + " " + large + "\n";
  const std::string get = "GET " + key + "\n";
  for (const bool is_new : {false, true}) {
    Store store;
    if (!is_new) REQUIRE(store.set(key, "old"));
    const std::string input = set + get;
    const std::string expected = "OK\n" + large_reply;
    std::size_t failures = 0;
    for (bool failed = true; failed; ++failures) {
      REQUIRE(failures < 20);
      Store before = store;
      Session session(store, {.input = input, .expected = expected, .room = 1000});
      memory.fails_after = static_cast<int>(failures);
      const StepResult result = session.step();
      memory.fails_after = -1;
      failed = result.error != 0;
      CHECK(session.now.right);
      CHECK(session.connection.ended() == failed);
      const std::string* const value = store.get(key);
      const bool is_old = is_new ? value == nullptr : value != nullptr && *value == "old";
      CHECK((is_old || (value != nullptr && *value == large)));
      if (failed) CHECK(result.error == ENOMEM);
      if (failed && result.sent == 0) CHECK(is_old);
      if (!failed) CHECK_FALSE(is_old);
      store = before;
    }
    CHECK(failures > 3);  // the copy, the key, the reply, and what the kernel did not take
  }
}

TEST_CASE("no memory for a SET costs that client only", "[M4]") {
  LocalServer server;
  Client client(server.port());
  Client other(server.port());
  const auto answers = [&](Client& asked, std::string_view line, const std::string& reply) {
    asked.send(line);
    server.run([&] { return !asked.hears_within(0ms); });
    CHECK(asked.receive(reply.size()) == reply);
  };
  answers(other, "SET key old\n", "OK\n");
  answers(client, "GET key\n", "VALUE old\n");
  server.set_no_memory(true);
  client.send("SET key " + large + "\n");
  server.run([&] { return !client.hears_within(0ms); });
  CHECK(client.how_it_ends() == "reset");
  answers(other, "GET key\n", "VALUE old\n");
  answers(other, "SET key new\n", "OK\n");
  server.set_no_memory(false);
  Client later(server.port());  // it waits for the end of the pause
  answers(later, "GET key\n", "VALUE new\n");
}

TEST_CASE("a short value in place of a long one gives its memory back") {
  Store store;
  REQUIRE(store.set("key", large));
  const std::size_t before = memory.used;
  REQUIRE(store.set("key", "short"));
  CHECK(before - memory.used >= large.size());
}

TEST_CASE("a full store has taken no more memory than its limit says, even for short pairs") {
  constexpr std::size_t limit = 1'000'000;
  for (const std::size_t size : {0U, 20U, 1000U, 60'000U}) {
    const std::size_t before = memory.used;
    Store store(limit);
    std::size_t pairs = 0;
    while (store.set(std::to_string(pairs), std::string(size, 'x'))) ++pairs;
    CHECK(memory.used - before <= limit);
    CHECK(pairs >= limit / (size + 6 + 160));
    // To replace what is there needs no room.
    CHECK(store.set("0", std::string(size, 'y')));
    CHECK_FALSE(store.set("0", std::string(size + limit, 'y')));
    CHECK((*store.get("0") == std::string(size, 'y')));
  }
}
