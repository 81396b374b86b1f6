// SPDX-License-Identifier: MIT
#include "sys/ledger.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <exception>
#include <fstream>
#include <iterator>
#include <list>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "sys/check.hpp"

namespace tcpmig::sys {
namespace {

using Json = nlohmann::json;

// ---- what can be changed

struct Sysctl {
  std::string name;  ///< with slashes
  std::string original;
  std::vector<std::string> ours;  ///< every value we meant to set: one of them there means that
                                  ///< nobody else has set it since
};

struct InterfaceAddress {
  std::string link;
  Prefix prefix;
};

using Change = std::variant<Sysctl, Route, Rule, InterfaceAddress>;

struct Entry {
  Change change;
  bool touched = true;    ///< wanted by this run (an adoption clears it)
  bool expected = false;  ///< written down, and not made yet
};
using Entries = std::list<Entry>;  // in the order in which they were made

/// What is given back before the file says so is given back again after kill -9, which changes nothing.
constexpr std::size_t kGivenBackUnsaved = 256;

// ---- as JSON

Prefix prefix_from(const Json& json) {
  auto prefix = Prefix::parse(json.get<std::string>());
  if (!prefix) throw std::runtime_error(prefix.error());
  return *prefix;
}

Json to_json(const Sysctl& sysctl) {
  return {{"kind", "sysctl"},
          {"name", sysctl.name},
          {"original", sysctl.original},
          {"ours", sysctl.ours}};
}

Json to_json(const Route& route) {
  Json json{{"kind", "route"},
            {"destination", route.destination.str()},
            {"oif", route.oif},
            {"table", route.table},
            {"local", route.local}};
  if (route.gateway) json["gateway"] = route.gateway->str();
  if (route.mtu != 0) json["mtu"] = route.mtu;
  return json;
}

Json to_json(const Rule& rule) {
  return {{"kind", "rule"},
          {"source", rule.source.str()},
          {"table", rule.table},
          {"priority", rule.priority}};
}

Json to_json(const InterfaceAddress& address) {
  return {{"kind", "address"}, {"link", address.link}, {"prefix", address.prefix.str()}};
}

Route route_from(const Json& json) {
  Route route{.destination = prefix_from(json.at("destination")),
              .gateway = {},
              .oif = json.at("oif"),
              .table = json.at("table"),
              .local = json.at("local"),
              .mtu = json.value("mtu", 0U)};
  if (json.contains("gateway")) route.gateway = prefix_from(json.at("gateway")).address;
  return route;
}

Change change_from(const Json& json) {
  const std::string kind = json.at("kind");
  if (kind == "sysctl") return Sysctl{json.at("name"), json.at("original"), json.at("ours")};
  if (kind == "route") return route_from(json);
  if (kind == "rule")
    return Rule{prefix_from(json.at("source")), json.at("table"), json.at("priority")};
  if (kind == "address") return InterfaceAddress{json.at("link"), prefix_from(json.at("prefix"))};
  throw std::runtime_error("entry of unknown kind '" + kind + "'");
}

// Names an entry too: two that read alike are the same.
std::string describe(const Sysctl& sysctl) { return "sysctl " + sysctl.name; }
std::string describe(const Route& route) { return "route " + to_string(route); }
std::string describe(const Rule& rule) { return "rule " + to_string(rule); }
std::string describe(const InterfaceAddress& address) {
  return "address " + address.prefix.str() + " on " + address.link;
}
std::string describe(const Change& change) {
  return std::visit([](const auto& one) { return describe(one); }, change);
}

// ---- sysctls

/// One space between words, none around: the kernel prints tabs where one wrote spaces.
std::string normalised(const std::string& text) {
  std::istringstream words(text);
  std::string result;
  for (std::string word; words >> word;) result += (result.empty() ? "" : " ") + word;
  return result;
}

std::string with_slashes(std::string name) {
  if (name.find('/') == std::string::npos) std::ranges::replace(name, '.', '/');
  if (name.starts_with('/') || name.find("..") != std::string::npos)
    throw std::invalid_argument("'" + name + "' is not a sysctl");
  return name;
}

std::string read_file(const std::filesystem::path& file) {
  const UniqueFd fd(check("open " + file.string(), ::open(file.c_str(), O_RDONLY | O_CLOEXEC)));
  std::string text;
  std::array<char, 4096> part{};
  for (;;) {
    const auto size = check("read " + file.string(), ::read(fd.get(), part.data(), part.size()));
    if (size == 0) return text;
    text.append(part.data(), static_cast<std::size_t>(size));
  }
}

/// In one write, as /proc/sys wants it.
void write_file(const std::filesystem::path& file, const std::string& value) {
  const UniqueFd fd(check("open " + file.string(), ::open(file.c_str(), O_WRONLY | O_CLOEXEC)));
  check("set " + file.string() + " to " + value, ::write(fd.get(), value.data(), value.size()));
}

// ---- where the ledger is true

/// Boot and network namespace: entries of another one speak of things that no longer exist. The
/// cookie is never used again in one boot, unlike the inode number of /proc/self/ns/net.
std::string this_place() {
  const UniqueFd socket(check("socket", ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  check("getsockopt SO_NETNS_COOKIE",
        ::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length));
  return normalised(read_file("/proc/sys/kernel/random/boot_id")) + " netns " +
         std::to_string(cookie);
}

/// Whether the two would be in each other's way, so that the old one must go before the new one
/// comes.
bool in_the_way(const Route& old, const Route& wanted) {
  return old.destination.network() == wanted.destination.network() && old.table == wanted.table;
}
bool in_the_way(const InterfaceAddress& old, const InterfaceAddress& wanted) {
  return old.link == wanted.link && old.prefix.address == wanted.prefix.address;
}
bool in_the_way(const Rule&, const Rule&) { return false; }

}  // namespace

struct Ledger::State {
  std::filesystem::path file;
  Netlink& netlink;
  std::filesystem::path proc_sys;
  std::string place = this_place();
  Entries entries{};
  std::unordered_map<std::string, Entries::iterator> by_name{};  ///< by describe()
  std::size_t untouched = 0;                                     ///< of the entries

  void load();
  void save() const;
  Entry& remember(Entry entry);
  void touch(Entry& entry);
  void drop(Entries::iterator entry);
  void forget(const Change& change);

  void set(const std::string& name, const std::string& value);
  template <typename Kind>
  void add(const Kind& wanted);
  template <typename Kind>
  void clear_the_way(const Kind& wanted);
  void expect(std::span<const Route> routes);
  void make_or_forget(Entry& entry, const auto& wanted);
  Entry* find(const std::string& description);

  // true: made; false: it was there
  bool make(const Route& route) { return netlink.add_route(route); }
  bool make(const Rule& rule) { return netlink.add_rule(rule); }
  bool make(const InterfaceAddress& address);
  // Addresses carry no mark of ours, so one that is there already must not even be recorded for a
  // moment.
  bool is_there(const InterfaceAddress& address);
  bool is_there(const Route&) { return false; }
  bool is_there(const Rule&) { return false; }

  void revert(const Sysctl& sysctl);
  void revert(const Route& route) { netlink.remove_route(route); }
  void revert(const Rule& rule) { netlink.remove_rule(rule); }
  void revert(const InterfaceAddress& address);
  template <typename Wanted>
  void give_back(Wanted&& wanted);
};

// ---- the file

void Ledger::State::load() {
  if (!std::filesystem::exists(file)) return;
  try {
    const Json json = Json::parse(read_file(file));
    if (json.at("place") != place) {
      spdlog::info("{} is of another boot or network namespace: dropped", file.string());
      std::filesystem::remove(file);
      return;
    }
    for (const Json& entry : json.at("entries")) remember({change_from(entry)});
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() +
                             " is not a ledger of tcpmig (move it away): " + error.what());
  }
}

/// Replaced by rename: whoever reads it, whenever we die, sees the old one or the new one. (Not
/// synced to disk: what it speaks of does not outlive a reboot either.)
void Ledger::State::save() const {
  if (entries.empty()) {
    std::filesystem::remove(file);
    return;
  }
  Json json{{"place", place}, {"entries", Json::array()}};
  for (const Entry& entry : entries)
    json["entries"].push_back(
        std::visit([](const auto& one) { return to_json(one); }, entry.change));
  std::filesystem::path aside = file;
  aside += ".new";
  std::ofstream output(aside, std::ios::trunc);
  if (!(output << json.dump(1) << '\n' << std::flush))
    throw std::system_error(errno, std::generic_category(), "write " + aside.string());
  std::filesystem::rename(aside, file);
}

Entry& Ledger::State::remember(Entry entry) {
  entries.push_back(std::move(entry));
  by_name[describe(entries.back().change)] = std::prev(entries.end());
  return entries.back();
}

void Ledger::State::touch(Entry& entry) {
  if (!std::exchange(entry.touched, true)) --untouched;
}

void Ledger::State::drop(Entries::iterator entry) {
  if (!entry->touched) --untouched;
  by_name.erase(describe(entry->change));
  entries.erase(entry);
}

void Ledger::State::forget(const Change& change) {
  const auto found = by_name.find(describe(change));
  if (found != by_name.end()) drop(found->second);
  save();
}

// ---- making changes: recorded first

void Ledger::State::set(const std::string& name, const std::string& value) {
  const std::string wanted = normalised(value);
  const std::string found = normalised(read_file(proc_sys / name));
  Entry* held = find(describe(Sysctl{name, {}, {}}));
  if (held != nullptr) touch(*held);
  if (found == wanted) return;
  const bool is_new = held == nullptr;
  if (is_new) held = &remember({Sysctl{name, found, {}}});
  auto& ours = std::get<Sysctl>(held->change).ours;
  ours.push_back(wanted);
  save();
  try {
    write_file(proc_sys / name, value);
  } catch (...) {
    if (is_new) forget(held->change);
    throw;
  }
  const std::string made = normalised(read_file(proc_sys / name));
  if (made == wanted) return;
  ours.push_back(made);  // the kernel rounds and clamps some
  save();
}

/// Recorded already. What was there is not ours.
void Ledger::State::make_or_forget(Entry& entry, const auto& wanted) {
  try {
    if (make(wanted))
      entry.expected = false;
    else
      forget(wanted);
  } catch (...) {
    forget(wanted);
    throw;
  }
}

template <typename Kind>
void Ledger::State::clear_the_way(const Kind& wanted) {
  if (untouched == 0) return;
  give_back([&](const Entry& entry) {
    const Kind* old = std::get_if<Kind>(&entry.change);
    return old != nullptr && !entry.touched && in_the_way(*old, wanted);
  });
}

template <typename Kind>
void Ledger::State::add(const Kind& wanted) {
  if (Entry* held = find(describe(wanted))) {
    touch(*held);
    if (!held->expected) {
      make(wanted);
      return;
    }
    clear_the_way(wanted);
    make_or_forget(*held, wanted);
    return;
  }
  clear_the_way(wanted);
  if (is_there(wanted)) return;
  Entry& entry = remember({wanted});
  save();
  make_or_forget(entry, wanted);
}

void Ledger::State::expect(std::span<const Route> routes) {
  const std::size_t before = entries.size();
  for (const Route& route : routes) {
    if (find(describe(route)) == nullptr)
      remember({.change = route, .touched = true, .expected = true});
  }
  if (entries.size() != before) save();
}

Entry* Ledger::State::find(const std::string& description) {
  const auto found = by_name.find(description);
  return found == by_name.end() ? nullptr : &*found->second;
}

bool Ledger::State::make(const InterfaceAddress& address) {
  const auto link = netlink.find_link(address.link);
  if (!link) throw std::system_error(ENODEV, std::generic_category(), "add " + describe(address));
  return netlink.add_address(link->index, address.prefix);
}

bool Ledger::State::is_there(const InterfaceAddress& address) {
  const auto link = netlink.find_link(address.link);
  return link && std::ranges::any_of(netlink.addresses(), [&](const LinkAddress& there) {
           return there.ifindex == link->index && there.prefix == address.prefix;
         });
}

// ---- giving back: then forgotten

/// Only where our value still stands; a value that somebody else has set since is theirs.
void Ledger::State::revert(const Sysctl& sysctl) {
  const std::filesystem::path path = proc_sys / sysctl.name;
  if (!std::filesystem::exists(path)) return;  // gone with its interface
  const std::string found = normalised(read_file(path));
  if (std::ranges::find(sysctl.ours, found) != sysctl.ours.end()) write_file(path, sysctl.original);
}

void Ledger::State::revert(const InterfaceAddress& address) {
  if (const auto link = netlink.find_link(address.link))
    netlink.remove_address(link->index, address.prefix);
}

/// The entries for which `wanted` says yes, the latest first. Goes on after an error, and throws
/// the first at the end.
template <typename Wanted>
void Ledger::State::give_back(Wanted&& wanted) {
  std::exception_ptr first;
  std::size_t unsaved = 0;
  const auto save_now = [&] {
    save();
    unsaved = 0;
  };
  const auto attempt = [&](const auto& step) {
    try {
      step();
      return true;
    } catch (const std::exception& error) {
      if (first)
        spdlog::warn("{}", error.what());
      else
        first = std::current_exception();
      return false;
    }
  };
  for (auto next = entries.end(); next != entries.begin();) {
    const auto entry = std::prev(next);
    const auto revert_it = [&] {
      if (!entry->expected)  // else there is nothing of ours
        std::visit([&](const auto& change) { revert(change); }, entry->change);
    };
    if (!wanted(*entry) || !attempt(revert_it)) {
      next = entry;
      continue;
    }
    drop(entry);
    if (++unsaved == kGivenBackUnsaved) attempt(save_now);
  }
  if (unsaved > 0) attempt(save_now);
  if (first) std::rethrow_exception(first);
}

// ---- the interface

Ledger::Ledger(std::filesystem::path file, Netlink& netlink, std::filesystem::path proc_sys)
    : state_(
          new State{.file = std::move(file), .netlink = netlink, .proc_sys = std::move(proc_sys)}) {
  std::filesystem::create_directories(std::filesystem::absolute(state_->file).parent_path());
  state_->load();
}

Ledger::~Ledger() = default;

void Ledger::set_sysctl(const std::string& name, const std::string& value) {
  state_->set(with_slashes(name), value);
}

void Ledger::add_route(const Route& route) { state_->add(route); }
void Ledger::expect_routes(std::span<const Route> routes) { state_->expect(routes); }
void Ledger::add_rule(const Rule& rule) { state_->add(rule); }
void Ledger::add_address(const std::string& link, const Prefix& prefix) {
  state_->add(InterfaceAddress{link, prefix});
}

void Ledger::remove_route(const Route& route) {
  if (state_->find(describe(route)) == nullptr) return;
  state_->revert(route);
  state_->forget(route);
}

void Ledger::begin_adoption() {
  for (Entry& entry : state_->entries) entry.touched = false;
  state_->untouched = state_->entries.size();
}

void Ledger::finish_adoption() {
  state_->give_back([](const Entry& entry) { return !entry.touched; });
}

void Ledger::undo() {
  state_->give_back([](const Entry&) { return true; });
}

std::string read_sysctl(const std::string& name) {
  return normalised(read_file("/proc/sys/" + with_slashes(name)));
}

}  // namespace tcpmig::sys
