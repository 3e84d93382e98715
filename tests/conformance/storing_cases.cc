// SPDX-License-Identifier: Apache-2.0
// RFC 9111 3 and the response directives of 5.2.2: which responses are stored.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

const Fields kFresh = {"Cache-Control: max-age=3600"};

void add_statuses(Cases& cases) {
  // Any status may be stored if the response itself says how long it is fresh.
  for (const int status : {200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 402, 403, 404,
                           405, 410, 414, 418, 451, 499, 500, 501, 502, 503, 504, 599}) {
    cases.push_back(
        reused("RFC9111_3_Status" + std::to_string(status) + "WithMaxAge", kFresh, status));
  }
  for (const int status : {200, 203, 204, 301, 302, 308, 404, 410, 500, 503}) {
    cases.push_back(not_reused("RFC9111_3_Status" + std::to_string(status) + "WithExpiresInThePast",
                               {"Expires: @-5000", "Last-Modified: @-100000"}, status));
  }
}

void add_methods(Cases& cases) {
  for (const std::string method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH"}) {
    cases.push_back({"RFC9111_3_ResponseTo" + method + "IsNotStoredForGet",
                     {does(method, kFresh), miss(kFresh)}});
    cases.push_back(
        {"RFC9111_4_StoredGetDoesNotAnswer" + method, {fill(kFresh), does(method, kFresh)}});
  }
  cases.push_back(
      {"RFC9111_3_ResponseToHeadIsNotStoredForGet", {does("HEAD", kFresh), miss(kFresh), hit()}});
  cases.push_back({"RFC9110_9_3_2_StoredGetAnswersHead",
                   {fill({"Cache-Control: max-age=3600", "X-Own: a"}),
                    head_hit().having({"X-Own: a", "Content-Length: 14"}), hit()}});
  const Fields own = {"Cache-Control: max-age=3600", "Content-Location: {base}"};
  cases.push_back({"RFC9110_9_3_3_PostWithItsOwnContentLocationAnswersGet",
                   {does("POST", own).sending("x=1"), hit()}});
  cases.push_back({"RFC9110_9_3_3_PostWithoutFreshnessDoesNot",
                   {does("POST", {"Content-Location: {base}"}).sending("x=1"), miss(kFresh)}});
  cases.push_back({"RFC9110_9_3_3_PostWithAnotherContentLocationDoesNot",
                   {does("POST", {"Cache-Control: max-age=3600", "Content-Location: {base}other"})
                        .sending("x=1"),
                    miss(kFresh)}});
  cases.push_back({"RFC9110_9_3_3_FailedPostDoesNot",
                   {does("POST").sending("x=1").answered(500, own), miss(kFresh)}});
}

void add_authorization(Cases& cases) {
  const Fields authorized = {"Authorization: Basic eDp5"};
  const struct {
    std::string name, cache_control;
    bool stored;
  } rules[] = {
      {"MaxAgeIsNotShared", "max-age=3600", false},
      {"ProxyRevalidateIsNotShared", "max-age=3600, proxy-revalidate", false},
      {"ImmutableIsNotShared", "max-age=3600, immutable", false},
      {"PublicIsShared", "max-age=3600, public", true},
      {"MustRevalidateIsShared", "max-age=3600, must-revalidate", true},
      {"SMaxAgeIsShared", "s-maxage=3600", true},
      {"SMaxAgeBeatsMaxAge", "max-age=0, s-maxage=3600", true},
      {"PrivateWinsOverPublic", "max-age=3600, public, private", false},
  };
  for (const auto& rule : rules) {
    const Fields answer = {"Cache-Control: " + rule.cache_control};
    cases.push_back({"RFC9111_3_5_" + rule.name,
                     {fill(answer).with(authorized).reaching({"Authorization: Basic eDp5"}),
                      rule.stored ? hit() : miss(answer)}});
  }
  cases.push_back({"RFC9111_3_5_ResponseStoredForAllAnswersTheAuthorized",
                   {fill(kFresh), hit().with(authorized)}});
}

void add_directives(Cases& cases) {
  const auto with = [](const std::string& directives) {
    return Fields{"Cache-Control: " + directives};
  };
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStore", with("no-store")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreWithMaxAge", with("max-age=3600, no-store")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreInUpperCase", with("max-age=3600, No-StOrE")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreWithValue", with("max-age=3600, no-store=1")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreInASecondLine",
                             {"Cache-Control: max-age=3600", "Cache-Control: no-store"}));
  cases.push_back(
      not_reused("RFC9111_5_2_2_5_NoStoreAfterEmptyMembers", with("max-age=3600,, ,no-store")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreAfterAnUnclosedQuote",
                             with("max-age=3600, a=\"b, no-store")));
  cases.push_back(
      reused("RFC9111_5_2_2_5_NoStoreInAQuotedString", with("max-age=3600, a=\"no-store\"")));
  cases.push_back(
      reused("RFC9111_5_2_2_5_NoStoreAsPartOfAName", with("max-age=3600, x-no-store, no-store-x")));
  cases.push_back(not_reused("RFC9111_5_2_2_5_NoStoreWithExpires",
                             {"Cache-Control: no-store", "Expires: @10000"}));
  cases.push_back(not_reused("RFC9111_5_2_2_7_Private", with("private, max-age=3600")));
  cases.push_back(not_reused("RFC9111_5_2_2_7_PrivateInUpperCase", with("PRIVATE, max-age=3600")));
  cases.push_back(
      {"RFC9111_5_2_2_7_PrivateWithNamesKeepsOnlyThoseBack",
       {fill({"Cache-Control: max-age=3600, private=\"X-A, x-b\"", "X-A: 1", "X-B: 2", "X-C: 3"})
            .having({"X-A: 1", "X-C: 3"}),
        hit().having({"X-C: 3"}).lacking({"X-A", "X-B"})}});
  cases.push_back(
      {"RFC9111_5_2_2_4_NoCacheWithNamesKeepsOnlyThoseBack",
       {fill({"Cache-Control: max-age=3600, no-cache=\"X-A, x-b\"", "X-A: 1", "X-B: 2", "X-C: 3"}),
        hit().having({"X-C: 3"}).lacking({"X-A", "X-B"})}});
  cases.push_back(
      not_reused("RFC9111_5_2_2_4_NoCacheWithoutValidator", with("max-age=3600, no-cache")));
  cases.push_back(checked_again("RFC9111_5_2_2_4_NoCacheIsValidated",
                                {"Cache-Control: max-age=3600, no-cache", "ETag: \"a\""}));
  cases.push_back(checked_again("RFC9111_5_2_2_4_NoCacheInUpperCase",
                                {"Cache-Control: max-age=3600, No-CaChE", "ETag: \"a\""}));
  cases.push_back(checked_again("RFC9111_5_2_2_4_NoCacheWithExpires",
                                {"Cache-Control: no-cache", "Expires: @9999", "ETag: \"a\""}));
  cases.push_back({"RFC9111_5_2_2_4_NoCacheIsValidatedEveryTime",
                   {fill({"Cache-Control: no-cache", "ETag: \"a\""}),
                    checked({"Cache-Control: no-cache", "ETag: \"a\""}),
                    checked({"Cache-Control: no-cache", "ETag: \"a\""})}});
  cases.push_back(
      reused("RFC9111_5_2_2_2_MustRevalidateWhileFresh", with("max-age=3600, must-revalidate")));
  cases.push_back(
      checked_again("RFC9111_5_2_2_2_MustRevalidateWhenStale",
                    {"Cache-Control: max-age=10, must-revalidate", "Age: 100", "ETag: \"a\""}));
  cases.push_back(reused("RFC9111_5_2_2_3_MustUnderstandOverridesNoStore",
                         with("max-age=3600, no-store, must-understand")));
  cases.push_back(not_reused("RFC9111_5_2_2_3_MustUnderstandOfAnUnknownStatus",
                             with("max-age=3600, no-store, must-understand"), 599));
  cases.push_back(not_reused("RFC9111_5_2_2_3_MustUnderstandAloneOfAnUnknownStatus",
                             with("max-age=3600, must-understand"), 418));
  cases.push_back(reused("RFC9111_5_2_2_9_PublicAllowsHeuristics",
                         {"Cache-Control: public", "Last-Modified: @-864000"}, 403));
  cases.push_back(
      reused("RFC9111_5_2_2_6_NoTransformChangesNothing", with("max-age=3600, no-transform")));
  cases.push_back(reused("RFC9111_5_2_3_UnknownDirectivesAreIgnored",
                         with("foobar, max-age=3600, no-stuff=\"a, b\"")));
}

void add_others(Cases& cases) {
  cases.push_back({"RFC9111_5_2_1_5_RequestNoStoreIsNotStored",
                   {fill(kFresh).with({"Cache-Control: no-store"}), miss(kFresh)}});
  cases.push_back({"RFC9111_3_ResponseToGetWithContentIsNotStored",
                   {fill(kFresh).sending("content"), miss(kFresh)}});
  cases.push_back({"RFC9111_3_EmptyBody", {fill(kFresh).origin_sends(""), hit().gives("")}});
  cases.push_back({"RFC9112_6_1_ChunkedIsStoredWithItsLength",
                   {fill(kFresh).in_chunks(), hit().having({"Content-Length: 14"})}});
  cases.push_back({"RFC9112_6_1_EmptyChunkedBody",
                   {fill(kFresh).in_chunks().origin_sends(""), hit().gives("")}});
  cases.push_back({"RFC9112_6_3_BodyThatEndsWithTheConnection",
                   {fill().origin_sends_raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n"
                                            "Connection: close\r\n\r\nbody of step 1"),
                    hit().having({"Content-Length: 14"})}});
  cases.push_back({"RFC9111_3_3_IncompleteBodyIsNotStored",
                   {fill()
                        .origin_sends_raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n"
                                          "Content-Length: 100\r\n\r\nbody of step 1")
                        .or_breaks(),
                    miss(kFresh), hit()}});
  cases.push_back({"RFC9111_3_3_IncompleteChunksAreNotStored",
                   {fill()
                        .origin_sends_raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n"
                                          "Transfer-Encoding: chunked\r\n\r\n5\r\nbody \r\n9\r\nof")
                        .or_breaks(),
                    miss(kFresh), hit()}});
  cases.push_back({"RFC9111_3_LargeBody",
                   {fill(kFresh).origin_sends(std::string(3'000'000, 'x')), hit(), hit()}});
  cases.push_back({"RFC9111_3_LargeBodyInChunks",
                   {fill(kFresh).origin_sends(std::string(300'000, 'y')).in_chunks(), hit()}});
  cases.push_back(
      {"RFC9111_3_UnstorableLeavesWhatIsStored",
       {fill(kFresh), miss({"Cache-Control: no-store"}).with({"Cache-Control: no-cache"}),
        hit().of(1)}});
  cases.push_back({"RFC9111_4_QueriesAreDifferentResources",
                   {fill(kFresh).at("?x=1"), miss(kFresh).at("?x=2"), hit().at("?x=1").of(1),
                    hit().at("?x=2").of(2), miss(kFresh), miss(kFresh).at("?")}});
}

}  // namespace

Cases storing_cases() {
  Cases cases;
  add_statuses(cases);
  add_methods(cases);
  add_authorization(cases);
  add_directives(cases);
  add_others(cases);
  return cases;
}

}  // namespace mcs::conformance
