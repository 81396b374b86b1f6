// SPDX-License-Identifier: MIT
#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lab/http_client.hpp"
#include "lab/lab.hpp"
#include "lab/payload.hpp"
#include "lab/process.hpp"
#include "lab/role_status.hpp"
#include "lab/stock_servers.hpp"

/// What every end-to-end test needs: the program under test, a lab of its own, programs run with a
/// deadline.
namespace tcpmig::e2e {

using namespace std::chrono_literals;
using lab::get;
using lab::HttpClient;
using lab::Response;

/// The program under test: environment TCPMIG_BIN.
std::filesystem::path program();

/// A running tcpmig process belongs to one lab; a failing test leaves nothing: ~TestLab removes it.
class TestLab {
 public:
  explicit TestLab(lab::Options options = {}, const std::string& config = {});
  ~TestLab();
  TestLab(const TestLab&) = delete;
  TestLab& operator=(const TestLab&) = delete;

  [[nodiscard]] const lab::Lab& operator*() const { return *lab_; }
  [[nodiscard]] const lab::Lab* operator->() const { return &*lab_; }
  [[nodiscard]] const std::filesystem::path& directory() const noexcept {
    return directory_.path();
  }
  [[nodiscard]] const std::filesystem::path& documents() const noexcept { return documents_; }

  /// Makes a file that every server serves.
  lab::Payload add_file(const std::string& name, std::size_t size);
  lab::StockServer& start_server(lab::ServerKind kind, const std::string& node,
                                 std::uint16_t port = 80);
  void stop_server(const std::string& node);
  [[nodiscard]] const lab::StockServer& server(const std::string& node) const;
  [[nodiscard]] std::string netns(const std::string& node) const { return lab_->node(node).netns; }
  [[nodiscard]] pid_t role_pid(const std::string& node) const;
  /// Starts the role of a node again, as a supervisor would; returns when it says ready.
  void restart_role(const std::string& node);
  [[nodiscard]] std::string logs() const;  ///< the end of every role's log, for INFO()

 private:
  std::string name_;
  lab::TemporaryDirectory directory_{"tcpmig-e2e"};
  std::filesystem::path documents_;
  std::optional<lab::Lab> lab_;
  std::vector<std::unique_ptr<lab::StockServer>> servers_;
};

/// A lab name that no other test process uses.
std::string fresh_name();

/// Of a test that makes its lab by the command line: removed at the end, however that comes.
struct RemovedLab {
  std::string name = fresh_name();
  RemovedLab() = default;
  ~RemovedLab();
  RemovedLab(const RemovedLab&) = delete;
  RemovedLab& operator=(const RemovedLab&) = delete;
};

struct Output {
  int code = -1;  ///< 124: the deadline
  std::string out, error;
};
/// Runs to the end, at most `limit`.
Output run(const std::vector<std::string>& command, std::chrono::seconds limit = 60s);
/// The same inside a node.
Output run_in(const lab::Lab& lab, const std::string& node, const std::vector<std::string>& command,
              std::chrono::seconds limit = 60s);
/// `tcpmig ARGUMENTS`.
Output cli(std::vector<std::string> arguments, std::chrono::seconds limit = 60s);

/// "http://203.0.113.10/path" or "http://[2001:db8:113::10]/path"
std::string url(const std::string& path, bool ipv6);
sys::Endpoint vip(bool ipv6, std::uint16_t port = 80);

/// A configuration with one pool (and route "/NODE/..") for each server, so that a test says which
/// server it means.
std::string pool_per_server(unsigned servers, const std::string& extra = {});

std::string read_file(const std::filesystem::path& path);

/// A number of a node's kernel, of all its sockets: TcpExt of /proc/net/netstat.
std::uint64_t netstat(const TestLab& lab, const std::string& node, const std::string& name);

/// Writes /proc/sys/net/ipv4/SETTING of a node.
void set_in(const TestLab& lab, const std::string& node, const std::string& setting,
            const std::string& value);

/// TCPMIG_TEST_RESUME=repair: every lab forces repair resume, and its servers run under `tcpmig exec`.
bool tests_repair();
/// The same line for a test that is about kernel resume alone; `why` completes it.
bool skipped_in_repair(const std::string& why);

/// Prints the line that CTest takes for a skipped test when this machine cannot do the kernel
/// resume (found by probing).
bool skipped(const TestLab& lab);

}  // namespace tcpmig::e2e
