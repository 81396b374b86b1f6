// SPDX-License-Identifier: MIT
#include <string>
#include <vector>

#include "catch.hpp"
#include "http/request_head.hpp"

using tcpmig::http::HeadReader;
using tcpmig::http::Progress;

namespace {

constexpr std::size_t kLimit = 65536;

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

Progress feed_whole(const std::string& text, std::size_t limit = kLimit) {
  HeadReader reader(limit);
  return reader.feed(bytes(text));
}

/// One byte more each time, as a slow client sends it.
Progress feed_slowly(HeadReader& reader, const std::string& text) {
  Progress progress = Progress::kMore;
  for (std::size_t length = 1; length <= text.size() && progress == Progress::kMore; ++length)
    progress = reader.feed(bytes(text).first(length));
  return progress;
}

}  // namespace

TEST_CASE("http: a request head is read whole and byte by byte") {
  const std::string request =
      "GET /a/b?c=d HTTP/1.1\r\nHost: Example.org:8080\r\nX-Thing:  value \r\n\r\nGET /next "
      "HTTP/1.1\r\n";
  HeadReader whole(kLimit);
  REQUIRE(whole.feed(bytes(request)) == Progress::kComplete);
  HeadReader slow(kLimit);
  REQUIRE(feed_slowly(slow, request) == Progress::kComplete);
  for (const HeadReader* reader : {&whole, &slow}) {
    const auto& head = reader->head();
    CHECK(head.method == "GET");
    CHECK(head.target == "/a/b?c=d");
    CHECK(head.path == "/a/b");
    CHECK(head.host == "example.org");
    CHECK(head.version == 11);
    REQUIRE(head.field("x-thing") != nullptr);
    CHECK(*head.field("X-THING") == "value");
    CHECK(head.is_idempotent());
    CHECK(reader->head_length() == request.find("\r\n\r\n") + 4);
  }
}

TEST_CASE("http: targets of every form") {
  const auto head = [](const std::string& text) {
    HeadReader reader(kLimit);
    REQUIRE(reader.feed(bytes(text)) == Progress::kComplete);
    return reader.head();
  };
  CHECK(head("GET http://[2001:db8::1]:80/x?y HTTP/1.1\r\nHost: other\r\n\r\n").host ==
        "[2001:db8::1]");
  CHECK(head("GET http://a.example HTTP/1.1\r\nHost: other\r\n\r\n").path == "/");
  CHECK(head("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n").path.empty());
  CHECK(head("GET a?u=http://b/ HTTP/1.1\r\nHost: c\r\n\r\n").host == "c");
  CHECK(head("GET HTTP://b/x HTTP/1.1\r\nHost: c\r\n\r\n").host == "b");
  CHECK(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path == "*");
  CHECK(head("GET / HTTP/1.0\r\n\r\n").host.empty());
  CHECK_FALSE(
      head("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n").is_idempotent());
  CHECK_FALSE(head("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n").is_idempotent());
}

TEST_CASE("http: what two parsers could read differently is refused") {
  const std::vector<std::string> bad{
      "GET / HTTP/1.1\r\n\r\n",  // no Host
      "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a/../b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
      "GET http://a,b/ HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",                            // two
      "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",                         // folded line
      "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",         // TE on 1.0
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",       //
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",  //
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",  // CL.TE
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",                    // list
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",  // differing
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",  // repeated
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",                      //
      "GET / HTTP/1.1\nHost: a\n\n",                                                   // bare LF
      "GET / HTTP/2.0\r\nHost: a\r\n\r\n",                                             //
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",                                              // h2 preface
      "GET / HTTP/1.1\r\nHost : a\r\n\r\n",                     // space before colon
      "GET /\r\nHost: a\r\n\r\n",                               // HTTP/0.9
      std::string("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 27),  // NUL
  };
  for (const std::string& text : bad) {
    INFO(text);
    CHECK(feed_whole(text) == Progress::kBad);
    HeadReader slow(kLimit);
    CHECK(feed_slowly(slow, text) == Progress::kBad);
  }
}

TEST_CASE("http: garbage is refused at its first bytes") {
  CHECK(feed_whole(std::string("\x16\x03\x01\x02\x00\x01\x00", 7)) == Progress::kBad);  // TLS hello
  CHECK(feed_whole("\r\n\r\n") == Progress::kBad);
  CHECK(feed_whole("{\"json\": 1}") == Progress::kBad);
  CHECK(feed_whole(std::string("\xff\xfe\xfd", 3)) == Progress::kBad);
}

TEST_CASE("http: large heads") {
  const auto request = [](std::size_t filler) {
    return "GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(filler, 'x') + "\r\n\r\n";
  };
  CHECK(feed_whole(request(60'000)) == Progress::kComplete);
  CHECK(feed_whole(request(70'000)) == Progress::kTooLarge);
  HeadReader slow(kLimit);
  CHECK(feed_slowly(slow, request(60'000)) == Progress::kComplete);
  HeadReader endless(kLimit);
  CHECK(feed_slowly(endless, request(70'000)) == Progress::kTooLarge);
  CHECK(feed_whole("GET /" + std::string(70'000, 'a')) == Progress::kTooLarge);
  HeadReader roomy(4 * kLimit);  // the library takes no value above 64 KB
  CHECK(roomy.feed(bytes(request(70'000))) == Progress::kTooLarge);
}
