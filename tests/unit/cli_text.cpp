// SPDX-License-Identifier: MIT
// What people read: tables, durations, status documents; and which exit code an exception is.
#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>

#include "catch.hpp"
#include "cli/failure.hpp"
#include "cli/render.hpp"
#include "cli/text_table.hpp"
#include "sys/errors.hpp"

using namespace tcpmig;
using namespace tcpmig::cli;

TEST_CASE("cli text: columns, numbers to the right") {
  CHECK(aligned({{"NAME", "N", "NOTE"}, {"a", "5", "x y"}, {"long name", "1234", ""}}) ==
        "NAME          N  NOTE\n"
        "a             5  x y\n"
        "long name  1234\n");
  CHECK(aligned({{"A", "N"}, {"10.0.3.2", "1"}, {"10.0.3.12", "2"}}) ==
        "A          N\n"
        "10.0.3.2   1\n"
        "10.0.3.12  2\n");
  CHECK(aligned({}) == "");
  CHECK(aligned({{"key", "7"}}, "  ") == "  key  7\n");
}

TEST_CASE("cli text: sizes and durations") {
  CHECK(human_bytes(0) == "0");
  CHECK(human_bytes(999) == "999");
  CHECK(human_bytes(1000) == "1.0k");
  CHECK(human_bytes(12'345) == "12k");
  CHECK(human_bytes(999'700) == "1.0M");
  CHECK(human_bytes(5'000'000'000) == "5.0G");
  CHECK(human_seconds(0.25) == "0.2s");
  CHECK(human_seconds(42.9) == "42s");
  CHECK(human_seconds(245) == "4m05s");
  CHECK(human_seconds(11'400) == "3h10m");
  CHECK(human_seconds(187'200) == "2d04h");
}

TEST_CASE("cli text: a status document") {
  const auto document = nlohmann::json::parse(R"({
    "role": "switch", "node": "sw", "pid": 12, "ready": true, "up": true, "datapath": "tc", "capacity": 5000,
    "attached": [{"interface": "eth0", "side": "clients"}],
    "nodes": [{"bytes_in": 5, "address4": "10.0.3.2", "name": "s1", "role": "server", "packets_in": 1}],
    "counters": {"passed": 3, "drop_bad_tag": 0},
    "answers": {}, "refused": [],
    "phases": {"frozen": {"p50_ns": 21340}, "sent": null, "confirmed": {"p50_ns": 70000}},
    "warnings": ["one", "two"], "recent": [{"client": "x"}]})");
  CHECK(render_status(document) ==
        "switch sw: running (pid 12), steering by tc\n"
        "  capacity  5000\n"
        "  attached\n"
        "    INTERFACE  SIDE\n"
        "    eth0       clients\n"
        "  counters\n"
        "    passed  3\n"
        "  nodes\n"
        "    NAME  ROLE    ADDRESS4  PACKETS IN  BYTES IN\n"
        "    s1    server  10.0.3.2           1         5\n"
        "  phases\n"
        "               P50 US\n"
        "    frozen       21.3\n"
        "    confirmed    70.0\n"
        "  warnings: one, two\n");
  CHECK(render_status({{"role", "agent"}, {"node", "s1"}, {"pid", nullptr}, {"ready", false}}) ==
        "agent s1: not running\n");
}

TEST_CASE("cli text: what an exception means") {
  const auto of_errno = [](int error) {
    return judge(std::system_error(error, std::generic_category(), "open x"));
  };
  CHECK(of_errno(EPERM).code == kMissing);
  CHECK(of_errno(EPERM).line.starts_with("open x: Operation not permitted (it takes root"));
  CHECK(of_errno(EOPNOTSUPP).code == kMissing);
  CHECK(of_errno(ENOSYS).code == kMissing);
  CHECK(of_errno(EADDRINUSE).code == kFailed);
  CHECK(of_errno(EADDRINUSE).line.find("`ss -lntup` shows which") != std::string::npos);
  CHECK(of_errno(EIO).line == "open x: Input/output error");
  CHECK(judge(std::invalid_argument("--servers: 0 is not in 1..100")).code == kUsage);
  CHECK(judge(sys::AlreadyRunning("switch of node sw is already running")).code == kRunning);
  CHECK(judge(std::runtime_error("another one is already running")).code == kFailed);  // by type
  CHECK(judge(sys::WrongSetup("no such interface: eth7")).code == kUsage);
  CHECK(judge(sys::NotFound("there is no lab \"x\"")).code == kNotFound);
  CHECK(judge(Failure(kNotFound, "there is no lab \"x\"")).code == kNotFound);
}
