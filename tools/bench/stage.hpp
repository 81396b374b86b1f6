// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "benchmark.hpp"
#include "client_ports.hpp"
#include "lab/lab.hpp"
#include "lab/payload.hpp"
#include "lab/stock_servers.hpp"
#include "processes.hpp"

/// Where all sides of a comparison stand, in one lab, with one server behind them:
///
///   client1.. --- switch1 ---+--- dispatcher1   tcpmig's dispatcher; HAProxy; nginx as a proxy
///                            +--- server1       nginx, port 80; mini_httpd, port 8080
///
/// "direct" goes from the client through the switch's namespace to the server's own address, "tcpmig" to the VIP, and the
/// proxies stand in the dispatcher's place, at its own address.
namespace tcpmig::bench {

/// One lab; removed with the object.
class BenchLab {
 public:
  explicit BenchLab(const lab::Options& options);
  ~BenchLab();
  BenchLab(const BenchLab&) = delete;
  BenchLab& operator=(const BenchLab&) = delete;
  const lab::Lab& operator*() const noexcept { return lab_; }
  const lab::Lab* operator->() const noexcept { return &lab_; }

 private:
  lab::Lab lab_;
};

/// Of the server's programs; the services have the same.
inline constexpr std::uint16_t kWebPort = 80, kMiniPort = 8080, kOwnPort = 9000;

/// A way from the client to the server.
struct Side {
  std::string name;
  sys::Endpoint at;
  std::vector<pid_t> middle;  ///< the dispatcher, or the proxy's processes; direct: none
};

class Stage {
 public:
  struct Options {
    std::string name;
    config::Datapath datapath = config::Datapath::kAuto;
  };
  Stage(const Plan& plan, const Options& options);

  [[nodiscard]] const lab::Lab& lab() const noexcept { return *lab_; }
  [[nodiscard]] ClientPorts& ports() const noexcept { return ports_; }
  [[nodiscard]] const std::filesystem::path& documents() const noexcept { return documents_; }
  /// direct, tcpmig, HAProxy and nginx, without and with connections to the server that are kept.
  [[nodiscard]] std::vector<Side> sides() const;
  /// The same for mini_httpd, which keeps no connections: direct, tcpmig, HAProxy, nginx.
  [[nodiscard]] std::vector<Side> mini_httpd_sides() const;
  /// Where a benchmark's own server, at port kOwnPort of server1, is reached through tcpmig.
  [[nodiscard]] sys::Endpoint own_service() const;
  [[nodiscard]] std::vector<pid_t> agent() const { return pids_of("server1"); }
  [[nodiscard]] std::vector<pid_t> switch_process() const { return pids_of("switch1"); }
  [[nodiscard]] std::vector<pid_t> server() const;
  /// All of the proxies and the dispatcher.
  [[nodiscard]] std::vector<pid_t> middles() const;

 private:
  [[nodiscard]] std::vector<pid_t> pids_of(const std::string& node) const;
  void start_origins();
  void start_proxies();
  void wait_for(const std::vector<Side>& sides) const;
  [[nodiscard]] sys::Endpoint proxy_at(std::uint16_t port) const;

  BenchLab lab_;
  mutable ClientPorts ports_;  ///< of client1
  lab::TemporaryDirectory directory_{"tcpmig-bench"};
  std::filesystem::path documents_;
  std::vector<Background> programs_;  ///< nginx, mini_httpd, HAProxy, nginx as a proxy
};

/// Which processors the client (the thread that makes the placement), dispatcher, proxies and switch, and the server with its agent run on.
struct Placement {
  std::string name, what;
  std::vector<unsigned> clients, middle, servers;
};

/// While it lives; afterwards everything runs where the scheduler likes.
class Placed {
 public:
  Placed(const Stage& stage, const Placement& placement);
  ~Placed();
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;

 private:
  void put(const Placement& placement) const;
  const Stage& stage_;
};

/// Who has to open thousands of connections a second may use nearly all of its ports, and who has to accept them a long backlog.
void prepare_ports(const lab::Lab& lab);

}  // namespace tcpmig::bench
