// SPDX-License-Identifier: MIT
// tcpmig freeze --pid P --fd N -o FILE
#include <CLI/CLI.hpp>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/context.hpp"
#include "cli/failure.hpp"
#include "cli/options.hpp"
#include "cli/snapshot_text.hpp"
#include "manual/take_out.hpp"
#include "tcpmig/freeze.hpp"

namespace tcpmig::cli {
namespace {

const std::string kAbout = R"(
The peer notices nothing: no packet is sent. The process needs to know nothing of it; it sees a connection that broke
(ECONNABORTED, then the end of the stream). For as long as it takes, some milliseconds, every process that has the
connection open stands still, as by SIGSTOP but without a signal.

FILE is on the disk before the connection is taken. If anything fails before that, or this command is killed, the
connection goes on in its process.

Until the connection goes on elsewhere, what its peer sends must not be answered: a process in the background drops it,
for --hold seconds, in the network namespace of the connection; after that the kernel answers by RST, which ends the
connection for the peer. `tcpmig resume` in the same network namespace takes its place over. For another machine: resume it there
first, then direct the packets there, before the time is over.
)";

constexpr const char* kExample =
    R"(sudo ss -tnp state established   (shows process and descriptor of each connection)
         sudo tcpmig freeze --pid 4242 --fd 9 -o c.snap && sudo tcpmig resume c.snap -- cat)";

std::string joined(const std::vector<pid_t>& processes) {
  std::string text;
  for (const pid_t process : processes)
    text += (text.empty() ? "" : ", ") + std::to_string(process);
  return text;
}

void print(const manual::TakeOut& wanted, const manual::TakenOut& taken) {
  std::cout << headline(taken.snapshot) << "\n" << wanted.file.string() << " is written; ";
  if (wanted.look_only)
    std::cout << "the connection goes on in process " << joined(taken.processes);
  else
    std::cout << "the connection has left process " << joined(taken.processes);
  std::cout << ", which stood still for " << taken.stopped.count() / 1000 << " ms\n";
  if (taken.holder != 0)
    std::cout << "For " << wanted.hold.count() << " s process " << taken.holder
              << " drops what the peer sends; within that time: tcpmig resume "
              << wanted.file.string() << " -- PROGRAM\n";
  std::cout << std::flush;
}

void print_as_json(const manual::TakeOut& wanted, const manual::TakenOut& taken) {
  print_json({{"file", wanted.file.string()},
              {"taken", !wanted.look_only},
              {"processes", taken.processes},
              {"stopped_us", taken.stopped.count()},
              {"holder", taken.holder == 0 ? nlohmann::json() : nlohmann::json(taken.holder)},
              {"hold_s", taken.holder == 0 ? 0 : wanted.hold.count()},
              {"snapshot", to_json(taken.snapshot)}});
}

int freeze(const Globals& globals, const manual::TakeOut& wanted) {
  require_root("freeze", Rights::kNamespaces);
  quiet_log(globals);
  const manual::TakenOut taken = manual::take_out(wanted);
  if (globals.json)
    print_as_json(wanted, taken);
  else
    print(wanted, taken);
  return kDone;
}

}  // namespace

void add_freeze(CLI::App& app, Globals& globals, Action& action) {
  CLI::App* verb =
      app.add_subcommand("freeze", "Take a TCP connection out of a running process, into a file");
  const auto wanted = std::make_shared<manual::TakeOut>();
  const auto hold = std::make_shared<unsigned>(60);
  verb->add_option("--pid", wanted->process, "The process")
      ->required()
      ->check(number(1, std::numeric_limits<int>::max()))
      ->type_name("P");
  verb->add_option("--fd", wanted->fd, "Its descriptor of the connection, as in /proc/P/fd")
      ->required()
      ->check(number(0, std::numeric_limits<int>::max()))
      ->type_name("N");
  verb->add_option(
          "-o,--output", wanted->file,
          "Where the connection is written to, mode 0600: it holds what its ends have said")
      ->required()
      ->type_name("FILE");
  verb->add_flag("--force", wanted->replace, "FILE may replace another one");
  verb->add_flag(
      "--keep", wanted->look_only,
      "Only look: write FILE, and let the connection go on in its process. (That FILE must "
      "not be resumed: there would be two of one connection)");
  verb->add_option("--hold", *hold, "How long the place of the connection is held; 0: not at all")
      ->check(number(0, 86'400))
      ->capture_default_str()
      ->type_name("SECONDS");
  verb->footer(kAbout + footer(kExample, kOfAll));
  verb->callback([&globals, &action, wanted, hold] {
    wanted->hold = std::chrono::seconds(*hold);
    action = [&globals, wanted] { return freeze(globals, *wanted); };
  });
}

}  // namespace tcpmig::cli
