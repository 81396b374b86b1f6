// SPDX-License-Identifier: MIT
#include "http/request_head.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <stdexcept>
#include <string_view>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

namespace tcpmig::http {
namespace beast = boost::beast::http;
namespace {

using Parser = beast::request_parser<beast::empty_body>;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

bool equal(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

/// Control characters other than those of line ends and tabs never stand in a head: a TLS hello ends here.
bool is_control(unsigned char c) {
  return (c < 0x20 && c != '\r' && c != '\n' && c != '\t') || c == 0x7f;
}

std::string host_of(std::string_view authority) {
  if (const auto at = authority.rfind('@'); at != authority.npos) authority.remove_prefix(at + 1);
  std::size_t end = authority.size();
  if (authority.starts_with('[')) {
    end = std::min(authority.find(']'), authority.size() - 1) + 1;
  } else if (const auto colon = authority.find(':'); colon != authority.npos) {
    end = colon;
  }
  std::string host(authority.substr(0, end));
  std::ranges::transform(host, host.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return host;
}

/// RFC 3986, 3.2: what never stands in a host and its port.
bool is_authority(std::string_view text) {
  return std::ranges::none_of(text, [](unsigned char c) {
    return c <= 0x20 || c >= 0x7f ||
           std::string_view("/?#@,\\\"<>^`{|}").find(static_cast<char>(c)) !=
               std::string_view::npos;
  });
}

/// Length of "http://" or "https://" at the start; 0: it is no absolute-form (RFC 9112, 3.2.2).
std::size_t scheme_length(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (equal(target.substr(0, scheme.size()), scheme)) return scheme.size();
  return 0;
}

/// The authority of an absolute-form target.
std::string_view authority_of(std::string_view target) {
  const std::size_t scheme = scheme_length(target);
  target.remove_prefix(scheme);
  return scheme == 0 ? std::string_view() : target.substr(0, target.find_first_of("/?"));
}

/// RFC 9112, 3.2: origin-form, absolute-form, authority-form (CONNECT), asterisk-form.
void split_target(RequestHead& head) {
  std::string_view target = head.target;
  if (head.method == "CONNECT") {
    head.host = host_of(target);
    return;
  }
  if (const std::size_t scheme = scheme_length(target); scheme != 0) {
    target.remove_prefix(scheme);
    const auto slash = std::min(target.find_first_of("/?"), target.size());
    head.host = host_of(target.substr(0, slash));
    target.remove_prefix(slash);
    if (!target.starts_with('/')) target = "/";
  } else if (const std::string* field = head.field("host")) {
    head.host = host_of(*field);
  }
  head.path = target.substr(0, target.find('?'));
}

RequestHead take_head(const Parser& parser) {
  RequestHead head;
  const auto& message = parser.get();
  head.method = view(message.method_string());
  head.target = view(message.target());
  head.version = message.version();
  for (const auto& field : message)
    head.fields.emplace_back(view(field.name_string()), view(field.value()));
  split_target(head);
  return head;
}

/// What the library accepts and we refuse; empty: nothing.
std::string refuse(const RequestHead& head) {
  unsigned hosts = 0;
  unsigned lengths = 0;
  unsigned encodings = 0;
  for (const auto& [name, value] : head.fields) {
    if (equal(name, "host")) {
      ++hosts;
      if (!is_authority(value)) return "Host is not a name or an address";
    }
    if (equal(name, "content-length")) {
      ++lengths;
      if (value.empty() ||
          !std::ranges::all_of(value, [](unsigned char c) { return std::isdigit(c) != 0; }))
        return "Content-Length is not one number";
    }
    if (equal(name, "transfer-encoding")) {
      ++encodings;
      if (!equal(value, "chunked")) return "Transfer-Encoding is not exactly \"chunked\"";
    }
  }
  if (!is_authority(authority_of(head.target)))
    return "the target's host is not a name or an address";
  if (head.version != 10 && head.version != 11) return "neither HTTP/1.0 nor HTTP/1.1";
  if (head.version == 11 && hosts != 1) return "not exactly one Host field";
  if (hosts > 1) return "more than one Host field";
  if (lengths > 1) return "more than one Content-Length";
  if (encodings > 1) return "more than one Transfer-Encoding";
  if (encodings == 1 && head.version == 10) return "Transfer-Encoding on HTTP/1.0";
  if (encodings == 1 && lengths == 1) return "both Transfer-Encoding and Content-Length";
  return {};
}

}  // namespace

bool RequestHead::is_idempotent() const {
  static constexpr std::array kIdempotent{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
  return std::ranges::find(kIdempotent, method) != kIdempotent.end();
}

const std::string* RequestHead::field(std::string_view name) const {
  const auto found =
      std::ranges::find_if(fields, [&](const auto& field) { return equal(field.first, name); });
  return found == fields.end() ? nullptr : &found->second;
}

struct HeadReader::State {
  explicit State(std::size_t bytes) : limit(bytes) {
    parser.header_limit(static_cast<std::uint32_t>(bytes));
    parser.body_limit(boost::none);
    parser.eager(false);
  }
  Progress bad(std::string why) {
    error = std::move(why);
    return Progress::kBad;
  }
  /// The new bytes, before the library sees them.
  bool looks_like_http(std::span<const std::byte> all) {
    for (; checked < all.size() && !blank_line; ++checked) {
      const auto c = std::to_integer<unsigned char>(all[checked]);
      if (is_control(c)) return error = "a control character in the head", false;
      if (line_start && checked > 0 && (c == ' ' || c == '\t'))
        return error = "a folded line", false;
      if (first_word && c != ' ' && !std::isalpha(c) && c != '-' && c != '_')
        return error = "no method at the start", false;
      if (c == ' ') first_word = false;
      if (c == '\n' && previous == '\n') blank_line = true;
      line_start = c == '\n';
      if (c != '\r') previous = c;
    }
    return true;
  }

  std::size_t limit;
  Parser parser;
  RequestHead head;
  std::string error;
  std::size_t parsed = 0;   ///< bytes the library has taken
  std::size_t checked = 0;  ///< bytes looks_like_http() has seen
  bool first_word = true;
  bool line_start = false;
  bool blank_line = false;
  unsigned char previous = 0;
};

HeadReader::HeadReader(std::size_t limit) : state_(std::make_unique<State>(limit)) {}
HeadReader::~HeadReader() = default;
HeadReader::HeadReader(HeadReader&&) noexcept = default;
HeadReader& HeadReader::operator=(HeadReader&&) noexcept = default;

Progress HeadReader::feed(std::span<const std::byte> all) {
  State& s = *state_;
  if (!s.looks_like_http(all)) return Progress::kBad;
  boost::system::error_code error;
  const auto fresh = all.subspan(s.parsed);
  try {
    s.parsed += s.parser.put(boost::asio::const_buffer(fresh.data(), fresh.size()), error);
  } catch (const std::length_error&) {  // a name or a value of 64 KB
    return Progress::kTooLarge;
  }
  if (error == beast::error::need_more) {
    if (all.size() >= s.limit) return Progress::kTooLarge;
    return s.blank_line ? s.bad("a line does not end with CR LF") : Progress::kMore;
  }
  if (error == beast::error::header_limit) return Progress::kTooLarge;
  if (error) return s.bad(error.message());
  if (!s.parser.is_header_done()) return Progress::kMore;
  s.head = take_head(s.parser);
  if (std::string why = refuse(s.head); !why.empty()) return s.bad(std::move(why));
  return Progress::kComplete;
}

const RequestHead& HeadReader::head() const noexcept { return state_->head; }
std::size_t HeadReader::head_length() const noexcept { return state_->parsed; }
const std::string& HeadReader::error() const noexcept { return state_->error; }

}  // namespace tcpmig::http
