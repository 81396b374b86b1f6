// SPDX-License-Identifier: MIT
// A new key for the whole cluster in the three steps of docs/security.md, while clients come and go.
#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "catch.hpp"
#include "e2e/hostile.hpp"
#include "e2e/outage.hpp"
#include "lab/plan.hpp"
#include "shared/wire.h"

using namespace tcpmig;
using namespace tcpmig::e2e;

namespace {

constexpr std::chrono::seconds kBound{30};  // the machine may be busy

/// Clients that ask one after another until told to end, in a thread of their own.
class Fetching {
 public:
  Fetching(const TestLab& lab, bool ipv6, std::string request, std::string answer)
      : lab_(lab),
        ipv6_(ipv6),
        request_(std::move(request)),
        answer_(std::move(answer)),
        thread_([this] { run(); }) {}
  ~Fetching() { end(); }
  Fetching(const Fetching&) = delete;
  Fetching& operator=(const Fetching&) = delete;
  void end() {
    over_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] unsigned done() const { return done_; }
  /// What went wrong, the first ones in words.
  [[nodiscard]] std::vector<std::string> failures() const {
    const std::lock_guard lock(mutex_);
    return failures_;
  }

 private:
  void run() {
    while (!over_) {
      std::string failure;
      try {
        HttpClient client(lab_.netns("client1"), vip(ipv6_));
        client.send(request_);
        const Response response = client.receive();
        if (response.body != answer_) failure = "status " + std::to_string(response.status);
      } catch (const std::exception& error) {
        failure = error.what();
      }
      if (failure.empty()) {
        ++done_;
        continue;
      }
      const std::lock_guard lock(mutex_);
      if (failures_.size() < 10) failures_.push_back(failure + " after " + std::to_string(done_));
    }
  }

  const TestLab& lab_;
  bool ipv6_;
  std::string request_, answer_;
  std::atomic<bool> over_ = false;
  std::atomic<unsigned> done_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> failures_;
  std::thread thread_;
};

/// A download that moves on all the time, a little at a time.
class PacedDownload {
 public:
  PacedDownload(const TestLab& lab, lab::Payload file, bool ipv6)
      : file_(std::move(file)), client_(lab.netns("client1"), vip(ipv6)) {
    client_.send(get("/" + file_.name, "Connection: close\r\n"));
    thread_ = std::thread([this] { run(); });
  }
  ~PacedDownload() { finish(); }
  PacedDownload(const PacedDownload&) = delete;
  PacedDownload& operator=(const PacedDownload&) = delete;
  [[nodiscard]] std::size_t received() const { return received_; }
  [[nodiscard]] bool complete() {
    finish();
    const auto head = bytes_.find("\r\n\r\n");
    return head != std::string::npos &&
           lab::sha256_of_bytes(bytes_.substr(head + 4)) == file_.sha256;
  }

 private:
  void finish() {
    hurry_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void run() {
    const timeval limit{15, 0};
    ::setsockopt(client_.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    std::string piece(64 << 10, '\0');
    for (;;) {
      if (!hurry_) {
        std::this_thread::sleep_for(50ms);              // its pace
        if (received_ > file_.size * 9 / 10) continue;  // it lasts, however slow the rest is
      }
      const ssize_t got = ::recv(client_.fd(), piece.data(), piece.size(), 0);
      if (got <= 0) return;
      bytes_.append(piece, 0, static_cast<std::size_t>(got));
      received_ = bytes_.size();
    }
  }

  lab::Payload file_;
  HttpClient client_;
  std::string bytes_;
  std::atomic<bool> hurry_ = false;
  std::atomic<std::size_t> received_ = 0;
  std::thread thread_;
};

std::string health(const TestLab& lab, const std::string& node) {
  const auto status = status_of(lab, "switch1");
  for (const auto& one : status.at("nodes"))
    if (one.at("name") == node) return one.at("health");
  return "";
}

/// What a role has heard that it did not understand. The switch's counters outlive it.
std::uint64_t not_understood(const TestLab& lab, const std::string& node) {
  const char* name = "drop_bad_tag";
  if (node.starts_with("server")) name = "bad_tags";
  if (node.starts_with("dispatcher")) name = "bad_messages";
  return number_of(lab, node, name);
}

/// As an administrator does it. A dispatcher finishes what it has begun, and is known to be back before the next one goes.
void start_again(TestLab& lab, const std::string& node) {
  INFO(node);
  CHECK(not_understood(lab, node) == 0);
  if (node.starts_with("dispatcher")) CHECK(status_of(lab, node).at("relayed").empty());
  end_role(lab, node);
  lab.restart_role(node);
  if (node.starts_with("dispatcher"))
    REQUIRE(lab::wait_until(kBound, [&] { return health(lab, node) == "alive"; }));
}

using Clients = std::vector<std::unique_ptr<Fetching>>;

/// Each of them has been served since.
void check_served(const Clients& clients) {
  for (const auto& client : clients) {
    const unsigned before = client->done();
    CHECK(lab::wait_until(kBound, [&] { return client->done() >= before + 3; }));
    for (const std::string& failure : client->failures()) FAIL_CHECK(failure);
  }
}

/// The switch does not take what is sealed with a key that it does not have.
void check_refused(const TestLab& lab, Forger& forger) {
  const Sprayer to_switch(lab, "dispatcher1", {lab->node("switch1").addresses.at(2), 7420});
  const std::string commit = forger.message(abi::WIRE_COMMIT, "server1",
                                            {lab->node("client1").addresses.at(0), 4'000}, 1'000);
  const auto before = not_understood(lab, "switch1");
  CHECK(to_switch.send(commit));
  CHECK(lab::wait_until(5s, [&] { return not_understood(lab, "switch1") == before + 1; }));
}

}  // namespace

TEST_CASE(
    "a new key while everything runs: no fetch fails, a download goes on, the old key is of no "
    "use") {
  TestLab lab({.servers = 2, .dispatchers = 2});
  if (skipped(lab)) return;
  const lab::Payload small = lab.add_file("1k", 1024), large = lab.add_file("100m", 100 << 20);
  for (const std::string node : {"server1", "server2"})
    lab.start_server(lab::ServerKind::kNode, node);
  Forger of_old(lab, "dispatcher1");  // has read the file
  PacedDownload download(lab, large, true);
  REQUIRE(lab::wait_until(10s, [&] { return download.received() > 0; }));
  Clients clients;
  for (const bool ipv6 : {false, true}) {
    clients.push_back(
        std::make_unique<Fetching>(lab, ipv6, get("/1k"), read_file(lab.documents() / small.name)));
    clients.push_back(std::make_unique<Fetching>(lab, ipv6, post("/upload", "body"),
                                                 lab::sha256_of_bytes("body") + "\n"));
  }
  check_served(clients);

  const std::string secret = lab::Paths(lab->name()).secret;
  const std::pair<const char*, std::vector<std::string>> steps[] = {
      {"add", {"switch1", "server1", "dispatcher1", "dispatcher2", "server2"}},
      {"use", {"dispatcher2", "server2", "switch1", "server1", "dispatcher1"}},
      {"drop", {"server1", "dispatcher1", "server2", "dispatcher2", "switch1"}}};
  for (const auto& [step, nodes] : steps) {
    const Output rotated = cli({"secret", "rotate", secret, step});
    INFO(step << ": " << rotated.error << '\n' << lab.logs());
    REQUIRE(rotated.code == 0);
    for (const std::string& node : nodes) {
      start_again(lab, node);
      check_served(clients);
    }
  }
  for (const auto& client : clients) client->end();
  for (const lab::Node& node : lab->nodes())
    if (node.role != "client" && node.role != "fabric") {
      INFO(node.name);
      CHECK(not_understood(lab, node.name) == 0);
    }
  CHECK(download.received() < large.size);  // it has lasted until here
  CHECK(download.complete());
  check_refused(lab, of_old);
}
