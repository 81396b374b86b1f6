// SPDX-License-Identifier: MIT
#include <fstream>
#include <iterator>

#include "lab/demo_parts.hpp"
#include "lab/load.hpp"
#include "lab/role_status.hpp"

namespace tcpmig::lab::demo_parts {
namespace {

std::string contents(const std::filesystem::path& file) {
  std::ifstream input(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(input), {}};
}

LoadResult requests_to(const Stage& stage, const sys::Endpoint& target, unsigned requests) {
  const Payload& file = stage.files.front();
  return run_load({.netns = stage.lab.node("client1").netns,
                   .target = target,
                   .items = {{"/" + file.name, contents(stage.directory / "www" / file.name), 1}},
                   .requests = requests,
                   .parallel = 1});
}

}  // namespace

void show_phases(Stage& stage, unsigned requests) {
  const config::Service& service = stage.lab.config().services.at(0);
  const sys::Endpoint direct{stage.lab.node("server3").addresses.at(0), service.port};
  const std::vector<unsigned> widths = {50, 10, 10};
  stage.report.title(std::to_string(requests) +
                     " requests of 1 KB, one at a time, a new connection each (microseconds)");
  const LoadResult through = requests_to(stage, {service.vip4, service.port}, requests);
  const LoadResult plain = requests_to(stage, direct, requests);
  stage.report.row({"", "p50", "p99"}, widths);
  stage.report.row({"client: connect to last byte, through the service",
                    microseconds(through.percentile(50)), microseconds(through.percentile(99))},
                   widths);
  stage.report.row({"client: the same, straight to nginx on server3",
                    microseconds(plain.percentile(50)), microseconds(plain.percentile(99))},
                   widths);
  stage.report.check(through.failed == 0,
                     std::to_string(through.failed) + " requests failed" +
                         (through.failures.empty() ? "" : ": " + through.failures.front()));
}

}  // namespace tcpmig::lab::demo_parts
