// SPDX-License-Identifier: MIT
#include <tcpmig/snapshot.hpp>

#include "catch.hpp"

using tcpmig::Seq;

TEST_CASE("sequence numbers are compared around the wrap") {
  CHECK(Seq{1}.before(Seq{2}));
  CHECK(!Seq{2}.before(Seq{2}));
  CHECK(Seq{2}.after(Seq{1}));
  CHECK(Seq{0xffff'ffff}.before(Seq{0}));
  CHECK(Seq{5}.after(Seq{0xffff'fff0}));
  CHECK(Seq{0}.before(Seq{0x7fff'ffff}));
  CHECK(Seq{0x8000'0001}.before(Seq{0}));  // less than half way round
}

TEST_CASE("sequence numbers are added to and measured around the wrap") {
  CHECK(Seq{0xffff'fffe} + 3 == Seq{1});
  CHECK(Seq{1} - 3 == Seq{0xffff'fffe});
  CHECK(Seq{1}.since(Seq{0xffff'fffe}) == 3);
  CHECK(Seq{7}.since(Seq{7}) == 0);
}
