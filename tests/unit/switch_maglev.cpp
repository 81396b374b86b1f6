// SPDX-License-Identifier: MIT
#include "switch/maglev.hpp"

#include <algorithm>
#include <map>

#include "catch.hpp"

using tcpmig::steering::maglev_table;

namespace {

std::map<std::uint32_t, std::size_t> shares(const std::vector<std::uint32_t>& table) {
  std::map<std::uint32_t, std::size_t> count;
  for (const std::uint32_t backend : table) ++count[backend];
  return count;
}

/// Slots that name another backend than before although theirs is still there.
std::size_t disturbed(const std::vector<std::uint32_t>& before,
                      const std::vector<std::uint32_t>& after, std::uint32_t changed) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    count += before[i] != changed && after[i] != changed && before[i] != after[i] ? 1 : 0;
  return count;
}

std::vector<std::uint32_t> first(std::uint32_t count) {
  std::vector<std::uint32_t> backends;
  for (std::uint32_t id = 1; id <= count; ++id) backends.push_back(id);
  return backends;
}

}  // namespace

TEST_CASE("maglev: no backends, one backend") {
  const auto none = maglev_table({});
  CHECK(none.size() == tcpmig::abi::MAGLEV_SIZE);
  CHECK(shares(none) == std::map<std::uint32_t, std::size_t>{{0, none.size()}});
  CHECK(shares(maglev_table({7})) == std::map<std::uint32_t, std::size_t>{{7, none.size()}});
}

TEST_CASE("maglev: the order and repetitions of the backends do not matter") {
  CHECK(maglev_table({3, 1, 2}) == maglev_table({1, 2, 3}));
  CHECK(maglev_table({3, 3, 1, 1, 2}) == maglev_table({1, 2, 3}));
}

TEST_CASE("maglev: every backend has its share of the slots, within one percent") {
  for (const std::uint32_t count : {2U, 3U, 10U, 100U}) {
    const auto share = shares(maglev_table(first(count)));
    REQUIRE(share.size() == count);
    const double fair = static_cast<double>(tcpmig::abi::MAGLEV_SIZE) / count;
    for (const auto& [backend, slots] : share) {
      INFO(backend << " of " << count);
      CHECK(std::abs(static_cast<double>(slots) - fair) <= std::max(1.0, fair / 100));
    }
  }
}

TEST_CASE("maglev: when one backend goes or comes, few slots of the others change") {
  for (const std::uint32_t count : {3U, 10U, 50U}) {
    const auto all = first(count);
    const auto before = maglev_table(all);
    std::size_t worst = 0;
    for (const std::uint32_t gone : {1U, count / 2, count}) {
      auto rest = all;
      std::erase(rest, gone);
      const auto after = maglev_table(rest);
      CHECK(shares(after).count(gone) == 0);
      worst = std::max(worst, disturbed(before, after, gone));
    }
    INFO(count << " backends: " << worst << " of " << before.size() << " slots disturbed");
    CHECK(worst < before.size() / 20);  // a plain hash modulo count would move nearly all
  }
}

TEST_CASE("maglev: a small prime works as well") {
  const auto table = maglev_table({1, 2, 3}, 7);
  CHECK(table.size() == 7);
  CHECK(shares(table).size() == 3);
}
