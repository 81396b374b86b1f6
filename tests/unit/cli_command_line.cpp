// SPDX-License-Identifier: MIT
// The command line as a whole, in this process: exit codes, one line on stderr, JSON alone on
// stdout.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "catch.hpp"
#include "cli/cli.hpp"
#include "cli/version.hpp"
#include "config_samples.hpp"

using namespace tcpmig;
using config_samples::kGood;
using config_samples::replaced;

namespace {

/// What is printed while one lives goes into strings.
class Capture {
 public:
  Capture() : out_(std::cout.rdbuf(out.rdbuf())), error_(std::cerr.rdbuf(error.rdbuf())) {}
  ~Capture() {
    std::cout.rdbuf(out_);
    std::cerr.rdbuf(error_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::ostringstream out, error;

 private:
  std::streambuf *out_, *error_;
};

struct Result {
  int code = -1;
  std::string out, error;
};

Result invoke(std::vector<std::string> words) {
  words.insert(words.begin(), "tcpmig");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  Capture capture;
  const int code = cli::run(static_cast<int>(argv.size()), argv.data());
  return {code, capture.out.str(), capture.error.str()};
}

/// A file with a configuration, removed at the end.
struct ConfigFile {
  explicit ConfigFile(const std::string& text) : path(directory / "cluster.toml") {
    std::filesystem::create_directories(directory);
    std::ofstream(path) << text;
  }
  ~ConfigFile() { std::filesystem::remove_all(directory); }
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;
  std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("tcpmig-cli-" + std::to_string(::getpid()));
  std::string path;
};

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("cli: version, as in CMakeLists.txt") {
  CHECK(invoke({"version"}).out.starts_with("tcpmig " + std::string(cli::kVersion) + " ("));
  const auto json = nlohmann::json::parse(invoke({"version", "--json"}).out);
  CHECK(json.at("tcpmig") == cli::kVersion);
  CHECK(json.contains("kernel"));
  std::ifstream cmake(TCPMIG_SOURCE "/CMakeLists.txt");
  const std::string text{std::istreambuf_iterator<char>(cmake), {}};
  CHECK(text.find("project(tcpmig VERSION " + std::string(cli::kVersion) + " ") !=
        std::string::npos);
}

TEST_CASE("cli: every command has help with an example") {
  const std::vector<std::vector<std::string>> commands{{},
                                                       {"switch", "up"},
                                                       {"switch", "down"},
                                                       {"switch", "run"},
                                                       {"dispatcher", "run"},
                                                       {"dispatcher", "down"},
                                                       {"agent", "run"},
                                                       {"agent", "down"},
                                                       {"agent", "check"},
                                                       {"lab", "up"},
                                                       {"exec"},
                                                       {"lab", "exec"},
                                                       {"lab", "status"},
                                                       {"lab", "down"},
                                                       {"lab", "demo"},
                                                       {"lab", "fd-server"},
                                                       {"status"},
                                                       {"flows"},
                                                       {"config", "check"},
                                                       {"secret", "generate"},
                                                       {"secret", "rotate"},
                                                       {"freeze"},
                                                       {"resume"},
                                                       {"repair-helper"},
                                                       {"snapshot", "show"},
                                                       {"doctor"},
                                                       {"version"}};
  for (std::vector<std::string> words : commands) {
    words.emplace_back("--help");
    const Result help = invoke(words);
    INFO(help.out << help.error);
    CHECK(help.code == 0);
    CHECK(help.error.empty());
    CHECK(help.out.find("Example") != std::string::npos);
    if (words.size() > 1) CHECK(help.out.find("--help` explains them): ") != std::string::npos);
    CHECK(help.out.find("json") != std::string::npos);  // or that there is none
    CHECK(help.out.find("tcpmig " + (words.size() > 1 ? words[0] : "lab up")) != std::string::npos);
  }
  for (const char* group : {"switch", "dispatcher", "agent", "lab", "config", "secret", "snapshot"})
    CHECK(invoke({group, "--help"}).out.find("VERB --help") != std::string::npos);
  CHECK(invoke({"--help"}).out.find("4 already running; 5 not found") != std::string::npos);
}

TEST_CASE("cli: wrong usage ends with 2 and one line that points at the help") {
  for (const std::vector<std::string>& words : {std::vector<std::string>{},
                                                {"nonsense"},
                                                {"switch"},
                                                {"switch", "sideways"},
                                                {"switch", "up", "--nonsense"},
                                                {"switch", "run", "--datapath", "ebpf"},
                                                {"lab", "up", "--servers", "many"},
                                                {"lab", "up", "--datapath", "ebpf"},
                                                {"lab", "exec", "--", "true"},
                                                {"lab", "exec", "client1", "curl", "-s"},
                                                {"secret", "generate"},
                                                {"flows", "--state", "asleep"},
                                                {"config", "check", "a", "b"},
                                                {"freeze"},
                                                {"freeze", "--pid", "1", "--fd", "0"},
                                                {"freeze", "--pid", "0", "--fd", "0", "-o", "f"},
                                                {"freeze", "--pid", "1", "--fd", "-1", "-o", "f"},
                                                {"resume"},
                                                {"resume", "f"},
                                                {"resume", "f", "--"},
                                                {"resume", "f", "cat"},
                                                {"resume", "f", "--local", "x", "--", "cat"},
                                                {"resume", "f", "--fd", "-1", "--", "cat"},
                                                {"snapshot"},
                                                {"snapshot", "show"},
                                                {"doctor", "--role", "patient"},
                                                {"repair-helper", "--allow", "everything"},
                                                {"repair-helper", "--most-buffer", "lots"},
                                                {"lab", "fd-server"}}) {
    const Result result = invoke(words);
    INFO(result.error);
    CHECK(result.code == 2);
    CHECK(result.out.empty());
    CHECK(lines(result.error) == 1);
    CHECK(result.error.starts_with("tcpmig: "));
    CHECK(result.error.find("--help`)") != std::string::npos);
  }
  const auto error = [](const std::vector<std::string>& words) { return invoke(words).error; };
  CHECK(error({"lab", "up", "--datapath", "ebpf"}) ==
        "tcpmig: --datapath: \"ebpf\" is not known here: write auto, tc or xdp (see `tcpmig lab up "
        "--help`)\n");
  CHECK(error({"lab", "up", "--servers", "0"}).find("--servers: 0 is not in 1..100") !=
        std::string::npos);
  CHECK(error({"flows", "--state", "asleep"}).find("write moved, open, closing or dead") !=
        std::string::npos);
  // the number that an enum has inside is nothing to write
  CHECK(invoke({"lab", "up", "--datapath", "1"}).code == 2);
  CHECK(error({"lab", "demo", "--servers", "nginx,4"}).find("\"4\" is not known here") !=
        std::string::npos);
  CHECK(invoke({"lab", "exec", "client1"}).error ==
        "tcpmig: no command: write `tcpmig lab exec client1 -- COMMAND...`\n");
  CHECK(invoke({"switch", "run", "--json"}).error == "tcpmig: `switch run` has no --json\n");
  CHECK(invoke({"switch", "sideways"}).error.find("`tcpmig switch --help`") != std::string::npos);
}

TEST_CASE("cli: config check") {
  const ConfigFile good(kGood);
  CHECK(invoke({"config", "check", good.path}).code == 0);
  CHECK(invoke({"config", "check", good.path}).out ==
        good.path + " is good: 1 switch, 1 dispatcher, 2 servers, 1 service, 2 pools\n");
  CHECK(invoke({"--config", good.path, "config", "check"}).code == 0);
  CHECK(nlohmann::json::parse(invoke({"config", "check", good.path, "--json"}).out).at("ok") ==
        true);

  std::ofstream(good.path) << replaced(replaced(kGood, "port = 80\n", "prot = 80\n"),
                                       "pool = \"all\"", "pool = \"al\"");
  const Result bad = invoke({"config", "check", good.path});
  CHECK(bad.code == 2);
  CHECK(bad.out.empty());
  CHECK(lines(bad.error) == 3);
  CHECK(bad.error.starts_with(
      good.path + ":34:1: unknown key \"prot\" in [[service]]: did you mean \"port\"?\n"));
  CHECK(bad.error.ends_with("2 problems\n"));
  const auto json = nlohmann::json::parse(invoke({"--json", "config", "check", good.path}).out);
  CHECK(json.at("ok") == false);
  CHECK(json.at("problems").at(0).at("line") == 34);
  CHECK(json.at("problems").at(1).at("fix") == "did you mean \"all\"?");

  const Result other = invoke({"switch", "up", "--config", good.path});
  CHECK(other.code == 2);
  CHECK(lines(other.error) == 1);
  CHECK(other.error.find("(and 1 more: `tcpmig config check " + good.path + "`)") !=
        std::string::npos);
  CHECK(invoke({"config", "check", "/nonexistent"}).code == 2);
}

TEST_CASE("cli: which node this is") {
  const ConfigFile file(kGood);
  const auto line = [&](std::vector<std::string> words, int code) {
    words.insert(words.end(), {"--config", file.path});
    const Result result = invoke(words);
    CHECK(result.code == code);
    CHECK(result.out.empty());
    CHECK(lines(result.error) == 1);
    return result.error;
  };
  CHECK(
      line({"switch", "up", "--node", "nobody"}, 5)
          .ends_with(": say with --node or TCPMIG_NODE which of these this is: sw, d1, s1, s2\n"));
  CHECK(line({"switch", "up", "--node", "d1"}, 2).find("\"d1\" is a dispatcher, not a switch") !=
        std::string::npos);
  CHECK(
      line({"dispatcher", "run", "--node", "s1"}, 2).find("\"s1\" is a server, not a dispatcher") !=
      std::string::npos);
  CHECK(line({"agent", "run", "--node", "sw"}, 2).find("\"sw\" is a switch, not a server") !=
        std::string::npos);
  CHECK(line({"flows", "--node", "sw", "--owner", "x"}, 5).find("no node \"x\"") !=
        std::string::npos);
  CHECK(line({"flows", "--node", "sw", "--service", "x"}, 5).find("no service \"x\"") !=
        std::string::npos);
  CHECK(line({"flows", "--node", "sw", "--client", "x"}, 2).find("--client x: ") !=
        std::string::npos);
  ::setenv("TCPMIG_NODE", "s2", 1);
  ::setenv("TCPMIG_CONFIG", file.path.c_str(), 1);
  CHECK(invoke({"switch", "up"}).error.find("\"s2\" is a server") != std::string::npos);
  CHECK(invoke({"switch", "up", "--node", "d1"}).error.find("\"d1\" is a dispatcher") !=
        std::string::npos);
  ::unsetenv("TCPMIG_NODE");
  ::unsetenv("TCPMIG_CONFIG");
}

TEST_CASE("cli: secret generate writes once") {
  const ConfigFile beside("");
  const std::string file = (beside.directory / "secret").string();
  const Result first = invoke({"secret", "generate", file, "--json"});
  CHECK(first.code == 0);
  CHECK(nlohmann::json::parse(first.out).at("file") == file);
  struct stat info{};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  const Result second = invoke({"secret", "generate", file});
  CHECK(second.code == 1);
  CHECK(lines(second.error) == 1);
}

TEST_CASE("cli: secret rotate, step by step") {
  const ConfigFile beside("");
  const std::string file = (beside.directory / "secret").string();
  REQUIRE(invoke({"secret", "generate", file}).code == 0);
  CHECK(invoke({"secret", "rotate", file, "use"}).code == 2);
  const auto add = nlohmann::json::parse(invoke({"secret", "rotate", file, "add", "--json"}).out);
  CHECK(add == nlohmann::json({{"file", file}, {"step", "add"}, {"key", 2}, {"next", "use"}}));
  CHECK(invoke({"secret", "rotate", file, "add"}).code == 2);
  CHECK(invoke({"secret", "rotate", file, "use"}).out.find("secret rotate " + file + " drop") !=
        std::string::npos);
  CHECK(invoke({"secret", "rotate", file, "drop"}).code == 0);
  CHECK(invoke({"secret", "rotate", file, "sideways"}).code == 2);
  struct stat info{};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("cli: output that cannot be written is a failure") {
  struct Full : std::streambuf {
  } full;  // takes nothing
  Capture capture;
  std::cout.rdbuf(&full);
  std::string words[] = {"tcpmig", "version"};
  char* argv[] = {words[0].data(), words[1].data()};
  CHECK(cli::run(2, argv) == 1);
  std::cout.clear();
  CHECK(capture.error.str() == "tcpmig: cannot write to the standard output\n");
}

TEST_CASE("cli: without rights: one line that says so, and 3") {
  const ConfigFile file(kGood);
  ::chmod(file.directory.c_str(), 0755);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"switch", "up", "--node", "sw"},
        {"switch", "down", "--node", "sw"},
        {"switch", "run", "--node", "sw"},
        {"dispatcher", "run", "--node", "d1"},
        {"agent", "run", "--node", "s1"},
        {"agent", "down", "--node", "s1"},
        {"dispatcher", "down", "--node", "d1"},
        {"lab", "status"},
        {"status", "--node", "sw"},
        {"flows", "--node", "sw"},
        {"lab", "up"},
        {"lab", "down"},
        {"lab", "demo"},
        {"lab", "exec", "client1", "--", "true"}}) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(99);
      std::vector<std::string> all = words;
      if (words[0] != "lab") all.insert(all.end(), {"--config", file.path});
      const Result result = invoke(all);
      const bool good = result.out.empty() && lines(result.error) == 1 &&
                        result.error.find("takes root: run it with sudo") != std::string::npos;
      ::_exit(good ? result.code : 98);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    INFO(words[0]);
    CHECK(WEXITSTATUS(status) == 3);
  }
}
