// SPDX-License-Identifier: MIT
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <functional>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"
#include "switch/steering.hpp"
#include "switch/switch.hpp"

namespace tcpmig::steering {
namespace {

namespace asio = boost::asio;

/// Calls `work` once a second. What goes wrong is logged when it changes, and never ends the loop.
class EverySecond {
 public:
  EverySecond(asio::io_context& io, std::function<void()> work)
      : timer_(io), work_(std::move(work)) {
    wait();
  }

 private:
  void wait() {
    timer_.expires_after(std::chrono::seconds(1));
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

  asio::steady_timer timer_;
  std::function<void()> work_;
  std::string trouble_;
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
  const control::StatusServer server(io, paths.socket("switch"), [&] {
    nlohmann::json answer = status(config, self);
    answer["pid"] = ::getpid();
    answer["ready"] = true;
    return answer;
  });
  const EverySecond every_second(io, [&] {
    steering.tend();
    if (const std::size_t swept = steering.sweep()) spdlog::debug("{} dead flows removed", swept);
  });
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
