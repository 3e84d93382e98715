// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/poisoning.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mcs::http {
namespace {

using List = std::vector<FieldView>;

// RFC 9112 6.3, RFC 9110 8.6
TEST(ResponseMessage, HasOneFraming) {
  constexpr std::uint64_t kNone = ~std::uint64_t{0};
  const struct {
    List fields;
    MessageFlaw flaw;
    std::uint64_t length;
  } cases[] = {
      {{}, MessageFlaw::kNone, kNone},
      {{{"Content-Length", "5"}}, MessageFlaw::kNone, 5},
      {{{"content-length", " 5 "}, {"Content-Length", "5"}}, MessageFlaw::kNone, 5},
      {{{"Content-Length", "5, 5"}}, MessageFlaw::kNone, 5},
      {{{"Content-Length", "5, 6"}}, MessageFlaw::kConflictingLength, kNone},
      {{{"Content-Length", "5"}, {"Content-Length", "6"}}, MessageFlaw::kConflictingLength, kNone},
      {{{"Content-Length", ""}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Content-Length", "-5"}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Content-Length", "+5"}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Content-Length", "0x5"}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Content-Length", "5 5"}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Content-Length", "99999999999999999999"}}, MessageFlaw::kInvalidLength, kNone},
      {{{"Transfer-Encoding", "chunked"}}, MessageFlaw::kNone, kNone},
      {{{"Transfer-Encoding", "Chunked"}}, MessageFlaw::kNone, kNone},
      {{{"Transfer-Encoding", "chunked"}, {"Content-Length", "5"}},
       MessageFlaw::kLengthAndEncoding,
       kNone},
      {{{"Transfer-Encoding", "xchunked"}}, MessageFlaw::kTransferEncoding, kNone},
      {{{"Transfer-Encoding", "\"chunked\""}}, MessageFlaw::kTransferEncoding, kNone},
      {{{"Transfer-Encoding",
         "\x0b"
         "chunked"}},
       MessageFlaw::kTransferEncoding,
       kNone},
      {{{"Transfer-Encoding", "chunked, identity"}}, MessageFlaw::kTransferEncoding, kNone},
      {{{"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}},
       MessageFlaw::kTransferEncoding,
       kNone},
      {{{"Transfer-Encoding", "gzip, chunked"}}, MessageFlaw::kUndecodedCoding, kNone},
      {{{"Transfer-Encoding", "x-compress"}}, MessageFlaw::kUndecodedCoding, kNone},
      {{{"Transfer-Encoding", "foobar"}}, MessageFlaw::kNone, kNone},
      {{{"A b", "1"}}, MessageFlaw::kInvalidField, kNone},
      {{{"", "1"}}, MessageFlaw::kInvalidField, kNone},
      {{{"A", "1\r\nB: 2"}}, MessageFlaw::kInvalidField, kNone},
      {{{"A", {"1\0", 2}}}, MessageFlaw::kInvalidField, kNone},
  };
  for (const auto& c : cases) {
    std::uint64_t length = kNone;
    const std::string value(c.fields.empty() ? "" : c.fields[0].value);
    EXPECT_EQ(check_response_message(c.fields, length), c.flaw) << value;
    EXPECT_EQ(length, c.length) << value;
  }
}

TEST(RequestMessage, DependsOnNothingThatNoKeyContains) {
  const struct {
    Method method;
    List fields;
    MessageFlaw flaw;
  } cases[] = {
      {Method::kGet, {{"Host", "h"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"Host", "h"}}, MessageFlaw::kSeveralHosts},
      {Method::kGet, {{"Host", "h"}, {"Content-Length", "0"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"Content-Length", "3"}}, MessageFlaw::kBodyInGet},
      {Method::kHead, {{"Host", "h"}, {"Transfer-Encoding", "chunked"}}, MessageFlaw::kBodyInGet},
      {Method::kPost, {{"Host", "h"}, {"Content-Length", "3"}}, MessageFlaw::kNone},
      {Method::kPost,
       {{"Host", "h"}, {"Content-Length", "3"}, {"Transfer-Encoding", "chunked"}},
       MessageFlaw::kLengthAndEncoding},
      {Method::kGet,
       {{"Host", "h"}, {"X-HTTP-Method-Override", "PUT"}},
       MessageFlaw::kMethodOverride},
      {Method::kGet, {{"Host", "h"}, {"x-method-override", "x"}}, MessageFlaw::kMethodOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Original-URL", "/admin"}}, MessageFlaw::kTargetOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Rewrite-Url", "/admin"}}, MessageFlaw::kTargetOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Host", "evil"}}, MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Host", "h, evil"}}, MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h:81"}, {"X-Forwarded-Host", "H:80"}}, MessageFlaw::kNone},
      {Method::kGet, {{"X-Forwarded-Host", "H"}, {"Host", "h"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"Forwarded", "for=1.2.3.4;proto=http"}}, MessageFlaw::kNone},
      {Method::kGet,
       {{"Host", "h"}, {"Forwarded", "for=1.2.3.4; host=evil"}},
       MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h"}, {"Forwarded", "host=\"h:80\", for=x"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-For", "1.2.3.4"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Host", "h:1234"}}, MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h:1234"}, {"X-Forwarded-Host", "h:1234"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "[::1]:81"}, {"X-Forwarded-Host", "[::1]:81"}}, MessageFlaw::kNone},
      {Method::kGet,
       {{"Host", "[::1]"}, {"X-Forwarded-Host", "[::2]"}},
       MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Port", "443"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h:81"}, {"X-Forwarded-Port", "81"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Port", "1234"}}, MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h"}, {"Forwarded", "host=\"h:1234\""}}, MessageFlaw::kHostOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Proto", "https"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Proto", "http"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"A", "1\n2"}}, MessageFlaw::kInvalidField},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Prefix", "/x"}}, MessageFlaw::kTargetOverride},
      {Method::kGet, {{"Host", "h"}, {"x-script-name", "x"}}, MessageFlaw::kTargetOverride},
      {Method::kGet, {{"Host", "h"}, {"X-Forwarded-Prefix", "/"}}, MessageFlaw::kNone},
      {Method::kGet, {{"X-Own", "1"}, {"Connection", "close, x-own"}}, MessageFlaw::kConnectionOption},
      {Method::kGet, {{"X-Own", "1"}, {"Connection", "close"}, {"Connection", "x-own"}},
       MessageFlaw::kConnectionOption},
      {Method::kGet, {{"X-Own", "1"}, {"Connection", "keep-alive, X-Other"}}, MessageFlaw::kNone},
      {Method::kGet, {{"TE", "trailers"}, {"Connection", "te, Keep-Alive"}}, MessageFlaw::kNone},
      {Method::kGet, {{"Host", "h"}, {"Connection", "host, Content-Length"}}, MessageFlaw::kNone},
      {Method::kGet, {{"HTTP2-Settings", "x"}, {"Connection", "HTTP2-Settings"}}, MessageFlaw::kNone},
  };
  for (const auto& c : cases) {
    const std::string last =
        std::string(c.fields.back().name) + ": " + std::string(c.fields.back().value);
    EXPECT_EQ(check_request_message(c.method, c.fields, true), c.flaw) << last;
    const bool is_override = c.flaw == MessageFlaw::kMethodOverride ||
                             c.flaw == MessageFlaw::kTargetOverride ||
                             c.flaw == MessageFlaw::kHostOverride;
    EXPECT_EQ(check_request_message(c.method, c.fields, false),
              is_override ? MessageFlaw::kNone : c.flaw)
        << last;
  }
}

// Links with this port would lead nowhere; a proxy in front may take TLS off, but puts none on.
TEST(RequestMessage, DoesNotNamePort80OverTls) {
  const List cases[] = {{{"Host", "h"}, {"X-Forwarded-Port", "80"}},
                        {{"Host", "h"}, {"X-Forwarded-Host", "h:80"}},
                        {{"Host", "h"}, {"Forwarded", "host=\"h:80\""}}};
  for (const List& fields : cases) {
    EXPECT_EQ(check_request_message(Method::kGet, fields, true, "https"), MessageFlaw::kHostOverride);
    EXPECT_EQ(check_request_message(Method::kGet, fields, true, "http"), MessageFlaw::kNone);
  }
}

TEST(RequestMessage, DoesNotDenyTheTlsItCameOver) {
  const struct {
    List fields;
    bool denies;
  } cases[] = {
      {{{"Host", "h"}, {"X-Forwarded-Proto", "https"}}, false},
      {{{"Host", "h"}, {"X-Forwarded-Proto", "http"}}, true},
      {{{"Host", "h"}, {"x-forwarded-proto", "https, HTTP"}}, true},
      {{{"Host", "h"}, {"X-Forwarded-Scheme", "http"}}, true},
      {{{"Host", "h"}, {"X-Forwarded-Scheme", "ws"}}, true},
      {{{"Host", "h"}, {"X-Url-Scheme", "http"}}, true},
      {{{"Host", "h"}, {"X-Forwarded-Ssl", "off"}}, true},
      {{{"Host", "h"}, {"X-Forwarded-Ssl", "on"}}, false},
      {{{"Host", "h"}, {"Forwarded", "for=x;proto=http"}}, true},
      {{{"Host", "h"}, {"Forwarded", "for=x;proto=https"}}, false},
      {{{"Host", "h"}, {"Forwarded", "for=x;proto=x"}}, true},
  };
  for (const auto& c : cases) {
    const std::string last(c.fields.back().value);
    EXPECT_EQ(check_request_message(Method::kGet, c.fields, true, "https"),
              c.denies ? MessageFlaw::kSchemeOverride : MessageFlaw::kNone)
        << last;
    EXPECT_EQ(check_request_message(Method::kGet, c.fields, true, "http"), MessageFlaw::kNone)
        << last;
    EXPECT_EQ(check_request_message(Method::kGet, c.fields, false, "https"), MessageFlaw::kNone)
        << last;
  }
}

TEST(RequestMessage, HasTheHostThatItsKeyHas) {
  const struct {
    const char* host;
    const char* authority;
    bool other;
  } cases[] = {{"site", "site", false},           {"SITE", "site", false},
               {"site:8080", "site:8080", false}, {"site", "site:8080", false},
               {"evil", "site", true},            {"site:81", "site", true},
               {"evil", "", false}};
  for (const auto& c : cases) {
    const List fields = {{"Host", c.host}};
    EXPECT_EQ(check_request_message(Method::kGet, fields, false, "http", c.authority),
              c.other ? MessageFlaw::kHostOverride : MessageFlaw::kNone)
        << c.host << ' ' << c.authority;
  }
}

TEST(MessageFlaw, HasAName) {
  for (int flaw = 1; flaw <= static_cast<int>(MessageFlaw::kSchemeOverride); ++flaw) {
    EXPECT_FALSE(describe(static_cast<MessageFlaw>(flaw)).empty()) << flaw;
  }
}

}  // namespace
}  // namespace mcs::http
