// SPDX-License-Identifier: MIT
#include <stdexcept>

#include "lab/demo_parts.hpp"
#include "lab/interrupt.hpp"
#include "lab/plan.hpp"
#include "lab/process.hpp"

namespace tcpmig::lab::demo_parts {
namespace {

using std::chrono::steady_clock;

struct Fetched {
  bool done = false;
  std::chrono::nanoseconds took{};
};

std::vector<std::string> command_line(const std::string& program, const std::string& url,
                                      const std::string& target) {
  if (program == "curl") return {"curl", "-sS", "--fail", "-m", "60", "-o", target, url};
  return {"wget", "-q", "--tries=1", "--timeout=60", "-O", target, url};
}

Fetched fetch(const Stage& stage, const std::string& program, const std::string& url,
              const std::string& target) {
  const auto begun = steady_clock::now();
  const pid_t child =
      stage.lab.spawn("client1", command_line(program, url, target), stage.directory / "fetch.log");
  std::optional<int> code;
  wait_until(
      std::chrono::seconds(70),
      [&] {
        throw_if_interrupted();  // the child ends with the lab
        return (code = poll_exit(child)).has_value();
      },
      std::chrono::milliseconds(1));
  return {code == 0, steady_clock::now() - begun};
}

struct Answer {
  std::string server;
  std::string kind;
  sys::Address client;
};

/// Which server has logged a request since `known`. A server may log only when the connection has
/// ended.
std::optional<Answer> find_answer(const Stage& stage, const std::vector<std::size_t>& known,
                                  const std::string& path) {
  std::optional<Answer> answer;
  wait_until(std::chrono::seconds(3), [&] {
    for (std::size_t i = 0; i < stage.servers.size(); ++i) {
      const auto log = stage.servers[i].log();
      if (log.size() > known[i] && log.back().path == path)
        answer =
            Answer{stage.servers[i].node(), to_string(stage.servers[i].kind()), log.back().client};
    }
    return answer.has_value();
  });
  return answer;
}

void show_fetch(Stage& stage, const Payload& file, bool ipv6, const std::string& program,
                const std::vector<unsigned>& widths) {
  const config::Service& service = stage.lab.config().services.at(0);
  const std::string host = ipv6 ? "[" + service.vip6.str() + "]" : service.vip4.str();
  const std::filesystem::path target = stage.directory / "fetched";
  std::vector<std::size_t> known;
  for (const StockServer& server : stage.servers) known.push_back(server.log().size());

  const Fetched fetched = fetch(stage, program, "http://" + host + "/" + file.name, target);
  const bool equal = fetched.done && sha256_of(target) == file.sha256;
  const auto answer = find_answer(stage, known, "/" + file.name);
  const sys::Address& real = stage.lab.node("client1").addresses.at(ipv6 ? 1 : 0);
  const std::string what = program + " " + human_size(file.size) + (ipv6 ? " v6" : " v4");
  stage.report.row(
      {human_size(file.size), ipv6 ? "v6" : "v4", program, answer ? answer->server : "none",
       answer ? answer->kind : "", answer ? answer->client.str() : "", equal ? "equal" : "DIFFERS",
       milliseconds(fetched.took)},
      widths);
  stage.report.check(fetched.done, what + " comes to its end",
                     tail(stage.directory / "fetch.log", 3));
  stage.report.check(equal, what + " gets the file that the server has");
  stage.report.check(answer && answer->client == real, what + ": the server logs " + real.str());
  stage.report.document()["fetches"].push_back(
      {{"bytes", file.size},
       {"family", ipv6 ? 6 : 4},
       {"program", program},
       {"server", answer ? nlohmann::json(answer->server) : nlohmann::json()},
       {"server_program", answer ? nlohmann::json(answer->kind) : nlohmann::json()},
       {"client_seen", answer ? nlohmann::json(answer->client.str()) : nlohmann::json()},
       {"equal", equal},
       {"took_ns", fetched.took.count()}});
  std::filesystem::remove(target);
}

}  // namespace

void show_fetches(Stage& stage) {
  const std::vector<unsigned> columns = {8, 5, 8, 9, 12, 26, 9};
  stage.report.title(
      "Real clients fetch real files; every line is one connection that moved while it was open");
  stage.report.row(
      {"size", "via", "client", "server", "", "client the server logged", "sha256", "whole run"},
      columns);
  for (const Payload& file : stage.files)
    for (const bool ipv6 : {false, true})
      for (const std::string program : {"wget", "curl"})
        show_fetch(stage, file, ipv6, program, columns);
}

}  // namespace tcpmig::lab::demo_parts
