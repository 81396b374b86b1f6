// SPDX-License-Identifier: MIT
// A connection that is moved over and over while both ends send. Figures: ./dev bench moves.
#include <cstdlib>
#include <iostream>

#include "catch.hpp"
#include "net/lossy_links.hpp"
#include "net/moving.hpp"

using namespace conn_test;

namespace {

/// Of a test that takes longer the more it does.
std::uint64_t number(const char* variable, std::uint64_t usual) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : usual;
}

}  // namespace

TEST_CASE("a stream in both directions, moved 100 times: every byte once and in order") {
  if (cannot_run_here()) return;
  const std::uint64_t bytes = number("TCPMIG_MOVE_BYTES", 50'000'000);
  const auto family = GENERATE(Family::kIpv4, Family::kIpv6, Family::kMapped);
  const auto moves = static_cast<unsigned>(number("TCPMIG_MOVES", 100));
  World world;
  const Moved moved =
      stream_and_move(world, family, bytes, [&](std::uint64_t progress, unsigned done) {
        return done < moves && progress > 2 * bytes / (moves + 1) * (done + 1);
      });
  using std::chrono::duration_cast, std::chrono::milliseconds;
  std::cout << moved.moves << " moves, " << duration_cast<milliseconds>(moved.took).count()
            << " ms, longest pause " << duration_cast<milliseconds>(moved.longest_pause).count()
            << " ms, " << moved.sent_again << " segments sent again, " << moved.captures_lost
            << " captures lost, longest move "
            << duration_cast<milliseconds>(moved.longest_move).count() << " ms, " << moved.refused
            << " freezes refused\n";
  CHECK(moved.moves == moves);
}

TEST_CASE("a stream in both directions over links that lose 1 %, moved 30 times") {
  if (cannot_run_here()) return;
  constexpr std::uint64_t kBytes = 10'000'000;
  constexpr unsigned kMoves = 30;
  World world;
  const LossyLinks lossy(world, 10);
  const Moved moved =
      stream_and_move(world, Family::kIpv4, kBytes, [&](std::uint64_t progress, unsigned done) {
        return done < kMoves && progress > 2 * kBytes / (kMoves + 1) * (done + 1);
      });
  CHECK(moved.moves == kMoves);
  CHECK(lossy.lost() > 0);
}
