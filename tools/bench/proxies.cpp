// SPDX-License-Identifier: MIT
#include "proxies.hpp"

#include <thread>

#include "processes.hpp"

namespace tcpmig::bench {
namespace {

std::string text_of(unsigned number) { return std::to_string(number); }

/// What every nginx here has in common: a worker for each core, no log, many requests a connection.
std::string nginx_frame(const std::string& http, unsigned workers = 0) {
  const auto connections = static_cast<unsigned>(raise_descriptor_limit() / 10 * 9);
  return "user root;\ndaemon off;\nworker_processes " + (workers == 0 ? "auto" : text_of(workers)) +
         ";\npid nginx.pid;\nerror_log error.log;\nevents { worker_connections " +
         text_of(connections) +
         "; }\nhttp {\n"
         "  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 100000000;\n"
         "  keepalive_timeout 3600;\n"
         "  client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n"
         "  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n" +
         http + "}\n";
}

std::string haproxy_pair(const std::string& name, const std::string& own, std::uint16_t port,
                         const std::string& server, const std::string& option) {
  return "frontend " + name + "\n  bind " + own + ":" + text_of(port) +
         " backlog 511\n  default_backend to_" + name + "\nbackend to_" + name + "\n  " + option +
         "\n  server server1 " + server + "\n";
}

std::string nginx_pair(const std::string& own, std::uint16_t port, const std::string& to,
                       const std::string& connection) {
  return "  server {\n    listen " + own + ":" + text_of(port) +
         " backlog=511;\n    location / {\n      proxy_pass http://" + to +
         ";\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"" + connection +
         "\";\n    }\n  }\n";
}

}  // namespace

std::string nginx_origin(const std::filesystem::path& documents, unsigned workers) {
  return nginx_frame("  server {\n    listen 80 backlog=511;\n    root " + documents.string() +
                         ";\n    open_file_cache max=1000;\n  }\n",
                     workers);
}

/// splice-auto: bytes of large answers stay in the kernel. A connection takes up to four descriptors (two sockets, a pipe).
std::string haproxy_config(const std::string& own, const std::string& server) {
  const unsigned threads = std::thread::hardware_concurrency();
  const auto connections = static_cast<unsigned>(raise_descriptor_limit() / 5);
  return "global\n  nbthread " + text_of(threads) + "\n  maxconn " + text_of(connections) +
         "\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n"
         "  timeout server 60s\n  option splice-auto\n" +
         haproxy_pair("closing", own, kHaproxyClose, server + ":80", "option http-server-close") +
         haproxy_pair("keeping", own, kHaproxyKeep, server + ":80", "http-reuse always") +
         haproxy_pair("mini", own, kHaproxyMini, server + ":8080", "option http-server-close");
}

/// Answers are not written to files, and the buffers are larger than nginx comes with.
std::string nginx_proxy(const std::string& own, const std::string& server) {
  return nginx_frame(
      "  proxy_buffer_size 16k;\n  proxy_buffers 16 64k;\n  proxy_busy_buffers_size 512k;\n"
      "  proxy_max_temp_file_size 0;\n  upstream kept {\n    server " +
      server + ":80;\n    keepalive 128;\n    keepalive_requests 100000000;\n  }\n" +
      nginx_pair(own, kNginxClose, server + ":80", "close") +
      nginx_pair(own, kNginxKeep, "kept", "") +
      nginx_pair(own, kNginxMini, server + ":8080", "close"));
}

}  // namespace tcpmig::bench
