// SPDX-License-Identifier: MIT
// No request runs twice, and none is answered twice: whatever happens to the transfer that carries it. The servers are listeners
// of this test, which count what they are asked to do.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "catch.hpp"
#include "e2e/hostile.hpp"
#include "lab/teardown.hpp"
#include "shared/wire.h"
#include "sys/check.hpp"
#include "sys/netns.hpp"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

/// How often each request ran, on all servers together.
class Runs {
 public:
  void add(const std::string& request) {
    const std::lock_guard lock(mutex_);
    ++runs_[request];
  }
  [[nodiscard]] unsigned of(const std::string& request) const {
    const std::lock_guard lock(mutex_);
    const auto found = runs_.find(request);
    return found == runs_.end() ? 0 : found->second;
  }
  /// The most runs of any request of this method.
  [[nodiscard]] unsigned most(const std::string& method) const {
    const std::lock_guard lock(mutex_);
    unsigned most = 0;
    for (const auto& [request, count] : runs_)
      if (request.starts_with(method)) most = std::max(most, count);
    return most;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, unsigned> runs_;
};

/// An application on port 80 of a node: a request is "METHOD /ID .."; what runs is counted, and answered with its ID.
class Application {
 public:
  Application(const TestLab& lab, const std::string& node, Runs& runs)
      : runs_(runs), listener_(listen_in(lab, node)), thread_([this] { serve(); }) {}
  ~Application() {
    stop_ = true;
    thread_.join();
  }
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

 private:
  struct Client {
    sys::UniqueFd fd;
    std::string request;
  };

  static sys::UniqueFd listen_in(const TestLab& lab, const std::string& node) {
    const sys::EnterNetns inside(lab.netns(node));
    sys::UniqueFd fd(
        sys::check("socket", ::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(80);
    sys::check("bind", ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any));
    sys::check("listen", ::listen(fd.get(), 128));
    return fd;
  }

  void serve() {
    while (!stop_) {
      std::vector<pollfd> wait{{listener_.get(), POLLIN, 0}};
      for (const Client& client : clients_) wait.push_back({client.fd.get(), POLLIN, 0});
      if (::poll(wait.data(), wait.size(), 20) <= 0) continue;
      for (std::size_t i = wait.size() - 1; i > 0; --i)
        if (wait[i].revents != 0 && !read_on(clients_[i - 1]))
          clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(i - 1));
      sys::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd) clients_.push_back({std::move(fd), {}});
    }
  }

  /// False: it has been answered, or the client has gone.
  bool read_on(Client& client) {
    char bytes[4096];
    const ssize_t got = ::recv(client.fd.get(), bytes, sizeof bytes, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    client.request.append(bytes, static_cast<std::size_t>(got));
    const std::string& text = client.request;
    const auto end = text.find("\r\n\r\n");
    const bool post = text.starts_with("POST");
    if (end == std::string::npos || (post && text.size() < end + 4 + 4)) return true;
    const auto path = text.find('/') + 1;
    const std::string request =
        text.substr(0, path - 2) + text.substr(path, text.find(' ', path) - path);
    runs_.add(request);
    const std::string answer =
        "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(request.size()) +
        "\r\nConnection: close\r\n\r\n" + request;
    ::send(client.fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    return false;
  }

  Runs& runs_;
  sys::UniqueFd listener_;
  std::vector<Client> clients_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

struct Answered {
  int status = 0;
  bool right = true;  ///< the answer to this request, and nothing after it
  std::string error;  ///< of the connection
};

/// In any thread: nothing is checked here. The application knows the request as METHOD and id: "POST17".
Answered ask(const TestLab& lab, const std::string& method, unsigned id, bool ipv6) {
  Answered answered;
  try {
    HttpClient client(lab.netns("client1"), vip(ipv6));
    std::string request =
        method + " /" + std::to_string(id) + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    request += method == "POST" ? "Content-Length: 4\r\n\r\nbody" : "\r\n";
    client.send(request);
    const Response response = client.receive();
    answered.status = response.status;
    answered.right = (response.status != 200 || response.body == method + std::to_string(id)) &&
                     client.receive_all().empty();
  } catch (const std::exception& error) {
    answered.error = error.what();
  }
  return answered;
}

/// A thread that goes on until `over`: told so and waited for, whatever is thrown.
struct Joined {
  std::atomic<bool>& over;
  std::thread& thread;
  void end() const {
    over = true;
    if (thread.joinable()) thread.join();
  }
  ~Joined() { end(); }
};

void kill_agent(const TestLab& lab, const std::string& node) {
  const auto process = lab::identify(lab.role_pid(node)).value();
  ::kill(process.pid, SIGKILL);
  REQUIRE(lab::wait_until(5s, [&] {
    lab::poll_exit(process.pid);
    return !lab::is_alive(process);
  }));
}

}  // namespace

TEST_CASE(
    "COMMITs doubled, replayed, numbered anew, sent past the switch: each request runs once") {
  TestLab lab({.servers = 2});
  if (skipped(lab)) return;
  Runs runs;
  Application first(
      lab, "server1",
      runs);  // nobody listens on server2: every other transfer is refused there, and goes on
  ControlTap tap(lab, "dispatcher1", abi::WIRE_COMMIT);
  Forger forger(lab, "dispatcher1");
  Sprayer to_switch(lab, "dispatcher1", {sys::Address::parse("10.0.2.1").value(), 7420});
  std::vector<Sprayer> to_agents;
  for (const char* node : {"server1", "server2"})
    to_agents.emplace_back(lab, "dispatcher1",
                           sys::Endpoint{lab->node(node).addresses.at(0), 7420});
  INFO(lab.logs());
  std::vector<std::string> frames;
  const auto again = [&](const std::string& frame) {
    tap.replay(frame);
    const std::string commit = forger.again(payload_of(frame));
    to_switch.send(commit);
    for (const Sprayer& agent : to_agents) {
      agent.send(payload_of(frame));
      agent.send(forger.again(payload_of(frame)));
    }
  };
  constexpr unsigned kRequests = 20, kMostDoubled = 20;
  for (unsigned id = 0; id < kRequests; ++id) {
    const std::string method = id % 2 != 0 ? "GET" : "POST";
    std::atomic<bool> over = false;
    std::atomic<unsigned> doubled = 0;
    std::thread doubler([&] {  // what it repeats it hears itself: so there is an end
      while (!over && doubled < kMostDoubled) {
        const std::string frame = tap.next(50ms);
        if (frame.empty()) continue;
        again(frame);
        frames.push_back(frame);
        ++doubled;
      }
    });
    const Answered answered = ask(lab, method, id, false);
    CHECK(lab::wait_until(10s, [&] { return doubled > 1; }));
    over = true;
    doubler.join();
    CHECK(answered.status == 200);
    CHECK(answered.right);
    CHECK(runs.of(method + std::to_string(id)) == 1);
  }
  CHECK(frames.size() >= kRequests + kRequests / 2);
  // Long past: also those that server2 refused, now that it could open them.
  Application second(lab, "server2", runs);
  for (const std::string& frame : frames) again(frame);
  const auto counters = [&] { return switch_counters(lab); };
  CHECK(lab::wait_until(20s, [&] { return counters().at("refused_replay") >= frames.size(); }));
  std::this_thread::sleep_for(300ms);  // what must not happen has no sign to wait for
  CHECK(runs.most("POST") == 1);
  CHECK(runs.most("GET") == 1);
}

TEST_CASE("agents killed at any moment: no request runs twice, none is answered twice") {
  TestLab lab(
      {.servers = 2},
      "[[service]]\nname = \"web\"\nid = 1\nvip4 = \"203.0.113.10\"\nvip6 = "
      "\"2001:db8:113::10\"\nport = 80\n[[service.route]]\nprefix = \"/\"\npool = \"all\"\n"
      "[[pool]]\nname = \"all\"\nservers = [{ node = \"server1\" }, { node = \"server2\" }]\n"
      "[timeouts]\ntransfer = \"300ms\"\nretry = \"20ms\"\n");
  if (skipped(lab)) return;
  Runs runs;
  Application first(lab, "server1", runs), second(lab, "server2", runs);
  INFO(lab.logs());
  std::atomic<bool> over = false;
  std::atomic<unsigned> failed = 0, answered_twice = 0, asked = 0;
  std::set<std::string> errors;
  std::thread clients([&] {
    for (unsigned id = 0; !over; ++id, ++asked) {
      const Answered answered = ask(lab, id % 2 != 0 ? "GET" : "POST", id, id % 4 >= 2);
      if (answered.status != 200) ++failed;
      if (!answered.right) ++answered_twice;
      if (!answered.error.empty()) errors.insert(answered.error);
    }
  });
  const Joined joined{over, clients};  // also where a role does not come back
  for (int kill = 0; kill < 6; ++kill) {
    const std::string victim = kill % 2 != 0 ? "server1" : "server2";
    const unsigned before = asked;
    CHECK(lab::wait_until(20s, [&] { return asked >= before + 4; }));
    kill_agent(lab, victim);
    lab.restart_role(victim);
  }
  joined.end();
  for (const std::string& error : errors) FAIL_CHECK(error);
  CHECK(runs.most("POST") == 1);  // a GET may go to another server on mere silence
  CHECK(answered_twice == 0);
  // A POST of which nobody knows whether it ran is answered with 504; and only such a one.
  const auto answers = lab::role_status(*lab, "dispatcher1").at("answers");
  CHECK(answers.value("504", 0U) + answers.value("503", 0U) == failed);
  WARN(asked << " requests, " << failed << " answered by the dispatcher");
}
