// SPDX-License-Identifier: MIT
#include "agent/loop.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <list>
#include <nlohmann/json.hpp>

#include "control/status_socket.hpp"

namespace tcpmig::agent {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::chrono::microseconds kShortest{50};  // between two calls of `run`

class Loop {
 public:
  explicit Loop(const LoopWork& work)
      : work_(work),
        status_(io_, work.status_socket, work.status),
        timer_(io_),
        signals_(io_, SIGTERM, SIGINT) {
    for (const LoopWork::Watch& watch : work.watches)
      wait(watched_.emplace_back(asio::posix::stream_descriptor(io_, watch.fd), &watch.ready));
    signals_.async_wait([this](const error_code& error, int) {
      if (!error) io_.stop();
    });
  }
  ~Loop() {
    for (Watched& watched : watched_) static_cast<void>(watched.descriptor.release());
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void run() {
    care();
    io_.run();
  }

 private:
  struct Watched {
    asio::posix::stream_descriptor descriptor;
    const std::function<void()>* ready;
  };

  void wait(Watched& watched) {
    watched.descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                  [this, &watched](const error_code& error) {
                                    if (error) return;
                                    guarded(*watched.ready);
                                    wait(watched);
                                    care();
                                  });
  }

  static void guarded(const std::function<void()>& step) {
    try {
      step();
    } catch (const std::exception& error) {
      spdlog::error("{}", error.what());
    }
  }

  /// Does what is due, and sets the timer to what will be.
  void care() {
    const TimePoint now = Clock::now();
    if (work_.due() <= now) guarded([&] { work_.run(now); });
    const TimePoint due = std::max(work_.due(), now + kShortest);
    if (due == armed_) return;
    armed_ = due;
    timer_.expires_at(due);
    timer_.async_wait([this](const error_code& error) {
      if (error) return;  // set anew
      armed_ = {};
      care();
    });
  }

  const LoopWork& work_;
  asio::io_context io_{1};
  control::StatusServer status_;
  asio::steady_timer timer_;
  asio::signal_set signals_;
  std::list<Watched> watched_;
  TimePoint armed_;
};

}  // namespace

void run_loop(const LoopWork& work) { Loop(work).run(); }

}  // namespace tcpmig::agent
