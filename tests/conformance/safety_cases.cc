// SPDX-License-Identifier: Apache-2.0
// RFC 9112 11 (smuggling), RFC 9111 7.1 (poisoning), and keys: one resource has one key in both
// servers, two resources never share one.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

const Fields kFresh = {"Cache-Control: max-age=3600"};
const std::string kEnd = "Connection: close\r\n\r\n";

// What may break or be refused, but must leave nothing that answers the next request.
Case leaves_nothing(std::string name, Step first) {
  return {std::move(name), {first.or_breaks(), miss(kFresh), hit()}};
}

void add_messages(Cases& cases) {
  const struct {
    std::string name, head, body;
  } answers[] = {
      {"ConflictingContentLengths", "Content-Length: 4\r\nContent-Length: 8\r\n", "12345678"},
      {"ConflictingContentLengthsInAList", "Content-Length: 4, 8\r\n", "12345678"},
      {"NegativeContentLength", "Content-Length: -4\r\n", "1234"},
      {"ContentLengthOfLetters", "Content-Length: four\r\n", "1234"},
      {"ContentLengthWithAPlus", "Content-Length: +4\r\n", "1234"},
      {"HexadecimalContentLength", "Content-Length: 0x4\r\n", "1234"},
      {"BrokenChunkSize", "Transfer-Encoding: chunked\r\n", "zz\r\n1234\r\n0\r\n\r\n"},
  };
  for (const auto& answer : answers) {
    cases.push_back(leaves_nothing(
        "RFC9112_6_3_" + answer.name,
        fill().asking(-1).origin_sends_raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n" +
                                           answer.head + "\r\n" + answer.body)));
  }
  cases.push_back(leaves_nothing(
      "RFC9112_4_NoStatusLine",
      fill().asking(-1).origin_sends_raw("HTTP/1.1 abc\r\nCache-Control: max-age=3600\r\n\r\nx")));
  const struct {
    std::string name, request;
  } requests[] = {
      {"ContentLengthAndChunks",
       "GET {base} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: "
       "chunked\r\n" +
           kEnd + "0\r\n\r\n"},
      {"ConflictingContentLengthsOfARequest",
       "GET {base} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nContent-Length: 5\r\n" + kEnd +
           "12345"},
      {"ChunkedGet", "GET {base} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n" +
                         kEnd + "3\r\nabc\r\n0\r\n\r\n"},
      {"SpaceBeforeTheColon",
       "GET {base} HTTP/1.1\r\nHost: {host}\r\nX-Own : 1\r\nContent-Length : 0\r\n" + kEnd},
      {"LowerCaseMethod", "get {base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd},
      {"TwoHosts", "GET {base} HTTP/1.1\r\nHost: {host}\r\nHost: other.test\r\n" + kEnd},
      {"EmptyHost", "GET {base} HTTP/1.1\r\nHost:\r\n" + kEnd},
      {"HostWithASlash", "GET {base} HTTP/1.1\r\nHost: {host}/x\r\n" + kEnd},
      {"HostWithUserInfo", "GET {base} HTTP/1.1\r\nHost: me@{host}\r\n" + kEnd},
      {"NoHost", "GET {base} HTTP/1.1\r\n" + kEnd},
      {"HugeField", "GET {base} HTTP/1.1\r\nHost: {host}\r\nX-Big: " + std::string(40'000, 'b') +
                        "\r\n" + kEnd},
      {"HugeTarget", "GET {base}" + std::string(40'000, 't') + " HTTP/1.1\r\nHost: {host}\r\n" + kEnd},
  };
  for (const auto& request : requests) {
    cases.push_back(
        leaves_nothing("RFC9112_3_" + request.name, raw(request.request).answered(kFresh)));
  }
}

// What follows the length that was announced, or a body in chunks, is part of nothing.
void add_ends(Cases& cases) {
  const std::string head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n";
  cases.push_back({"RFC9112_6_3_BytesBehindTheBodyAreNotStored",
                   {fill()
                        .origin_sends_raw(head + "Content-Length: 4\r\n\r\n1234" + head +
                                          "Content-Length: 4\r\n\r\nevil")
                        .gives("1234"),
                    hit().gives("1234").having({"Content-Length: 4"}),
                    miss(kFresh).at("?x")}});
  cases.push_back({"RFC9110_6_5_TrailersAreNotStored",
                   {fill()
                        .origin_sends_raw(head + "Trailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n"
                                                 "4\r\n1234\r\n0\r\nX-End: 1\r\nSet-Cookie: a=b\r\n"
                                                 "Cache-Control: no-store\r\n\r\n")
                        .gives("1234"),
                    hit().gives("1234").lacking({"X-End", "Set-Cookie", "Trailer"})}});
  cases.push_back({"RFC9112_7_1_1_ChunkExtensionsAreNotStored",
                   {fill()
                        .origin_sends_raw(head + "Transfer-Encoding: chunked\r\n\r\n"
                                                 "2;a=b\r\n12\r\n2;c=\"d\"\r\n34\r\n0;e\r\n\r\n")
                        .gives("1234"),
                    hit().gives("1234").having({"Content-Length: 4"})}});
}

// A request with content may ask to be told first whether it is wanted (RFC 9110 10.1.1).
void add_expectations(Cases& cases) {
  const Fields expects = {"Expect: 100-continue"};
  cases.push_back({"RFC9110_10_1_1_ExpectOfARequestWithContent",
                   {fill(kFresh), does("POST").sending("abc").with(expects), miss(kFresh), hit()}});
  cases.push_back({"RFC9110_10_1_1_ExpectOfARequestWithout",
                   {fill(kFresh).with(expects), hit(), hit().with(expects)}});
}

void add_unkeyed(Cases& cases) {
  for (const std::string field :
       {"X-Forwarded-Host: evil.test", "X-Host: evil.test", "X-Forwarded-Server: evil.test",
        "X-Original-Host: evil.test", "X-HTTP-Host-Override: evil.test",
        "Forwarded: for=1.2.3.4;host=evil.test", "X-Original-URL: /admin", "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: POST", "X-HTTP-Method: DELETE", "X-Method-Override: PUT",
        "X-Forwarded-Port: 1234", "X-Forwarded-Prefix: /evil", "X-Script-Name: /evil"}) {
    const std::string title = field.substr(0, field.find(':'));
    cases.push_back({"RFC9111_7_1_" + title + "PoisonsNothing",
                     {fill(kFresh).with({field}), miss(kFresh), hit().of(2)}});
    cases.push_back(
        {"RFC9111_7_1_" + title + "GetsWhatIsStored", {fill(kFresh), hit().with({field})}});
  }
  cases.push_back({"RFC9111_7_1_XForwardedHostOfTheSameHost",
                   {fill(kFresh).with({"X-Forwarded-Host: {host}"}), hit()}});
  cases.push_back({"RFC9111_7_1_XForwardedHostWithAStrangePortPoisonsNothing",
                   {fill(kFresh).with({"X-Forwarded-Host: {host}:1234"}), miss(kFresh), hit()}});
  cases.push_back({"RFC9111_7_1_XForwardedProtoOfAProxyInFront",
                   {fill(kFresh).with({"X-Forwarded-Proto: https", "X-Forwarded-Port: 443"}),
                    hit()}});
  // One server takes away what Connection names, another may not: the answer is nobody else's.
  for (const std::string named : {"X-Own", "Accept-Language", "Cookie"}) {
    const Fields vary = {"Cache-Control: public, max-age=3600", "Vary: " + named};
    const Fields asks = {"Connection: close, " + named, named + ": a"};
    cases.push_back({"RFC9110_7_6_1_ConnectionNames" + named + "PoisonsNothing",
                     {fill(vary).with(asks).hiding({named}), miss(vary).with({named + ": a"}),
                      hit().with({named + ": a"}).of(2)}});
    cases.push_back({"RFC9110_7_6_1_ConnectionNames" + named + "GetsWhatIsStored",
                     {fill(vary).with({named + ": a"}), hit().with(asks).of(1)}});
  }
  cases.push_back({"RFC9110_7_6_1_ConnectionNamesWhatIsNotThere",
                   {fill(kFresh).with({"Connection: close, X-Own"}), hit()}});
  cases.push_back({"RFC9111_7_1_ForwardedWithoutHost",
                   {fill(kFresh).with({"Forwarded: for=1.2.3.4;proto=http"}), hit()}});
  cases.push_back({"RFC9111_7_1_ContentOfAGetIsNotPartOfTheKey",
                   {fill(kFresh).sending("evil"), miss(kFresh), hit().of(2)}});
  cases.push_back({"RFC9111_7_1_AGetWithContentGetsNothingStored",
                   {fill(kFresh), miss(kFresh).sending("query"), hit().of(1)}});
}

void add_hosts(Cases& cases) {
  const auto host = [](const std::string& name) { return Fields{"Host: " + name}; };
  cases.push_back({"RFC9111_2_HostsAreDifferentSites",
                   {fill(kFresh), miss(kFresh).with(host("other.test")), hit().of(1),
                    hit().with(host("other.test")).of(2)}});
  cases.push_back(
      {"RFC9110_4_2_3_HostInUpperCase", {fill(kFresh), hit().with(host("CACHE.TEST"))}});
  cases.push_back(
      {"RFC9110_4_2_3_HostWithTheDefaultPort", {fill(kFresh), hit().with(host("{host}:80"))}});
  cases.push_back(
      {"RFC9110_4_2_3_HostWithAnotherPort", {fill(kFresh), miss(kFresh).with(host("{host}:81"))}});
  cases.push_back({"RFC3986_3_2_2_HostWithATrailingDot",
                   {fill(kFresh), hit().with(host("{host}.")), hit().with(host("{host}.:80"))}});
  cases.push_back({"RFC3986_3_2_2_HostWithTwoTrailingDots",
                   {raw("GET {base} HTTP/1.1\r\nHost: {host}..\r\n" + kEnd)
                        .answered(kFresh)
                        .or_breaks(),
                    miss(kFresh)}});
  cases.push_back({"RFC9112_3_2_2_AbsoluteForm",
                   {fill(kFresh),
                    raw("GET http://{host}{base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd).asking(0)}});
  cases.push_back({"RFC9112_3_2_2_AbsoluteFormFills",
                   {raw("GET http://{host}{base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd)
                        .asking(1)
                        .answered(kFresh),
                    hit()}});
  // It is the same connection, and so the same origin.
  cases.push_back({"RFC9112_3_2_2_TheSchemeOfTheAbsoluteFormDoesNotCount",
                   {fill(kFresh),
                    raw("GET https://{host}{base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd).asking(0)}});
  cases.push_back(
      {"RFC9112_3_2_2_AbsoluteFormInUpperCase",
       {fill(kFresh),
        raw("GET HTTP://CACHE.TEST{base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd).asking(0)}});
  cases.push_back({"RFC9112_3_2_2_AbsoluteFormOfAnotherHost",
                   {fill(kFresh),
                    raw("GET http://other.test{base} HTTP/1.1\r\nHost: other.test\r\n" + kEnd)
                        .asking(1)
                        .answered(kFresh),
                    hit().of(1), hit().with(host("other.test")).of(2)}});
  cases.push_back({"RFC9112_3_2_2_TheHostOfTheAbsoluteFormCounts",
                   {fill(kFresh),
                    raw("GET http://other.test{base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd)
                        .answered(kFresh)
                        .or_breaks(),
                    hit().of(1)}});
  cases.push_back({"RFC9112_2_3_AnHttp10Client",
                   {fill(kFresh), raw("GET {base} HTTP/1.0\r\nHost: {host}\r\n\r\n").asking(0)}});
  cases.push_back(
      {"RFC9112_2_3_AnHttp10ClientFills",
       {raw("GET {base} HTTP/1.0\r\nHost: {host}\r\n\r\n").asking(1).answered(kFresh), hit()}});
}

void add_paths(Cases& cases) {
  const struct {
    std::string name, one, other;
    bool same;
  } rows[] = {
      {"EncodedLetter", "/%41", "/A", true},
      {"EncodedTilde", "/%7euser", "/~user", true},
      {"EncodedDashAndDot", "/a%2Db%2ec", "/a-b.c", true},
      {"CaseOfHexDigits", "/a%c3%a4", "/a%C3%A4", true},
      {"EncodedInTheQuery", "?x=%41", "?x=A", true},
      {"LettersInOtherCase", "/page", "/Page", false},
      {"EncodedSlash", "/x%2Fy", "/x/y", false},
      {"TwoSlashes", "/x//y", "/x/y", false},
      {"TrailingSlash", "/x/", "/x", false},
      {"DotSegment", "/x/./y", "/x/y", false},
      {"DotDotSegment", "/x/../y", "/y", false},
      {"EncodedQuestionMark", "/x%3Fy", "/x?y", false},
      {"EncodedSemicolon", "/x%3By", "/x;y", false},
      {"Parameters", "/x;a", "/x", false},
      {"PlusAndSpace", "/x+y", "/x%20y", false},
      {"DoubleEncoding", "/x%2541", "/xA", false},
      {"EmptyQuery", "/x?", "/x", false},
      {"OrderOfParameters", "?a=1&b=2", "?b=2&a=1", false},
      {"EncodedAmpersand", "?a=1%26b=2", "?a=1&b=2", false},
      {"PathAndQueryApart", "/a?/b", "/a/?b", false},
      {"LongTargets", "/" + std::string(3000, 'a') + "1", "/" + std::string(3000, 'a') + "2",
       false},
      {"LongQueries", "?" + std::string(3000, 'q') + "1", "?" + std::string(3000, 'q') + "2",
       false},
  };
  for (const auto& row : rows) {
    cases.push_back(
        {"RFC3986_6_2_2_" + row.name,
         {fill(kFresh).at(row.one), row.same ? hit().at(row.other) : miss(kFresh).at(row.other),
          hit().at(row.one).of(1).on_the_other()}});
    cases.push_back(
        {"RFC3986_6_2_2_" + row.name + "ThroughTheOtherServer",
         {fill(kFresh).at(row.other),
          row.same ? hit().at(row.one).on_the_other() : miss(kFresh).at(row.one).on_the_other(),
          hit().at(row.other).of(1).on_the_other()}});
  }
  cases.push_back(
      {"RFC3986_2_1_BrokenEncodingHasNoKey",
       {raw("GET {base}%zz HTTP/1.1\r\nHost: {host}\r\n" + kEnd).answered(kFresh).or_breaks(),
        miss(kFresh), hit()}});
}

void add_collapsing(Cases& cases) {
  cases.push_back({"RFC9111_4_ManyRequestsOfBothServersAreOneFill",
                   {fill(kFresh).by(16), hit(), hit().on_the_other()}});
  cases.push_back({"RFC9111_4_ManyRequestsOfALargeResponse",
                   {fill(kFresh).origin_sends(std::string(1'000'000, 'm')).by(16), hit()}});
  cases.push_back(
      {"RFC9111_4_ManyRequestsOfAResponseInChunks",
       {fill(kFresh).origin_sends(std::string(200'000, 'c')).in_chunks().by(16), hit()}});
  cases.push_back({"RFC9111_4_ManyRequestsOfWhatIsNotFound",
                   {fill().answered(404, kFresh).by(16), hit().with_any_body()}});
  cases.push_back({"RFC9111_4_ManyRequestsOfWhatVaries",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo"}).by(16), hit()}});
  // Whom nothing stored can answer goes to the origin at once.
  cases.push_back({"RFC9111_4_ManyRequestsOfAnUnstorableResponse",
                   {fill({"Cache-Control: no-store"}).by(16).asking(16), miss(kFresh), hit()}});
  cases.push_back({"RFC5861_3_ManyRequestsAreOneRefresh",
                   {fill({"Cache-Control: max-age=100, stale-while-revalidate=600", "Age: 110"}),
                    refreshing(kFresh).origin_sends("body of step 1").by(16).of(1).asking(1),
                    hit().of(1).having(kFresh).eventually()}});
  // Purged softly, as if it had become stale: what was stale when it came is not waited for.
  const Fields tagged = {"Cache-Control: max-age=3600", "ETag: \"a\""};
  cases.push_back(
      {"RFC9111_4_3_ManyRequestsAreOneValidation",
       {fill(tagged), purge().with({"Soft-Purge: 1"}), checked(tagged).by(16).of(1), hit().of(1)}});
}

void add_interim(Cases& cases) {
  const std::string hints = "\r\nCache-Control: max-age=3600\r\nLink: </a>\r\nX-Hint: 1\r\n\r\n";
  const auto final_one = [](const std::string& directive) {
    return "HTTP/1.1 200 OK\r\nCache-Control: " + directive + "\r\nContent-Length: 4\r\n\r\nlast";
  };
  for (const std::string status : {"100 Continue", "102 Processing", "103 Early Hints"}) {
    const std::string name = "RFC9110_15_2_" + status.substr(0, 3);
    const std::string interim = "HTTP/1.1 " + status + hints;
    cases.push_back({name + "IsNotStored",
                     {fill().origin_sends_raw(interim + final_one("no-store")).gives("last"),
                      miss(kFresh), hit()}});
    cases.push_back({name + "LeavesTheFinalResponseStorable",
                     {fill().origin_sends_raw(interim + final_one("max-age=3600")).gives("last"),
                      hit().gives("last").lacking({"Link", "X-Hint"})}});
    cases.push_back(
        {name + "SeveralTimes",
         {fill().origin_sends_raw(interim + interim + final_one("max-age=3600")).gives("last"),
          hit().gives("last").lacking({"X-Hint"})}});
  }
  cases.push_back({"RFC9110_15_2_103IsPassedOn",
                   {raw("GET {base} HTTP/1.1\r\nHost: {host}\r\n" + kEnd)
                        .asking(1)
                        .origin_sends_raw("HTTP/1.1 103 Early Hints" + hints +
                                          final_one("max-age=3600"))
                        .gives(103)
                        .with_any_body()
                        .having({"Link: </a>", "X-Hint: 1"}),
                    hit().eventually().gives("last")}});
}

}  // namespace

Cases safety_cases() {
  Cases cases;
  add_messages(cases);
  add_ends(cases);
  add_expectations(cases);
  add_unkeyed(cases);
  add_hosts(cases);
  add_paths(cases);
  add_collapsing(cases);
  add_interim(cases);
  return cases;
}

}  // namespace mcs::conformance
