// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "switch/dispatcher_watch.hpp"
#include "switch/reaper.hpp"
#include "switch/revoker.hpp"
#include "switch/steering.hpp"
#include "switch/switch.hpp"
#include "sys/check.hpp"

namespace tcpmig::steering {
namespace {

namespace asio = boost::asio;

constexpr std::chrono::seconds kSecond{1};

/// Calls `work` again and again. What goes wrong is logged when it changes, and never ends the loop.
class Every {
 public:
  Every(std::chrono::milliseconds pause, asio::io_context& io, std::function<void()> work)
      : pause_(pause), timer_(io), work_(std::move(work)) {
    wait();
  }

 private:
  void wait() {
    timer_.expires_after(pause_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      try {
        work_();
        trouble_.clear();
      } catch (const std::exception& problem) {
        if (trouble_ != problem.what()) spdlog::error("{}", problem.what());
        trouble_ = problem.what();
      }
      wait();
    });
  }

  std::chrono::milliseconds pause_;
  asio::steady_timer timer_;
  std::function<void()> work_;
  std::string trouble_;
};

/// Calls `work` whenever `fd` (somebody else's) can be read.
class WheneverReadable {
 public:
  WheneverReadable(asio::io_context& io, int fd, std::function<void()> work)
      : descriptor_(io, sys::check("dup", ::fcntl(fd, F_DUPFD_CLOEXEC, 0))),
        work_(std::move(work)) {
    wait();
  }

 private:
  void wait() {
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                           [this](const boost::system::error_code& error) {
                             if (error) return;
                             work_();
                             wait();
                           });
  }

  asio::posix::stream_descriptor descriptor_;
  std::function<void()> work_;
};

}  // namespace

int run(const config::Config& config, const config::Switch& self) {
  const sys::RolePaths paths = config.paths(self.name);
  const sys::RoleLock lock(paths, "switch");
  asio::io_context io;
  asio::signal_set signals(
      io, SIGTERM,
      SIGINT);  // before the work begins: a stop request in the midst of it comes after it
  Steering steering(config, self);
  steering.up();
  Reaper reaper(config, steering.secret(), steering.programs());
  DispatcherWatch watch(config, steering, reaper);
  const control::StatusServer server(io, paths.socket("switch"), [&] {
    nlohmann::json answer = status(config, self);
    answer["pid"] = ::getpid();
    answer["ready"] = true;
    for (nlohmann::json& node : answer.at("nodes"))
      if (node.at("role") == "dispatcher") node["new_clients"] = watch.gets_clients(node.at("id"));
    return answer;
  });
  Revoker revoker(config, steering.secret(), steering.map("revocations"));
  const WheneverReadable revoking(io, revoker.fd(), [&] { revoker.tell(); });
  const Every tending(kSecond, io, [&] { steering.tend(); });
  const Every sweeping(kSecond, io, [&] {
    if (const std::size_t swept = steering.sweep()) spdlog::debug("{} dead flows removed", swept);
  });
  const Every reaping(Reaper::kTick, io, [&] { reaper.tick(Reaper::Clock::now()); });
  watch.look();
  const Every watching(DispatcherWatch::kTick, io, [&] { watch.look(); });
  signals.async_wait([&](const boost::system::error_code& error, int signal) {
    if (error) return;
    spdlog::info("signal {}: leaving, the programs stay attached", signal);
    io.stop();
  });
  spdlog::info("ready");
  io.run();
  return 0;
}

}  // namespace tcpmig::steering
