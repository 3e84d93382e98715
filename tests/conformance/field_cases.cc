// SPDX-License-Identifier: Apache-2.0
// RFC 9111 3.1: which fields are stored and sent again; RFC 9110 7.6 and 15.2: what is not.
#include "tests/conformance/case.h"

namespace mcs::conformance {

Cases field_cases() {
  const std::string fresh = "Cache-Control: max-age=3600";
  Cases cases;
  for (const std::string field :
       {"Content-Language: de", "Content-Encoding: x-own", "Content-Disposition: inline",
        "Link: </a>", "X-Own: some value", "Strict-Transport-Security: max-age=1",
        "Content-Security-Policy: a 'b'", "Access-Control-Allow-Origin: *", "ETag: \"a\"",
        "P3P: CP=\"x\"", "Allow: GET, HEAD", "Alt-Svc: clear", "Pragma: x", "Retry-After: 7",
        "Via: 1.1 before"}) {
    const std::string name = field.substr(0, field.find(':'));
    cases.push_back(
        {"RFC9111_3_1_" + name + "IsStored", {fill({fresh, field}), hit().having({field})}});
  }
  for (const std::string field :
       {"Keep-Alive: timeout=77", "Proxy-Authenticate: Basic", "Proxy-Connection: keep-alive",
        "TE: trailers", "Trailer: X-End", "Upgrade: h2c", "Proxy-Authentication-Info: x=1"}) {
    const std::string name = field.substr(0, field.find(':'));
    // Both servers may send fields of these names for themselves, but not these values.
    const bool own = name == "Keep-Alive" || name == "Upgrade";
    const std::vector<std::string> lost = own ? std::vector<std::string>() : std::vector{name};
    cases.push_back({"RFC9111_3_1_" + name + "IsNotStored",
                     {fill({fresh, field}).lacking(lost), hit().lacking(lost)}});
  }
  for (const std::string cache_control : {"max-age=3600", "no-store"}) {
    cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesIsNotPassedOnWith" +
                         cache_control.substr(0, 3),
                     {fill({"Cache-Control: " + cache_control, "Connection: X-Hop, keep-alive",
                            "X-Hop: 1", "X-End: 2", "Last-Modified: @-60", "Set-Cookie: a=b"})
                          .lacking({"X-Hop"})
                          .having({"X-End: 2", "Last-Modified: *", "Set-Cookie: a=b",
                                   "Cache-Control: " + cache_control})}});
  }
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesForALargeBody",
                   {fill({fresh, "Connection: X-Hop", "X-Hop: 1"})
                        .origin_sends(std::string(300'000, 'l'))
                        .lacking({"X-Hop"})
                        .having({"Content-Length: 300000"}),
                    hit()}});
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesInChunks",
                   {fill({fresh, "Connection: X-Hop", "X-Hop: 1"}).in_chunks().lacking({"X-Hop"}),
                    hit()}});
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesForHead",
                   {does("HEAD", {fresh, "Connection: X-Hop", "X-Hop: 1", "X-End: 2"})
                        .lacking({"X-Hop"})
                        .having({"X-End: 2", "Content-Length: 14"})}});
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesOfAnError",
                   {fill().answered(404, {"Connection: X-Hop", "X-Hop: 1", "X-End: 2"})
                        .lacking({"X-Hop"})
                        .having({"X-End: 2"})}});
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesIsNotStored",
                   {fill({fresh, "Connection: X-Hop", "X-Hop: 1", "X-End: 2"}),
                    hit().having({"X-End: 2"}).lacking({"X-Hop"})}});
  cases.push_back({"RFC9110_7_6_1_WhatConnectionNamesInAListIsNotStored",
                   {fill({fresh, "Connection: a, x-HOP ,b", "X-Hop: 1", "X-End: 2"}),
                    hit().having({"X-End: 2"}).lacking({"X-Hop"})}});
  cases.push_back({"RFC9110_7_6_1_WhatSeveralConnectionLinesName",
                   {fill({fresh, "Connection: X-A", "Connection: X-B", "X-A: 1", "X-B: 2"}),
                    hit().lacking({"X-A", "X-B"})}});
  cases.push_back(
      {"RFC9110_7_6_1_RequestFieldsThatConnectionNames",
       {fill({fresh}).with({"Connection: X-Hop", "X-Own: 2"}).reaching({"X-Own: 2"}), hit()}});
  cases.push_back(
      {"RFC9111_3_1_LinesOfOneName",
       {fill({fresh, "X-Own: 1", "X-Own: 2", "X-Own: 3"}), hit().having({"X-Own: 1, 2, 3"})}});
  cases.push_back({"RFC9111_3_1_EmptyValue",
                   {fill({fresh, "X-Before: 1", "X-Empty:", "X-After: 2"}),
                    hit().having({"X-Before: 1", "X-After: 2"})}});
  cases.push_back({"RFC9111_3_1_LongValue",
                   {fill({fresh, "X-Long: " + std::string(3000, 'v')}),
                    hit().having({"X-Long: " + std::string(3000, 'v')})}});
  cases.push_back({"RFC9110_5_5_BytesAboveAscii",
                   {fill({fresh, "X-Latin: gr\xfc\xdf"}), hit().having({"X-Latin: gr\xfc\xdf"})}});
  Fields many = {fresh};
  for (int i = 0; i < 50; ++i) many.push_back("X-" + std::to_string(i) + ": " + std::to_string(i));
  cases.push_back({"RFC9111_3_1_FiftyFields", {fill(many), hit().having(many)}});
  Fields asking = {"Accept: x/y"};
  for (int i = 0; i < 80; ++i) asking.push_back("X-" + std::to_string(i) + ": " + std::to_string(i));
  cases.push_back(
      {"RFC9110_5_4_EightyRequestFields", {fill({fresh}).with(asking).reaching(asking), hit().with(asking)}});
  cases.push_back({"RFC9111_3_1_NamesInOtherCase",
                   {fill({"cache-CONTROL: max-age=3600", "x-own: 1", "etag: \"a\""}),
                    hit().having({"X-Own: 1", "ETag: \"a\""})}});
  cases.push_back(
      {"RFC9110_8_6_ContentLengthOfAHit",
       {fill({fresh}).in_chunks().origin_sends("12345"), hit().having({"Content-Length: 5"}),
        head_hit().having({"Content-Length: 5"})}});
  cases.push_back({"RFC9110_8_6_204HasNoContentLength",
                   {fill().answered(204, {fresh}), hit().gives(204).lacking({"Content-Length"})}});
  cases.push_back({"RFC9111_7_3_SetCookieWithFreshnessIsStored",
                   {fill({fresh, "Set-Cookie: a=b"}), hit().having({"Set-Cookie: a=b"})}});
  cases.push_back({"RFC9111_7_3_SeveralSetCookies",
                   {fill({fresh, "Set-Cookie: a=b", "Set-Cookie: c=d"}),
                    hit().having({"Set-Cookie: a=b, c=d"})}});
  cases.push_back({"RFC9111_7_3_SetCookieWithHeuristicsIsNotStored",
                   {fill({"Last-Modified: @-864000", "Set-Cookie: a=b"}),
                    miss({"Last-Modified: @-864000", "Set-Cookie: a=b"})}});
  cases.push_back(
      {"RFC9111_7_3_SetCookieKeptBackByName",
       {fill({"Cache-Control: max-age=3600, no-cache=\"Set-Cookie\"", "Set-Cookie: a=b"})
            .having({"Set-Cookie: a=b"}),
        hit().lacking({"Set-Cookie"})}});
  cases.push_back({"RFC9111_7_3_SetCookieWithPublicHeuristics",
                   {fill({"Last-Modified: @-864000", "Set-Cookie: a=b", "Cache-Control: public"}),
                    hit().having({"Set-Cookie: a=b"})}});
  cases.push_back({"RFC9110_15_4_RedirectsAreStoredWithTheirLocation",
                   {fill().answered(301, {fresh, "Location: http://elsewhere.test/x"}),
                    hit().having({"Location: http://elsewhere.test/x"})}});
  cases.push_back({"RFC9110_15_5_2_401IsStoredWithItsChallenge",
                   {fill().answered(401, {fresh, "WWW-Authenticate: Basic realm=\"x\""}),
                    hit().having({"WWW-Authenticate: Basic realm=\"x\""}).with_any_body()}});
  cases.push_back({"RFC9111_4_HitsThroughTheOtherServer",
                   {fill({fresh, "X-Own: 1", "ETag: \"a\""}),
                    hit().on_the_other().having({"X-Own: 1", "ETag: \"a\""}),
                    hit().on_the_other().with({"If-None-Match: \"a\""}).gives(304),
                    hit().on_the_other().with({"Range: bytes=0-3"}).gives(206, "body")}});
  cases.push_back(
      {"RFC9111_4_LargeHitThroughTheOtherServer",
       {fill({fresh}).origin_sends(std::string(700'000, 'o')), hit().on_the_other(), hit()}});
  cases.push_back({"RFC9111_4_3_ValidatedThroughTheOtherServer",
                   {fill({"Cache-Control: max-age=10", "Age: 20", "ETag: \"a\""}),
                    checked({fresh, "ETag: \"a\""}).on_the_other().of(1), hit().of(1)}});
  return cases;
}

}  // namespace mcs::conformance
