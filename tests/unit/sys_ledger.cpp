// SPDX-License-Identifier: MIT
// The ledger on a made-up /proc/sys in a temporary directory; routes, rules and addresses are in
// tests/net.
#include <stdlib.h>

#include <fstream>
#include <iterator>

#include "catch.hpp"
#include "sys/ledger.hpp"

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tcpmig::sys::Ledger;

namespace {

class World {
 public:
  World() {
    std::string pattern = (fs::temp_directory_path() / "tcpmig-ledger-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    directory_ = pattern;
    fs::create_directories(sysctls());
  }
  ~World() { fs::remove_all(directory_); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  [[nodiscard]] fs::path sysctls() const { return directory_ / "proc"; }
  [[nodiscard]] fs::path file() const { return directory_ / "run" / "role.ledger.json"; }
  [[nodiscard]] fs::path sysctl(const std::string& name) const { return sysctls() / name; }
  void set(const std::string& name, const std::string& value) const {
    std::ofstream(sysctl(name)) << value << '\n';
  }
  [[nodiscard]] std::string get(const std::string& name) const {
    std::ifstream input(sysctl(name));
    std::string line;
    std::getline(input, line);
    return line;
  }
  /// As after kill -9: nothing but the file is left.
  Ledger open() { return Ledger(file(), netlink_, sysctls()); }

 private:
  fs::path directory_;
  tcpmig::sys::Netlink netlink_;
};

}  // namespace

TEST_CASE("ledger: a sysctl is set, and given back with its file gone") {
  World world;
  world.set("a", "0");
  world.open().set_sysctl("a", "1");
  CHECK(world.get("a") == "1");
  CHECK(fs::exists(world.file()));
  world.open().undo();
  CHECK(world.get("a") == "0");
  CHECK_FALSE(fs::exists(world.file()));
}

TEST_CASE("ledger: the value found is recorded once") {
  World world;
  world.set("a", "0");
  Ledger ledger = world.open();
  ledger.set_sysctl("a", "1");
  ledger.set_sysctl("a", "2");
  world.open().set_sysctl("a", "3");
  CHECK(world.get("a") == "3");
  world.open().undo();
  CHECK(world.get("a") == "0");
}

TEST_CASE("ledger: a sysctl that has the value already is not ours") {
  World world;
  world.set("a", "1");
  world.set("words", "4096\t8192\t16384");
  Ledger ledger = world.open();
  ledger.set_sysctl("a", "1");
  ledger.set_sysctl("words", "4096 8192 16384");
  CHECK_FALSE(fs::exists(world.file()));
  ledger.undo();
  CHECK(world.get("a") == "1");
}

TEST_CASE("ledger: a value that somebody else has set since is left alone") {
  World world;
  world.set("a", "0");
  world.open().set_sysctl("a", "1");
  world.set("a", "7");
  world.open().undo();
  CHECK(world.get("a") == "7");
}

TEST_CASE("ledger: killed between record and change: nothing to give back") {
  World world;
  world.set("a", "0");
  world.open().set_sysctl("a", "1");
  world.set("a", "0");  // as if it had never been written
  world.open().undo();
  CHECK(world.get("a") == "0");
  CHECK_FALSE(fs::exists(world.file()));
}

TEST_CASE(
    "ledger: killed between a second record and its change: the first value is still known as ours",
    "[sys][ledger]") {
  World world;
  world.set("a", "0");
  Ledger ledger = world.open();
  ledger.set_sysctl("a", "1");
  ledger.set_sysctl("a", "2");
  world.set("a", "1");
  world.open().undo();
  CHECK(world.get("a") == "0");
}

TEST_CASE("ledger: what cannot be recorded is not changed") {
  World world;
  world.set("a", "0");
  Ledger ledger = world.open();
  fs::create_directories(world.file().string() + ".new");
  CHECK_THROWS(ledger.set_sysctl("a", "1"));
  CHECK(world.get("a") == "0");
}

TEST_CASE("ledger: what cannot be changed is not kept on record") {
  World world;
  world.set("b", "0");
  fs::create_symlink("/proc/version", world.sysctl("a"));  // readable, and refuses every write
  Ledger ledger = world.open();
  CHECK_THROWS_WITH(ledger.set_sysctl("a", "1"), Contains("/a"));
  CHECK_FALSE(fs::exists(world.file()));
  CHECK_THROWS(ledger.set_sysctl("missing", "1"));
  ledger.set_sysctl("b", "1");
  world.open().undo();
  CHECK(world.get("b") == "0");
}

TEST_CASE("ledger: undo goes on after an error, throws it, and can be tried again") {
  World world;
  for (const char* name : {"a", "b", "c"}) world.set(name, "0");
  Ledger ledger = world.open();
  for (const char* name : {"a", "b", "c"}) ledger.set_sysctl(name, "1");
  fs::remove(world.sysctl("b"));
  fs::create_directory(world.sysctl("b"));  // cannot be read
  CHECK_THROWS_WITH(ledger.undo(), Contains("/b"));
  CHECK(world.get("a") == "0");
  CHECK(world.get("c") == "0");
  REQUIRE(fs::exists(world.file()));
  fs::remove(world.sysctl("b"));
  world.set("b", "1");
  world.open().undo();
  CHECK(world.get("b") == "0");
  CHECK_FALSE(fs::exists(world.file()));
}

TEST_CASE("ledger: a sysctl that went with its interface needs no undo") {
  World world;
  world.set("a", "0");
  world.open().set_sysctl("a", "1");
  fs::remove(world.sysctl("a"));
  world.open().undo();
  CHECK_FALSE(fs::exists(world.file()));
}

TEST_CASE("ledger: an adoption gives back what is not wanted any more") {
  World world;
  for (const char* name : {"a", "b"}) world.set(name, "0");
  Ledger before = world.open();
  before.set_sysctl("a", "1");
  before.set_sysctl("b", "1");
  Ledger now = world.open();
  now.begin_adoption();
  now.set_sysctl("b", "1");
  CHECK(world.get("a") == "1");
  now.finish_adoption();
  CHECK(world.get("a") == "0");
  CHECK(world.get("b") == "1");
  now.undo();
  CHECK(world.get("b") == "0");
}

TEST_CASE("ledger: sysctls are named with dots or slashes, and nothing else") {
  World world;
  fs::create_directories(world.sysctl("net/conf/eth0.5"));
  world.set("net/top", "0");
  world.set("net/conf/eth0.5/x", "0");
  Ledger ledger = world.open();
  ledger.set_sysctl("net.top", "1");
  ledger.set_sysctl("net/top", "2");
  ledger.set_sysctl("net/conf/eth0.5/x", "1");
  CHECK(world.get("net/top") == "2");
  CHECK(world.get("net/conf/eth0.5/x") == "1");
  for (const char* name : {"/etc/passwd", "../run/x", "net/../../x"})
    CHECK_THROWS_AS(ledger.set_sysctl(name, "1"), std::invalid_argument);
  ledger.undo();
  CHECK(world.get("net/top") == "0");
}

TEST_CASE("ledger: a file that is no ledger is named and left alone") {
  World world;
  fs::create_directories(world.file().parent_path());
  for (const char* content : {"", "{", "[]"}) {
    std::ofstream(world.file()) << content;
    CHECK_THROWS_WITH(world.open(), Contains("role.ledger.json") && Contains("not a ledger"));
  }
  CHECK(fs::exists(world.file()));
}

TEST_CASE("ledger: the ledger of another boot or namespace is dropped") {
  World world;
  world.set("a", "0");
  world.open().set_sysctl("a", "1");
  std::string text;
  {
    std::ifstream input(world.file());
    text.assign(std::istreambuf_iterator<char>(input), {});
  }
  const auto at = text.find("netns ");
  REQUIRE(at != std::string::npos);
  std::ofstream(world.file()) << text.insert(at + 6, "9");
  world.open().undo();
  CHECK(world.get("a") == "1");
  CHECK_FALSE(fs::exists(world.file()));
}
