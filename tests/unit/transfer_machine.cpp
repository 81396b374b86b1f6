// SPDX-License-Identifier: MIT
// The sender's side of a transfer, event by event.
#include <arpa/inet.h>

#include <array>
#include <memory>
#include <string>

#include "catch.hpp"
#include "control/transfer_machine.hpp"

using namespace tcpmig;
using namespace tcpmig::control;
using namespace std::chrono_literals;
using Failure = TransferMachine::Failure;

namespace {

constexpr Generation kFirst = 1000;
constexpr std::uint16_t kSwitch = 0;

/// Writes down what is sent; two servers, nodes 101 and 102.
class Recorder : public TransferDriver {
 public:
  void offer(const Attempt& attempt) override {
    say("offer " + std::to_string(attempt.generation) + " to " +
        std::to_string(attempt.server.node));
  }
  void take_back(Generation generation) override { say("take back " + std::to_string(generation)); }
  void repeat() override { say("repeat"); }
  void resend(std::uint16_t part) override { say("resend " + std::to_string(part)); }
  void abort(const Attempt& attempt) override {
    say("abort " + std::to_string(attempt.generation) + " at " +
        std::to_string(attempt.server.node));
  }
  std::optional<Candidate> next(const std::set<std::size_t>& tried) override {
    for (std::size_t i = 0; i < servers; ++i)
      if (!tried.contains(i)) return candidate(i);
    return std::nullopt;
  }
  [[nodiscard]] bool boot_changed() const override { return changed; }
  void follow_boot() override {
    say("follow");
    changed = false;
  }
  void note(Note note) override { ++notes[static_cast<std::size_t>(note)]; }

  static Candidate candidate(std::size_t index) {
    return {index, static_cast<std::uint16_t>(101 + index)};
  }
  std::string take() { return std::exchange(said_, {}); }

  std::size_t servers = 2;
  bool changed = false;
  std::array<int, 6> notes{};

 private:
  void say(const std::string& what) { said_ += (said_.empty() ? "" : "; ") + what; }
  std::string said_;
};

abi::wire_header message(abi::wire_type type, std::uint16_t sender, Generation generation) {
  abi::wire_header header{};
  header.type = type;
  header.sender = htons(sender);
  header.generation = htonl(generation);
  return header;
}

abi::wire_header refusal(std::uint16_t sender, Generation generation, abi::wire_reason reason,
                         Generation current = 0) {
  abi::wire_header header = message(abi::WIRE_REFUSED, sender, generation);
  header.reason = reason;
  header.current_generation = htonl(current);
  return header;
}

/// A machine, started, with a clock of its own.
struct Sender {
  explicit Sender(bool idempotent = true, std::size_t servers = 2, Generation first = kFirst)
      : machine(driver, {.transfer = 2s, .retry = 50ms, .idempotent = idempotent}, first) {
    driver.servers = servers;
    machine.start(Recorder::candidate(0), now);
    CHECK(driver.take() == "offer " + std::to_string(first) + " to 101");
  }
  bool hears(const abi::wire_header& header, std::span<const std::byte> payload = {}) {
    return machine.receive(header, payload, now);
  }
  /// Silence until something is sent.
  std::string waits() {
    for (int i = 0; i < 100 && !machine.over(); ++i) {
      now = machine.due();
      machine.tick(now);
      if (auto said = driver.take(); !said.empty()) return said;
    }
    return machine.over() ? "over" : "stuck";
  }
  /// Silence until the present attempt or state ends by its deadline; what is sent then.
  std::string waits_for_deadline() {
    const TransferState state = machine.state();
    std::string said;
    while (machine.state() == state && said.find("offer") == std::string::npos) {
      now = machine.due();
      machine.tick(now);
      said = driver.take();
    }
    return said;
  }

  Recorder driver;
  TransferMachine::TimePoint now;
  TransferMachine machine;
};

}  // namespace

TEST_CASE("transfer: RESUMED ends it") {
  Sender sender;
  CHECK(sender.machine.due() == sender.now + 50ms);
  CHECK(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst)));
  CHECK(sender.machine.state() == TransferState::kMoved);
  CHECK(sender.machine.owner().server.node == 101);
  CHECK(sender.machine.due() == TransferMachine::TimePoint::max());
  CHECK_FALSE(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst)));
}

TEST_CASE("transfer: repeats double until the deadline") {
  Sender sender;
  const auto start = sender.now;
  std::vector<std::chrono::milliseconds> at;
  while (sender.now - start < 2s) {
    sender.now = sender.machine.due();
    sender.machine.tick(sender.now);
    if (sender.driver.take() == "repeat")
      at.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(sender.now - start));
  }
  CHECK(at == std::vector<std::chrono::milliseconds>{50ms, 150ms, 350ms, 750ms, 1550ms});
}

TEST_CASE(
    "transfer: a patience of its own is the first server's, not the next one's, nor the switch's") {
  Recorder driver;
  TransferMachine machine(driver, {.transfer = 2s, .retry = 50ms, .first_retry = 400ms}, kFirst);
  TransferMachine::TimePoint now;
  machine.start(Recorder::candidate(0), now);
  CHECK(machine.due() == now + 400ms);
  now = machine.due();
  machine.tick(now);
  CHECK(driver.take() == "offer 1000 to 101; repeat");
  CHECK(machine.due() == now + 800ms);
  const auto refused_by = [&](std::uint16_t node, Generation generation) {
    return machine.receive(refusal(node, generation, abi::REASON_BACKLOG_FULL), {}, now);
  };
  REQUIRE(refused_by(101, kFirst));
  CHECK(driver.take() == "offer 1001 to 102");
  CHECK(machine.due() == now + 50ms);
  REQUIRE(refused_by(102, kFirst + 1));
  CHECK(driver.take() == "take back 1002");
  CHECK(machine.due() == now + 50ms);
}

TEST_CASE("transfer: what is not about the present attempt is not heard") {
  Sender sender;
  CHECK_FALSE(sender.hears(message(abi::WIRE_RESUMED, 102, kFirst)));
  CHECK_FALSE(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst - 1)));
  CHECK_FALSE(sender.hears(message(abi::WIRE_LOAD, 101, kFirst)));
  // two refusals of one attempt are one refusal: the second must not end the next attempt
  const auto refused = refusal(101, kFirst, abi::REASON_BACKLOG_FULL);
  CHECK(sender.hears(refused));
  CHECK(sender.driver.take() == "offer 1001 to 102");
  CHECK_FALSE(sender.hears(refused));
  CHECK(sender.driver.take().empty());
  CHECK(sender.machine.state() == TransferState::kOffered);
}

TEST_CASE("transfer: refused by all servers, taken back") {
  Sender sender;
  CHECK(sender.hears(refusal(101, kFirst, abi::REASON_NO_LISTENER)));
  CHECK(sender.driver.take() == "offer 1001 to 102");
  CHECK(sender.hears(refusal(102, kFirst + 1, abi::REASON_NO_LISTENER)));
  CHECK(sender.driver.take() == "take back 1002");
  CHECK(sender.waits() == "repeat");
  CHECK(sender.hears(message(abi::WIRE_RESUMED, kSwitch, kFirst + 2)));
  CHECK(sender.machine.state() == TransferState::kReturned);
  CHECK(sender.machine.failure() == Failure::kNoServer);
  CHECK(sender.driver.notes[static_cast<std::size_t>(TransferDriver::Note::kTakenBack)] == 1);
}

TEST_CASE("transfer: silence, and the request may run twice: the next server") {
  Sender sender(true);
  CHECK(sender.waits_for_deadline() == "abort 1000 at 101; offer 1001 to 102");
  CHECK(sender.hears(message(abi::WIRE_RESUMED, 102, kFirst + 1)));
  CHECK(sender.machine.owner().server.node == 102);
}

TEST_CASE("transfer: silence, and the request may not run twice: only after ABORTED") {
  Sender sender(false);
  CHECK(sender.waits_for_deadline() == "abort 1000 at 101");
  CHECK(sender.machine.state() == TransferState::kAborting);
  CHECK(sender.waits() == "abort 1000 at 101");
  SECTION("the server gives its word") {
    CHECK(sender.hears(message(abi::WIRE_ABORTED, 101, kFirst)));
    CHECK(sender.driver.take() == "offer 1001 to 102");
  }
  SECTION("the server had opened it") {
    CHECK(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst)));
    CHECK(sender.machine.state() == TransferState::kMoved);
  }
  SECTION("the server stays silent") {
    CHECK(sender.waits_for_deadline() == "take back 1001");
    SECTION("and has not spoken") {
      CHECK(sender.hears(message(abi::WIRE_RESUMED, kSwitch, kFirst + 1)));
      CHECK(sender.machine.state() == TransferState::kReturned);
      CHECK(sender.machine.failure() == Failure::kNoAnswer);
    }
    SECTION("but has spoken to the client") {
      CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_ALREADY_SPOKE, kFirst)));
      CHECK(sender.machine.state() == TransferState::kMoved);
      CHECK(sender.machine.owner().server.node == 101);
    }
  }
}

TEST_CASE("transfer: already spoke names the attempt that has it") {
  Sender sender;
  CHECK(sender.waits_for_deadline() == "abort 1000 at 101; offer 1001 to 102");
  CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_ALREADY_SPOKE, kFirst)));
  CHECK(sender.machine.state() == TransferState::kMoved);
  CHECK(sender.machine.owner().server.node == 101);
  CHECK(sender.machine.owner().generation == kFirst);
}

TEST_CASE("transfer: a stale generation is raised above what the switch knows, three times") {
  Sender sender;
  Generation known = 5000;
  for (int i = 0; i < 3; ++i, known += 10) {
    const Generation asked = i == 0 ? kFirst : known - 9;
    CHECK(sender.hears(refusal(kSwitch, asked, abi::REASON_STALE_GENERATION, known)));
    CHECK(sender.driver.take() == "offer " + std::to_string(known + 1) + " to 101");
  }
  CHECK(sender.hears(refusal(kSwitch, known - 9, abi::REASON_STALE_GENERATION, known)));
  CHECK(sender.driver.take() == "take back " + std::to_string(known - 8));
}

TEST_CASE("transfer: stale after a repeat or a refusal: it was applied, and the flow has ended") {
  Sender sender;
  CHECK(sender.machine.first() == kFirst);
  SECTION("a repeat") {
    CHECK(sender.waits() == "repeat");
    CHECK(sender.hears(refusal(kSwitch, kFirst, abi::REASON_STALE_GENERATION, kFirst)));
  }
  SECTION("the next server") {
    CHECK(sender.hears(refusal(101, kFirst, abi::REASON_KERNEL_REFUSED)));
    CHECK(sender.driver.take() == "offer " + std::to_string(kFirst + 1) + " to 102");
    CHECK(sender.machine.first() == kFirst);
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst)));
  }
  SECTION("taking back") {
    CHECK(sender.hears(refusal(kSwitch, kFirst, abi::REASON_NOT_ENTITLED)));
    sender.waits();
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst + 9)));
  }
  CHECK(sender.machine.state() == TransferState::kMoved);
}

TEST_CASE(
    "transfer: of several attempts only the first has come to the switch: that one is taken back") {
  Sender sender;
  CHECK(sender.hears(refusal(101, kFirst, abi::REASON_NO_LISTENER)));
  CHECK(sender.driver.take() == "offer " + std::to_string(kFirst + 1) + " to 102");
  CHECK(sender.waits_for_deadline() ==
        "abort " + std::to_string(kFirst + 1) + " at 102; take back " + std::to_string(kFirst + 2));
  CHECK(sender.hears(refusal(kSwitch, kFirst + 2, abi::REASON_STALE_GENERATION, kFirst)));
  CHECK(sender.driver.take() == "take back " + std::to_string(kFirst + 1));
  CHECK(sender.machine.first() == kFirst);
  SECTION("it is ours again, above all that may be on its way") {
    CHECK(sender.hears(message(abi::WIRE_RESUMED, kSwitch, kFirst + 1)));
    CHECK(sender.driver.take() == "take back " + std::to_string(kFirst + 2));
    CHECK(sender.hears(message(abi::WIRE_RESUMED, kSwitch, kFirst + 2)));
    CHECK(sender.machine.state() == TransferState::kReturned);
  }
  SECTION("a copy of the first take-back comes late: it is ours, too") {
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst + 2)));
    CHECK(sender.driver.take() == "take back " + std::to_string(kFirst + 3));
    CHECK(sender.hears(message(abi::WIRE_RESUMED, kSwitch, kFirst + 3)));
    CHECK(sender.machine.state() == TransferState::kReturned);
  }
  SECTION("it has ended") {
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst)));
    CHECK(sender.machine.state() == TransferState::kMoved);
    CHECK(sender.machine.owner().server.node == 101);
  }
  SECTION("the second comes after all, and speaks") {
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst + 1)));
    CHECK(sender.driver.take() == "take back " + std::to_string(kFirst + 2));
    CHECK(sender.hears(refusal(kSwitch, kFirst + 2, abi::REASON_ALREADY_SPOKE, kFirst + 1)));
    CHECK(sender.machine.state() == TransferState::kMoved);
    CHECK(sender.machine.owner().server.node == 102);
  }
}

TEST_CASE("transfer: a generation that was refused by the switch at once was never applied") {
  Sender sender;
  CHECK(sender.hears(refusal(kSwitch, kFirst, abi::REASON_STALE_GENERATION, 5000)));
  CHECK(sender.machine.first() == 5001);
}

TEST_CASE("transfer: generations wrap") {
  Sender sender(true, 2, abi::GENERATION_MASK);
  CHECK(sender.hears(refusal(101, abi::GENERATION_MASK, abi::REASON_NO_LISTENER)));
  CHECK(sender.driver.take() == "offer 0 to 102");
}

TEST_CASE("transfer: a full table, or no right: taken back at once") {
  const auto reason = GENERATE(abi::REASON_TABLE_FULL, abi::REASON_NOT_ENTITLED);
  Sender sender;
  CHECK(sender.hears(refusal(kSwitch, kFirst, reason)));
  CHECK(sender.driver.take() == "take back 1001");
  SECTION("refused as well: it never left") {
    CHECK(sender.hears(refusal(kSwitch, kFirst + 1, reason)));
    CHECK(sender.machine.state() == TransferState::kReturned);
    CHECK(sender.machine.failure() == Failure::kCannotMove);
  }
  SECTION("the switch says nothing") {
    CHECK(sender.waits_for_deadline().empty());
    CHECK(sender.machine.state() == TransferState::kReturned);
  }
}

TEST_CASE("transfer: not entitled to take back: gone, unless it never moved") {
  const Generation first =
      GENERATE(Generation{1000}, Generation{1} << 26, abi::GENERATION_MASK - 5);
  Sender sender(true, 1, first);
  CHECK(sender.hears(refusal(101, first, abi::REASON_NO_LISTENER)));
  sender.driver.take();
  SECTION("no entry") {
    CHECK(sender.hears(refusal(kSwitch, first + 1, abi::REASON_NOT_ENTITLED, 0)));
    CHECK(sender.machine.state() == TransferState::kReturned);
  }
  SECTION("an entry of an earlier connection") {
    CHECK(sender.hears(refusal(kSwitch, first + 1, abi::REASON_NOT_ENTITLED, first - 1)));
    CHECK(sender.machine.state() == TransferState::kReturned);
  }
  SECTION("an entry of ours that has ended or gone on") {
    CHECK(sender.hears(refusal(kSwitch, first + 1, abi::REASON_NOT_ENTITLED, first)));
    CHECK(sender.machine.state() == TransferState::kMoved);
  }
}

TEST_CASE("transfer: missing parts are sent again") {
  Sender sender;
  const std::array<std::byte, 5> parts{std::byte{0}, std::byte{3}, std::byte{1}, std::byte{2},
                                       std::byte{9}};
  CHECK(sender.hears(message(abi::WIRE_MISSING, 101, kFirst), parts));
  CHECK(sender.driver.take() == "resend 3; resend 258");
}

TEST_CASE("transfer: a switch that has lost its table: only the server can know") {
  const bool idempotent = GENERATE(true, false);
  Sender sender(idempotent);
  sender.driver.changed = true;
  CHECK(sender.hears(refusal(kSwitch, kFirst, abi::REASON_OTHER_BOOT)));
  CHECK(sender.driver.take() == "abort 1000 at 101");
  SECTION("it was never opened: once more, in the new boot") {
    CHECK(sender.hears(message(abi::WIRE_ABORTED, 101, kFirst)));
    CHECK(sender.driver.take() == "follow; offer 1001 to 101");
    CHECK(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst + 1)));
    CHECK(sender.machine.state() == TransferState::kMoved);
  }
  SECTION("it was opened") {
    CHECK(sender.hears(message(abi::WIRE_RESUMED, 101, kFirst)));
    CHECK(sender.machine.state() == TransferState::kMoved);
  }
  SECTION("it is silent, too: nobody knows, nothing is said to the client") {
    CHECK(sender.waits_for_deadline() == "take back 1001");
    SECTION("told so") {
      CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_OTHER_BOOT)));
    }
    SECTION("at the deadline") { CHECK(sender.waits_for_deadline().empty()); }
    CHECK(sender.machine.state() == TransferState::kMoved);
  }
}

TEST_CASE("transfer: a table lost after all have refused: it is ours to answer") {
  Sender sender(false, 1);
  CHECK(sender.hears(refusal(101, kFirst, abi::REASON_NO_LISTENER)));
  CHECK(sender.driver.take() == "take back 1001");
  sender.driver.changed = true;
  CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_OTHER_BOOT)));
  CHECK(sender.machine.state() == TransferState::kReturned);
}

TEST_CASE("transfer: a table lost after a silent attempt: nobody knows") {
  Sender sender(true);
  CHECK(sender.waits_for_deadline() == "abort 1000 at 101; offer 1001 to 102");
  sender.driver.changed = true;
  CHECK(sender.hears(refusal(kSwitch, kFirst + 1, abi::REASON_OTHER_BOOT)));
  CHECK(sender.machine.state() == TransferState::kMoved);
}

TEST_CASE("transfer: what a former run of the sender has offered is asked for, then taken back") {
  const auto begun = [](Generation newest) {
    auto recorder = std::make_unique<Recorder>();
    recorder->servers = 1;
    auto machine = std::make_unique<TransferMachine>(
        *recorder,
        TransferMachine::Rules{
            .transfer = 2s, .retry = 50ms, .idempotent = false, .owned = kFirst - 1},
        kFirst);
    machine->go_on({kFirst, Recorder::candidate(0)}, newest, {});
    CHECK(recorder->take() == "abort 1000 at 101");
    return std::pair(std::move(recorder), std::move(machine));
  };
  {
    const auto [recorder, machine] = begun(kFirst);
    REQUIRE(machine->receive(message(abi::WIRE_RESUMED, 101, kFirst), {}, {}));
    CHECK(machine->state() == TransferState::kMoved);
    CHECK(machine->owner().generation == kFirst);
  }
  {
    const auto [recorder, machine] = begun(kFirst);
    REQUIRE(machine->receive(message(abi::WIRE_ABORTED, 101, kFirst), {}, {}));
    CHECK(recorder->take() == "take back 1001");
    REQUIRE(machine->receive(message(abi::WIRE_RESUMED, kSwitch, kFirst + 1), {}, {}));
    CHECK(machine->state() == TransferState::kReturned);
  }
  {  // it was never applied: the switch still has the generation before
    const auto [recorder, machine] = begun(kFirst);
    REQUIRE(machine->receive(message(abi::WIRE_ABORTED, 101, kFirst), {}, {}));
    REQUIRE(machine->receive(refusal(kSwitch, kFirst + 1, abi::REASON_STALE_GENERATION, kFirst - 1),
                             {}, {}));
    CHECK(recorder->take() == "take back 1001; take back 1000");
    REQUIRE(machine->receive(message(abi::WIRE_RESUMED, kSwitch, kFirst), {}, {}));
    CHECK(recorder->take() == "take back 1001");
    REQUIRE(machine->receive(message(abi::WIRE_RESUMED, kSwitch, kFirst + 1), {}, {}));
    CHECK(machine->state() == TransferState::kReturned);
  }
  {  // silent, and the switch says that it has spoken
    const auto [recorder, machine] = begun(kFirst);
    machine->tick(TransferMachine::TimePoint{} + 3s);
    CHECK(recorder->take() == "take back 1001");
    REQUIRE(
        machine->receive(refusal(kSwitch, kFirst + 1, abi::REASON_ALREADY_SPOKE, kFirst), {}, {}));
    CHECK(machine->state() == TransferState::kMoved);
  }
}
