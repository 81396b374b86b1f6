// SPDX-License-Identifier: MIT
#include "wrk.hpp"

#include <regex>
#include <stdexcept>

#include "processes.hpp"

namespace tcpmig::bench {
namespace {

/// The numbers of the first match, added up; 0 where there is none.
double numbers(const std::string& text, const std::string& pattern) {
  std::smatch match;
  double sum = 0;
  if (std::regex_search(text, match, std::regex(pattern)))
    for (std::size_t i = 1; i < match.size(); ++i) sum += std::stod(match[i].str());
  return sum;
}

}  // namespace

WrkResult run_wrk(const lab::Lab& lab, const WrkPlan& plan) {
  std::vector<std::string> command{"wrk",       "-t1",
                                   "-c",        std::to_string(plan.connections),
                                   "-d",        std::to_string(plan.seconds) + "s",
                                   "--timeout", "5s"};
  command.push_back("http://" + plan.to.str() + plan.path);
  const std::string text = output_of(lab, plan.node, command);
  WrkResult result;
  result.per_second = numbers(text, R"(Requests/sec:\s+([0-9.]+))");
  result.requests = numbers(text, R"(([0-9]+) requests in)");
  result.errors =
      numbers(
          text,
          R"(Socket errors: connect ([0-9]+), read ([0-9]+), write ([0-9]+), timeout ([0-9]+))") +
      numbers(text, R"(Non-2xx or 3xx responses: ([0-9]+))");
  if (result.requests == 0) throw std::runtime_error("wrk has had no answer:\n" + text);
  return result;
}

}  // namespace tcpmig::bench
