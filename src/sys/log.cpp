// SPDX-License-Identifier: MIT
#include "sys/log.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

namespace tcpmig::sys {
namespace {

spdlog::level::level_enum level_of(bool verbose) {
  const char* named = std::getenv("TCPMIG_LOG");
  if (named == nullptr || *named == '\0')
    return verbose ? spdlog::level::debug : spdlog::level::info;
  return spdlog::level::from_str(named);  // what it does not know is "off"
}

}  // namespace

void setup_log(const std::string& role, bool verbose) {
  auto logger = std::make_shared<spdlog::logger>(
      role, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%f %^%-7l%$ %n: %v");
  logger->set_level(level_of(verbose));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace tcpmig::sys
