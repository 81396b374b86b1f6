// SPDX-License-Identifier: MIT
// What it costs a connection on which both ends send all the time to be moved between two hosts (network namespaces of one machine):
// throughput at one move a second against none, in turns, and 1 GB in each direction moved 1,000 times.
#define CATCH_CONFIG_RUNNER  // conn_world has checks; here are no test cases
#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <vector>

#include "net/moving.hpp"

namespace {

using namespace conn_test;
using std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int kRounds = 3;
constexpr std::uint64_t kLong = 4'000'000'000, kMany = 1'000'000'000;
constexpr unsigned kMoves = 1'000;

double milliseconds(std::chrono::nanoseconds time) { return Seconds(time).count() * 1e3; }

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

/// Gigabytes a second, both directions together.
double rate(const Moved& moved) { return 2 * double(kLong) / 1e9 / Seconds(moved.took).count(); }

Moved once_a_second() {
  World world;
  auto last = steady_clock::now();
  return stream_and_move(world, Family::kIpv4, kLong, [&](std::uint64_t, unsigned) {
    if (steady_clock::now() - last < std::chrono::seconds(1)) return false;
    last = steady_clock::now();
    return true;
  });
}

Moved never() {
  World world;
  return stream_and_move(world, Family::kIpv4, kLong,
                         [](std::uint64_t, unsigned) { return false; });
}

void throughput() {
  std::vector<double> ratios;
  std::printf("%-28s %10s %10s %8s\n", "both directions, 8 GB", "unmoved", "1 a second", "ratio");
  for (int round = 0; round < kRounds; ++round) {
    const double unmoved = rate(never());
    const Moved moved = once_a_second();
    ratios.push_back(rate(moved) / unmoved);
    std::printf("%-28s %5.2f GB/s %5.2f GB/s %8.2f   %u moves, longest pause %.0f ms\n", "",
                unmoved, rate(moved), ratios.back(), moved.moves,
                milliseconds(moved.longest_pause));
  }
  std::printf("median ratio %.2f\n\n", median(ratios));
}

void many() {
  World world;
  const Moved moved =
      stream_and_move(world, Family::kIpv4, kMany, [](std::uint64_t progress, unsigned done) {
        return done < kMoves && progress > 2 * kMany / (kMoves + 1) * (done + 1);
      });
  std::printf(
      "1 GB in each direction, %u moves: %.1f s, longest pause %.0f ms, longest move %.1f ms, "
      "%u segments sent again, %u freezes refused for a gap\n",
      moved.moves, Seconds(moved.took).count(), milliseconds(moved.longest_pause),
      milliseconds(moved.longest_move), moved.sent_again, moved.refused);
}

}  // namespace

int main() {
  try {
    if (cannot_run_here()) return 77;
    throughput();
    many();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "moves: %s\n", error.what());
    return 1;
  }
}
