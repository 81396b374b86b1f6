// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "conn/cgroup.hpp"

using tcpmig::conn::find_cgroup2;
using tcpmig::conn::find_own_cgroup;

TEST_CASE("cgroup v2 is found alone, and beside v1") {
  CHECK(find_cgroup2("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n") ==
        "/sys/fs/cgroup");
  CHECK(find_cgroup2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified "
                     "cgroup2 rw 0 0\n") == "/sys/fs/cgroup/unified");
  CHECK(!find_cgroup2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"));
  CHECK(!find_cgroup2(""));
}

TEST_CASE("a process's own cgroup is the line of hierarchy 0") {
  CHECK(find_own_cgroup("1:cpu:/other\n0::/user.slice/x\n") == "/user.slice/x");
  CHECK(find_own_cgroup("0::/\n") == "/");
  CHECK(!find_own_cgroup("1:cpu:/other\n"));
}
