// SPDX-License-Identifier: MIT
#include "one_server.hpp"

#include <filesystem>
#include <stdexcept>

#include "lab/process.hpp"
#include "proxies.hpp"

namespace tcpmig::bench {
namespace {

constexpr std::uint16_t kPort = 80;
const char* const kPool =
    "[[pool]]\nname = \"web\"\nservers = [{ node = \"server1\", port = 80 }]\n";

}  // namespace

std::string web_service(unsigned id, const std::string& vip) {
  const std::string number = std::to_string(id);
  return "[[service]]\nname = \"s" + number + "\"\nid = " + number + "\nvip4 = \"" + vip +
         "\"\nport = 80\nprotocol = \"http\"\n[[service.route]]\nprefix = \"/\"\npool = \"web\"\n";
}

OneServer::OneServer(const Plan& plan, const std::string& name, unsigned clients,
                     const std::string& services, unsigned workers)
    : lab_({.name = name,
            .servers = 1,
            .clients = clients,
            .config_text = services + kPool,
            .program = plan.program}),
      ports_(*lab_, "client1") {
  prepare_ports(*lab_);
  const std::filesystem::path work = directory_.path(), documents = work / "documents";
  std::filesystem::create_directories(documents);
  lab::make_payload(documents, "1k", 1024);
  lab::write_text(work / "nginx.conf", nginx_origin(documents, workers));
  nginx_.emplace(*lab_, "server1",
                 std::vector<std::string>{"/usr/sbin/nginx", "-p", work, "-e", work / "error.log",
                                          "-c", work / "nginx.conf"},
                 work / "output.log");
  const sys::Endpoint own{lab_->node("server1").addresses.at(0), kPort};
  const bool ready = lab::wait_until(std::chrono::seconds(10), [&] {
    return lab::can_connect(lab_->node("client1").netns, own, std::chrono::milliseconds(500));
  });
  if (!ready) throw std::runtime_error("nginx: " + lab::tail(work / "error.log", 5));
}

std::vector<sys::Endpoint> OneServer::vips() const {
  std::vector<sys::Endpoint> result;
  for (const config::Service& service : lab_->config().services)
    result.push_back({service.vip4, service.port});
  return result;
}

}  // namespace tcpmig::bench
