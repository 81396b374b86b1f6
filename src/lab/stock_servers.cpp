// SPDX-License-Identifier: MIT
#include "lab/stock_servers.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>

#include "lab/payload.hpp"
#include "lab/process.hpp"
#include "sys/check.hpp"
#include "sys/netns.hpp"

namespace tcpmig::lab {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

std::string nginx_config(const StockServer::Options& options) {
  const std::string port = std::to_string(options.port);
  return "user root;\ndaemon off;\nworker_processes 2;\npid nginx.pid;\nerror_log error.log;\n"
         "events { worker_connections 4096; }\n"
         "http {\n  access_log access.log combined;\n  client_body_temp_path body;\n  "
         "proxy_temp_path proxy;\n"
         "  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n"
         "  server {\n    listen " +
         port + " backlog=4096;\n    listen [::]:" + port + " backlog=4096;\n    root " +
         options.documents.string() + ";\n  }\n}\n";
}

std::string lighttpd_config(const StockServer::Options& options) {
  const std::string port = std::to_string(options.port);
  return "server.modules = ( \"mod_accesslog\" )\nserver.document-root = \"" +
         options.documents.string() + "\"\nserver.port = " + port +
         "\nserver.bind = \"0.0.0.0\"\n$SERVER[\"socket\"] == \"[::]:" + port +
         "\" { server.use-ipv6 = \"enable\" }\naccesslog.filename = \"" +
         (options.work / "access.log").string() +
         "\"\naccesslog.format = \"%h - - %t \\\"%r\\\" %>s %b\"\nserver.errorlog = \"" +
         (options.work / "error.log").string() + "\"\n";
}

/// As Debian's own configuration has it, of one file; the MPM is what differs.
std::string apache_config(const StockServer::Options& options) {
  const std::string modules = "/usr/lib/apache2/modules/mod_";
  const std::string mpm = options.kind == ServerKind::kApacheEvent ? "mpm_event" : "mpm_prefork";
  const std::string work = options.work.string();
  std::string text = "ServerRoot " + work + "\nServerName localhost\nPidFile " + work +
                     "/apache.pid\nListen 0.0.0.0:" + std::to_string(options.port) +
                     "\nListen [::]:" + std::to_string(options.port) +
                     "\nUser www-data\nGroup www-data\n";
  for (const std::string& module : {mpm, std::string("authz_core")})
    text += "LoadModule " + module + "_module " + modules + module + ".so\n";
  return text + "ErrorLog " + work +
         "/error.log\nLogFormat \"%h - - %t \\\"%r\\\" %>s %b\" short\n" + "CustomLog " + work +
         "/access.log short\nDocumentRoot " + options.documents.string() +
         "\nListenBacklog 4096\n<Directory />\n  Require all granted\n</Directory>\n";
}

/// Node's http module, as its manual shows it; an upload is answered with the SHA-256 of what came.
const char* const kNodeProgram =
    R"(const http = require('http'), fs = require('fs'), path = require('path'), crypto = require('crypto');
const [root, port] = process.argv.slice(2);
http.createServer((request, response) => {
  console.log(`${request.socket.remoteAddress} - - [] "${request.method} ${request.url} HTTP/${request.httpVersion}" 200 0`);
  if (request.method === 'POST' || request.method === 'PUT') {
    const sum = crypto.createHash('sha256');
    request.on('data', (part) => sum.update(part)).on('end', () => response.end(sum.digest('hex') + '\n'));
    return;
  }
  const file = fs.createReadStream(path.join(root, path.normalize(request.url.split('?')[0])));
  file.on('error', () => { response.statusCode = 404; response.end('not found\n'); });
  file.on('open', () => { response.setHeader('Content-Length', fs.fstatSync(file.fd).size); file.pipe(response); });
}).listen({ port: Number(port), host: '::', backlog: 4096, ipv6Only: false });
)";

std::vector<std::string> command_line(const StockServer::Options& options,
                                      const std::string& program) {
  const std::string port = std::to_string(options.port);
  const std::string work = options.work.string();
  switch (options.kind) {
    case ServerKind::kMiniHttpd:
      return {program, "-D",
              "-u",    "root",
              "-p",    port,
              "-d",    options.documents,
              "-l",    work + "/access.log"};
    case ServerKind::kNginx:
      write_text(options.work / "nginx.conf", nginx_config(options));
      return {program, "-p", work, "-e", work + "/error.log", "-c", work + "/nginx.conf"};
    case ServerKind::kLighttpd:
      write_text(options.work / "lighttpd.conf", lighttpd_config(options));
      return {program, "-D", "-f", work + "/lighttpd.conf"};
    case ServerKind::kPython:
      return {program,           "-u", "-m", "http.server", "--bind", "::", "--directory",
              options.documents, port};
    case ServerKind::kNode:
      write_text(options.work / "server.js", kNodeProgram);
      return {program, work + "/server.js", options.documents, port};
    case ServerKind::kApacheEvent:
    case ServerKind::kApachePrefork:
      write_text(options.work / "apache.conf", apache_config(options));
      return {program, "-D", "FOREGROUND", "-f", work + "/apache.conf"};
  }
  throw std::logic_error("ServerKind");
}

/// 'CLIENT - - [date] "GET /path HTTP/1.1" ...', as every one of these servers writes it.
std::optional<LogEntry> parse_line(const std::string& line) {
  const auto quote = line.find('"');
  const auto client = sys::Address::parse(line.substr(0, line.find(' ')));
  if (quote == std::string::npos || !client) return {};
  std::istringstream request(line.substr(quote + 1));
  LogEntry entry;
  entry.client = *client;
  entry.line = line;
  std::string method;
  request >> method >> entry.path;
  return entry;
}

}  // namespace

std::string to_string(ServerKind kind) {
  switch (kind) {
    case ServerKind::kMiniHttpd:
      return "mini_httpd";
    case ServerKind::kNginx:
      return "nginx";
    case ServerKind::kLighttpd:
      return "lighttpd";
    case ServerKind::kPython:
      return "python3";
    case ServerKind::kNode:
      return "node";
    case ServerKind::kApacheEvent:
      return "apache2";
    case ServerKind::kApachePrefork:
      return "apache2-prefork";
  }
  throw std::logic_error("ServerKind");
}

bool keeps_alive(ServerKind kind) {
  return kind != ServerKind::kMiniHttpd && kind != ServerKind::kPython;
}

std::optional<fs::path> find_server(ServerKind kind) {
  const std::string program =
      kind == ServerKind::kApachePrefork ? to_string(ServerKind::kApacheEvent) : to_string(kind);
  for (const fs::path directory : {"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"})
    if (fs::path file = directory / program; ::access(file.c_str(), X_OK) == 0) return file;
  return {};
}

bool can_connect(const std::string& netns, const sys::Endpoint& to, milliseconds limit) {
  const auto [address, length] = to.to_sockaddr();
  const sys::EnterNetns inside(netns);
  const sys::UniqueFd fd(sys::check(
      "socket", ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) return true;
  pollfd wait{fd.get(), POLLOUT, 0};
  if (errno != EINPROGRESS || ::poll(&wait, 1, static_cast<int>(limit.count())) != 1) return false;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

StockServer::StockServer(const Lab& lab, const Options& options) : options_(options) {
  const auto program = find_server(options.kind);
  if (!program) throw std::runtime_error(to_string(options.kind) + " is not installed");
  fs::create_directories(options.work);
  fs::permissions(options.work, fs::perms(0755));
  const fs::path output = options.work / "output.log";
  std::vector<std::string> command = options.under;
  for (std::string& word : command_line(options_, *program)) command.push_back(std::move(word));
  pid_ = lab.spawn(options.node, command, output);
  const Node& node = lab.node(options.node);
  const bool ready = wait_until(milliseconds(10'000), [&] {
    for (const sys::Address& own : node.addresses)
      if (!can_connect(node.netns, {own, options.port}, milliseconds(500))) return false;
    return true;
  });
  if (ready) return;
  stop();
  throw std::runtime_error(to_string(options.kind) + " on " + options.node +
                           " does not accept connections:\n" + tail(output, 10) +
                           tail(options.work / "error.log", 10));
}

StockServer::StockServer(StockServer&& other) noexcept
    : options_(std::move(other.options_)), pid_(std::exchange(other.pid_, -1)) {}

StockServer::~StockServer() { stop(); }

/// The server leads a session of its own, so its group is all of it.
void StockServer::stop() noexcept {
  if (pid_ <= 0) return;
  try {
    ::kill(-pid_, SIGTERM);
    if (!wait_until(milliseconds(2000), [this] { return poll_exit(pid_).has_value(); })) {
      ::kill(-pid_, SIGKILL);
      wait_for(pid_);
    }
  } catch (const std::exception&) {
    // nothing that a destructor could do; `lab down` ends whatever is left in the node
  }
  pid_ = -1;
}

fs::path StockServer::log_file() const {
  const bool own_file = options_.kind != ServerKind::kPython && options_.kind != ServerKind::kNode;
  return options_.work / (own_file ? "access.log" : "output.log");
}

std::vector<LogEntry> StockServer::log() const {
  std::vector<LogEntry> entries;
  std::ifstream input(log_file());
  for (std::string line; std::getline(input, line);)
    if (auto entry = parse_line(line)) entries.push_back(std::move(*entry));
  return entries;
}

}  // namespace tcpmig::lab
