// SPDX-License-Identifier: MIT
// Snapshot files on the disk: written whole or not at all, read whatever they are, shown in words.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include <tcpmig/codec.hpp>

#include "catch.hpp"
#include "cli/snapshot_text.hpp"
#include "manual/go_on.hpp"
#include "manual/program.hpp"
#include "manual/snapshot_file.hpp"
#include "sys/errors.hpp"

using namespace tcpmig;
using manual::read_snapshot;
using manual::SnapshotFile;
namespace fs = std::filesystem;

namespace {

struct Directory {
  Directory() { fs::create_directories(path); }
  ~Directory() { fs::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), {}));
  }
  fs::path path = fs::temp_directory_path() / ("tcpmig-snapshot-" + std::to_string(::getpid()));
  fs::path file = path / "c.snap";
};

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

Snapshot sample() {
  Snapshot snapshot;
  snapshot.local = {sys::Address::parse("192.0.2.10").value(), 80};
  snapshot.peer = {sys::Address::parse("198.51.100.1").value(), 4242};
  snapshot.rcv_nxt = {1'000};
  snapshot.snd_una = {7};
  snapshot.snd_nxt = {12};
  snapshot.received = bytes_of("GET / HTTP/1.1\r\n\x1b[31m");
  snapshot.sent = bytes_of("hello");
  snapshot.mss = 1460;
  snapshot.wscale = WindowScale{.snd = 7, .rcv = 9};
  snapshot.sack = true;
  snapshot.settings.emplace();
  snapshot.settings->nodelay = true;
  snapshot.settings->congestion =
      "cu\x1b"
      "bic";
  return snapshot;
}

void write(const fs::path& file, std::span<const std::byte> bytes) {
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

/// What reading it says.
std::string complaint(const fs::path& file) {
  try {
    read_snapshot(file);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

std::string text_of(const fs::path& file) {
  std::ifstream input(file);
  return {std::istreambuf_iterator<char>(input), {}};
}

}  // namespace

TEST_CASE(
    "snapshot file: there once it is published, for its owner only, and gone unless it is kept") {
  const Directory directory;
  {
    SnapshotFile file(directory.file, false);
    file.write(sample());
    CHECK_FALSE(fs::exists(directory.file));
    file.publish();
    CHECK(read_snapshot(directory.file) == sample());
    CHECK(fs::status(directory.file).permissions() ==
          (fs::perms::owner_read | fs::perms::owner_write));
  }
  CHECK(directory.entries() == 0);
  SnapshotFile file(directory.file, false);
  file.write(sample());
  file.publish();
  file.keep();
  file.undo();
  CHECK(directory.entries() == 1);
}

TEST_CASE(
    "snapshot file: another file is replaced on demand only, and is back when that is undone") {
  const Directory directory;
  std::ofstream(directory.file) << "precious";
  CHECK_THROWS_AS(SnapshotFile(directory.file, false), sys::WrongSetup);
  {
    SnapshotFile file(directory.file, true);
    file.write(sample());
    file.publish();
    CHECK(read_snapshot(directory.file) == sample());
  }
  CHECK(text_of(directory.file) == "precious");
  CHECK(directory.entries() == 1);
  SnapshotFile file(directory.file, true);
  file.write(sample());
  file.publish();
  file.keep();
  CHECK(read_snapshot(directory.file) == sample());
  CHECK(directory.entries() == 1);
  // of somebody who was quicker than we
  const fs::path other = directory.path / "other";
  SnapshotFile late(other, false);
  late.write(sample());
  std::ofstream(other) << "first";
  CHECK_THROWS_AS(late.publish(), std::system_error);
  late.undo();
  CHECK(text_of(other) == "first");
  CHECK_THROWS_AS(SnapshotFile(directory.path, true), sys::WrongSetup);
}

TEST_CASE("snapshot file: another process undoes what the first one has done") {
  const Directory directory;
  SnapshotFile file(directory.file, false);
  const auto undo_in_child = [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      file.undo();
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
  };
  file.write(sample());
  SECTION("before it is published") {
    undo_in_child();
    CHECK(directory.entries() == 0);
  }
  SECTION("after it is published") {
    file.publish();
    undo_in_child();
    CHECK(directory.entries() == 0);
  }
}

TEST_CASE("snapshot file: whatever is read, the error names what is wrong") {
  const Directory directory;
  CHECK(complaint(directory.path / "none").starts_with("there is no file "));
  CHECK(complaint(directory.path).ends_with(" is a directory, not a snapshot"));
  const fs::path fifo = directory.path / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(complaint(fifo).ends_with(" is a FIFO, not a snapshot"));
  CHECK(complaint("/dev/zero").ends_with(" is a device, not a snapshot"));
  write(directory.file, {});
  CHECK(complaint(directory.file).ends_with("the snapshot ends before it should"));
  REQUIRE(::truncate(directory.file.c_str(), 1L << 40) == 0);
  CHECK(complaint(directory.file).ends_with(" is too large for a snapshot"));
  auto bytes = encode(sample());
  bytes.push_back(std::byte{0});
  write(directory.file, bytes);
  CHECK(complaint(directory.file).ends_with("bytes after the end of the snapshot"));
  bytes.resize(100);
  write(directory.file, bytes);
  CHECK(complaint(directory.file).ends_with("the snapshot ends before it should"));
  std::mt19937 random(1);
  for (int run = 0; run < 300; ++run) {
    auto damaged = encode(sample());
    for (int i = 0; i < 3; ++i)
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
    write(directory.file, damaged);
    if (complaint(directory.file).empty()) cli::to_text(read_snapshot(directory.file));
  }
}

TEST_CASE("snapshot show: everything in words, and nothing that a terminal obeys") {
  const std::string text = cli::to_text(sample());
  CAPTURE(text);
  for (const char* part :
       {"ESTABLISHED: both directions are open", "192.0.2.10:80", "198.51.100.1:4242",
        "received up to 1000, acknowledged up to 7, sent up to 12",
        "MSS 1460, window scale 7 (peer) and 9 (ours), SACK", "TCP_NODELAY",
        "received, not read by the application: 21 bytes",
        "0  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..",
        "16  1b 5b 33 31 6d", "sent, not acknowledged: 5 bytes", "written, not sent: none"})
    CHECK(text.find(part) != std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  const auto json = cli::to_json(sample());
  CHECK(json.at("received").at("bytes") == 21);
  CHECK(json.at("sent").at("head") == "68656c6c6f");
  CHECK(json.at("window").is_null());
  CHECK(json.at("settings").at("nodelay") == true);
}

TEST_CASE("resume: forms of a local address") {
  const auto text = [](const std::string& word) -> std::string {
    const auto end = manual::parse_local(word);
    if (!end) return "none";
    return end->address.str() + (end->port ? " " + std::to_string(*end->port) : "");
  };
  CHECK(text("192.0.2.1") == "192.0.2.1");
  CHECK(text("192.0.2.1:80") == "192.0.2.1 80");
  CHECK(text("2001:db8::1") == "2001:db8::1");
  CHECK(text("[2001:db8::1]:443") == "2001:db8::1 443");
  for (const char* word : {"", ":", ":80", "80", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536",
                           "192.0.2.1:x", "[2001:db8::1]", "[2001:db8::1]:", "[]:80", "host:80"})
    CHECK(text(word) == "none");
}

TEST_CASE("resume: a program is tried before anything is sent, and does not run") {
  const Directory directory;
  const fs::path ran = directory.path / "ran";
  CHECK_NOTHROW(manual::require_executable({"touch", ran}));
  CHECK_FALSE(fs::exists(ran));
  CHECK_THROWS_AS(manual::require_executable({"no-such-program"}), sys::NotFound);
  const fs::path script = directory.path / "script";
  std::ofstream(script) << "#!/no/such/interpreter\n";
  CHECK_THROWS_AS(manual::require_executable({script}), sys::WrongSetup);  // not executable
  fs::permissions(script, fs::perms::owner_all);
  CHECK_THROWS_AS(manual::require_executable({script}), sys::NotFound);
  CHECK_THROWS_AS(manual::require_executable({directory.path}), sys::WrongSetup);
}
