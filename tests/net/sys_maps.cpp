// SPDX-License-Identifier: MIT
#include <bpf/libbpf.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <numeric>

#include "catch.hpp"
#include "sys_maps.skel.h"
#include "sys_support.hpp"

namespace sys = tcpmig::sys;
using namespace sys_test;

namespace {

struct Destroy {
  void operator()(sys_maps* skeleton) const { sys_maps__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<sys_maps, Destroy>;

Skeleton opened() {
  sys::route_libbpf_log();
  return Skeleton(sys_maps__open());
}

void load(sys_maps& skeleton) { REQUIRE(sys_maps__load(&skeleton) == 0); }

Skeleton loaded() {
  Skeleton skeleton = opened();
  load(*skeleton);
  return skeleton;
}

/// As a role starts: adopts, loads, pins.
Skeleton started(const sys::PinDirectory& pins) {
  Skeleton skeleton = opened();
  sys::adopt_pinned_maps(skeleton->obj, pins);
  load(*skeleton);
  sys::pin_maps(skeleton->obj, pins);
  return skeleton;
}

std::uint32_t id_of(int map_fd) {
  bpf_map_info info{};
  std::uint32_t length = sizeof info;
  REQUIRE(bpf_obj_get_info_by_fd(map_fd, &info, &length) == 0);
  return info.id;
}

int fd(const bpf_map* map) { return bpf_map__fd(map); }

}  // namespace

TEST_CASE("pins: a second start adopts every map and its content") {
  if (cannot_run_here()) return;
  const Pins pins;
  Skeleton first = started(pins);
  sys::map_update(fd(first->maps.numbers), std::uint64_t{1}, std::uint64_t{42});
  std::map<std::string, std::uint32_t> ids;
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, first->obj) ids[bpf_map__name(map)] = id_of(fd(map));
  first.reset();
  const Skeleton second = started(pins);
  bpf_object__for_each_map(map, second->obj) {
    INFO(bpf_map__name(map));
    CHECK((id_of(fd(map)) == ids[bpf_map__name(map)]) == !bpf_map__is_internal(map));
  }
  CHECK(sys::map_lookup<std::uint64_t>(fd(second->maps.numbers), std::uint64_t{1}) == 42U);
}

TEST_CASE("pins: a map of another layout is not adopted, and its pin is replaced") {
  if (cannot_run_here()) return;
  const Pins pins;
  const std::uint32_t old_id = id_of(fd(started(pins)->maps.numbers));
  const auto change = GENERATE(0, 1, 2, 3, 4);
  Skeleton other = opened();
  bpf_map* map = other->maps.numbers;
  switch (change) {
    case 0:
      bpf_map__set_max_entries(map, 8192);
      break;
    case 1:
      bpf_map__set_key_size(map, 4);
      break;
    case 2:
      bpf_map__set_value_size(map, 16);
      break;
    case 3:
      bpf_map__set_map_flags(map, BPF_F_NO_PREALLOC);
      break;
    default:
      bpf_map__set_type(map, BPF_MAP_TYPE_LRU_HASH);
      break;
  }
  sys::adopt_pinned_maps(other->obj, pins);
  CHECK_FALSE(pins.directory().open("numbers"));
  load(*other);
  CHECK(id_of(fd(map)) != old_id);
  sys::pin_maps(other->obj, pins);
  CHECK(id_of(pins.directory().open("numbers")->get()) == id_of(fd(map)));
}

TEST_CASE("pins: replaced in place, removed, and absent ones are no error") {
  if (cannot_run_here()) return;
  const Pins pins;
  const sys::PinDirectory& directory = pins;
  const Skeleton one = loaded();
  const Skeleton two = loaded();
  CHECK_FALSE(directory.open("numbers"));
  directory.pin(fd(one->maps.numbers), "numbers");
  directory.pin(fd(two->maps.numbers), "numbers");
  CHECK(id_of(directory.open("numbers")->get()) == id_of(fd(two->maps.numbers)));
  CHECK(directory.unpin("numbers"));
  CHECK_FALSE(directory.unpin("numbers"));
  directory.pin(fd(one->maps.numbers), "numbers");
  sys::PinDirectory(directory.path() / "below").pin(fd(one->maps.numbers), "numbers");
  directory.remove_all();
  CHECK_FALSE(std::filesystem::exists(directory.path()));
  CHECK_NOTHROW(directory.remove_all());
  CHECK_THROWS(sys::PinDirectory("/tmp/tcpmig-test-not-bpffs"));
  std::filesystem::remove("/tmp/tcpmig-test-not-bpffs");
}

TEST_CASE("maps: lookup, update, delete") {
  if (cannot_run_here()) return;
  const Skeleton skeleton = loaded();
  const int numbers = fd(skeleton->maps.numbers);
  const std::uint64_t key = 5;
  CHECK_FALSE(sys::map_lookup<std::uint64_t>(numbers, key));
  CHECK_FALSE(sys::map_delete(numbers, key));
  sys::map_update(numbers, key, std::uint64_t{9});
  CHECK(sys::map_lookup<std::uint64_t>(numbers, key) == 9U);
  CHECK_THROWS_AS(sys::map_update(numbers, key, std::uint64_t{1}, BPF_NOEXIST), std::system_error);
  CHECK(sys::map_delete(numbers, key));
  CHECK_THROWS_AS(sys::map_lookup<std::uint64_t>(-1, key), std::system_error);
}

TEST_CASE("maps: every CPU's value") {
  if (cannot_run_here()) return;
  const Skeleton skeleton = loaded();
  unsigned char frame[64] = {};
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = frame;
  options.data_size_in = sizeof frame;
  options.repeat = 10;
  REQUIRE(bpf_prog_test_run_opts(bpf_program__fd(skeleton->progs.count), &options) == 0);
  const auto values = sys::map_lookup_percpu<std::uint32_t>(fd(skeleton->maps.counts), 1);
  CHECK(static_cast<int>(values.size()) == sys::possible_cpus());
  CHECK(std::accumulate(values.begin(), values.end(), 0U) == 10);
}

TEST_CASE("maps: for_each sees every entry once, and entries may be deleted meanwhile") {
  if (cannot_run_here()) return;
  const Skeleton skeleton = loaded();
  const int numbers = fd(skeleton->maps.numbers);
  const std::uint64_t count = GENERATE(0, 1, 256, 4096);
  for (std::uint64_t i = 0; i < count; ++i) sys::map_update(numbers, i, i * 2);
  std::map<std::uint64_t, std::uint64_t> seen;
  std::uint64_t visits = 0;
  sys::map_for_each<std::uint64_t, std::uint64_t>(numbers,
                                                  [&](std::uint64_t key, std::uint64_t value) {
                                                    seen[key] = value;
                                                    ++visits;
                                                    CHECK(sys::map_delete(numbers, key));
                                                  });
  CHECK(visits == count);
  CHECK(seen.size() == count);
  for (const auto& [key, value] : seen) CHECK(value == key * 2);
  sys::map_for_each<std::uint64_t, std::uint64_t>(
      numbers, [](std::uint64_t, std::uint64_t) { FAIL("not empty"); });
}

TEST_CASE("maps: for_each over a type without batches") {
  if (cannot_run_here()) return;
  bpf_map_create_opts options{};
  options.sz = sizeof options;
  const UniqueFd map(
      bpf_map_create(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, "tmt_socks", 4, 8, 16, &options));
  REQUIRE(map);
  const auto nothing = [](auto, auto) {};
  REQUIRE_FALSE(sys::detail::for_each_batched<std::uint32_t, std::uint64_t>(map.get(), nothing));
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
  const auto [storage, length] = Endpoint{address("127.0.0.1"), 0}.to_sockaddr();
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&storage), length) == 0);
  sys::map_update(map.get(), std::uint32_t{3}, static_cast<std::uint64_t>(socket.get()));
  std::vector<std::uint32_t> seen;
  sys::map_for_each<std::uint32_t, std::uint64_t>(
      map.get(), [&](std::uint32_t key, std::uint64_t) { seen.push_back(key); });
  CHECK(seen == std::vector<std::uint32_t>{3});  // of sixteen keys, those that have a value
}

TEST_CASE("maps: for_each refuses keys or values of other sizes") {
  if (cannot_run_here()) return;
  const Skeleton skeleton = loaded();
  const auto ignore = [](auto, auto) {};
  CHECK_THROWS_AS(
      (sys::map_for_each<std::uint32_t, std::uint64_t>(fd(skeleton->maps.numbers), ignore)),
      std::logic_error);
  CHECK_THROWS_AS(
      (sys::map_for_each<std::uint64_t, std::uint32_t>(fd(skeleton->maps.numbers), ignore)),
      std::logic_error);
  CHECK_THROWS_AS(
      (sys::map_for_each<std::uint32_t, std::uint32_t>(fd(skeleton->maps.counts), ignore)),
      std::logic_error);
}
