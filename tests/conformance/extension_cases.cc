// SPDX-License-Identifier: Apache-2.0
// RFC 5861 (stale-while-revalidate, stale-if-error), RFC 8246 (immutable), RFC 9211 (Cache-Status),
// RFC 9213 (targeted fields).
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

void add_targeted(Cases& cases) {
  const struct {
    std::string name;
    Fields answer;
    bool fresh;
  } rows[] = {
      {"MaxAge", {"CDN-Cache-Control: max-age=3600"}, true},
      {"LargeMaxAge", {"CDN-Cache-Control: max-age=99999999999"}, true},
      {"MaxAgeBelowTheAge", {"CDN-Cache-Control: max-age=3600", "Age: 7200"}, false},
      {"MaxAgeZero", {"CDN-Cache-Control: max-age=0"}, false},
      {"UnknownDirective", {"CDN-Cache-Control: foobar, max-age=3600"}, true},
      {"SMaxAge", {"CDN-Cache-Control: s-maxage=3600, max-age=0"}, true},
      {"OverridesExpires", {"CDN-Cache-Control: max-age=3600", "Expires: @-9999"}, true},
      {"OverridesInvalidExpires", {"CDN-Cache-Control: max-age=3600", "Expires: 0"}, true},
      {"ZeroOverridesExpires", {"CDN-Cache-Control: max-age=0", "Expires: @9999"}, false},
      {"OverridesMaxAge",
       {"CDN-Cache-Control: max-age=3600", "Cache-Control: max-age=1", "Age: 100"},
       true},
      {"SmallOverridesMaxAge",
       {"CDN-Cache-Control: max-age=1", "Cache-Control: max-age=3600", "Age: 100"},
       false},
      {"OverridesNoStore", {"CDN-Cache-Control: max-age=3600", "Cache-Control: no-store"}, true},
      {"OverridesPrivate", {"CDN-Cache-Control: max-age=3600", "Cache-Control: private"}, true},
      {"OverridesNoCache", {"CDN-Cache-Control: max-age=3600", "Cache-Control: no-cache"}, true},
      {"Private", {"CDN-Cache-Control: private", "Cache-Control: max-age=3600"}, false},
      {"NoCache", {"CDN-Cache-Control: no-cache", "Cache-Control: max-age=3600"}, false},
      {"NoStore", {"CDN-Cache-Control: no-store", "Cache-Control: max-age=3600"}, false},
      {"TwoLines", {"CDN-Cache-Control: foo", "CDN-Cache-Control: max-age=3600"}, true},
      {"LastOfTwoCounts", {"CDN-Cache-Control: max-age=1, max-age=3600", "Age: 100"}, true},
      {"Parameters", {"CDN-Cache-Control: max-age=3600;a=b"}, true},
      {"SyntaxErrorIsIgnored",
       {"CDN-Cache-Control: max-age=3600, &&&", "Cache-Control: no-store"},
       false},
      {"SyntaxErrorLeavesCacheControl",
       {"CDN-Cache-Control: no-store, &&&", "Cache-Control: max-age=3600"},
       true},
      {"StringIsIgnored",
       {"CDN-Cache-Control: max-age=\"3600\"", "Cache-Control: no-store"},
       false},
      {"FractionIsIgnored",
       {"CDN-Cache-Control: max-age=3600.5", "Cache-Control: no-store"},
       false},
      {"SpaceIsIgnored", {"CDN-Cache-Control: max-age =3600", "Cache-Control: no-store"}, false},
      {"NegativeIsIgnored", {"CDN-Cache-Control: max-age=-1", "Cache-Control: max-age=3600"}, true},
      {"UpperCaseIsIgnored", {"CDN-Cache-Control: Max-Age=3600", "Cache-Control: no-store"}, false},
      {"EmptyIsIgnored", {"CDN-Cache-Control:", "Cache-Control: max-age=3600"}, true},
      {"OtherTargetsAreIgnored",
       {"Other-CDN-Cache-Control: no-store", "Cache-Control: max-age=3600"},
       true},
  };
  for (const auto& row : rows) {
    const std::string name = "RFC9213_2_2_" + row.name;
    cases.push_back(row.fresh ? reused(name, row.answer) : not_reused(name, row.answer));
  }
  cases.push_back({"RFC9213_2_1_TheFieldIsPassedOn",
                   {fill({"CDN-Cache-Control: max-age=3600"}),
                    hit().having({"CDN-Cache-Control: max-age=3600"})}});
}

void add_stale(Cases& cases) {
  const auto stale = [](const std::string& more) {
    return Fields{"Cache-Control: max-age=100" + more, "Age: 110", "ETag: \"a\""};
  };
  const struct {
    std::string name, directives;
    int origin;  // 0: breaks off
    int status;  // 200: the stored one
  } rows[] = {
      {"On500", ", stale-if-error=600", 500, 200},
      {"On502", ", stale-if-error=600", 502, 200},
      {"On503", ", stale-if-error=600", 503, 200},
      {"On504", ", stale-if-error=600", 504, 200},
      {"On404IsNone", ", stale-if-error=600", 404, 404},
      {"On403IsNone", ", stale-if-error=600", 403, 403},
      {"On501IsNone", ", stale-if-error=600", 501, 501},
      {"WhenDisconnected", ", stale-if-error=600", 0, 200},
      {"IsOver", ", stale-if-error=5", 503, 503},
      {"IsAbsent", "", 503, 503},
      {"AgainstMustRevalidate", ", stale-if-error=600, must-revalidate", 503, 503},
      {"AgainstProxyRevalidate", ", stale-if-error=600, proxy-revalidate", 503, 503},
      {"AgainstNoCache", ", stale-if-error=600, no-cache", 503, 503},
      {"WithSMaxAge", ", s-maxage=100, stale-if-error=600", 503, 200},
      {"Quoted", ", stale-if-error=\"600\"", 503, 200},
      {"Invalid", ", stale-if-error=soon", 503, 503},
  };
  for (const auto& row : rows) {
    Step second = miss().asking(row.origin == 0 ? -1 : 1);
    if (row.origin == 0) {
      second.origin_breaks_off();
    } else {
      second.answered(row.origin);
    }
    row.status == 200 ? second.gives(200, "body of step 1")
                      : second.gives(row.status).with_any_body();
    cases.push_back({"RFC5861_4_StaleIfError" + row.name, {fill(stale(row.directives)), second}});
  }
  cases.push_back({"RFC5861_4_StaleIfErrorOfARequest",
                   {fill(stale("")), miss()
                                         .with({"Cache-Control: stale-if-error=600"})
                                         .answered(503)
                                         .gives(200, "body of step 1")}});
  cases.push_back({"RFC5861_4_StaleIfErrorOfARequestIsOver",
                   {fill(stale("")),
                    miss().with({"Cache-Control: stale-if-error=5"}).answered(503).gives(503)}});
  cases.push_back(
      {"RFC5861_4_ThenTheOriginIsBack",
       {fill(stale(", stale-if-error=600")), miss().answered(503).gives(200, "body of step 1"),
        miss({"Cache-Control: max-age=3600"}), hit().of(3)}});
  cases.push_back({"RFC5861_4_StaleIfErrorAnswersRangesAndConditions",
                   {fill(stale(", stale-if-error=600")),
                    miss().with({"Range: bytes=0-3"}).answered(500).gives(206, "body"),
                    miss().with({"If-None-Match: \"a\""}).answered(500).gives(304)}});

  const Fields fresh = {"Cache-Control: max-age=3600"};
  cases.push_back({"RFC5861_3_StaleWhileRevalidate",
                   {fill(stale(", stale-while-revalidate=600")),
                    refreshing(fresh).of(1).having({"Age: 110..170"}), hit().of(2).eventually()}});
  cases.push_back({"RFC5861_3_StaleWhileRevalidateValidates",
                   {fill(stale(", stale-while-revalidate=600")),
                    refreshing({"Cache-Control: max-age=3600", "ETag: \"a\"", "X-New: 1"})
                        .answering_304()
                        .of(1),
                    hit().of(1).having({"X-New: 1"}).eventually()}});
  cases.push_back({"RFC5861_3_StaleWhileRevalidateOfAPart",
                   {fill(stale(", stale-while-revalidate=600")),
                    refreshing(fresh).with({"Range: bytes=0-3"}).gives(206, "body"),
                    hit().of(2).eventually()}});
  cases.push_back(
      {"RFC5861_3_StaleWhileRevalidateOfACondition",
       {fill(stale(", stale-while-revalidate=600")),
        refreshing(fresh).with({"If-None-Match: \"a\""}).gives(304), hit().of(2).eventually()}});
  cases.push_back({"RFC5861_3_StaleWhileRevalidateWithSMaxAge",
                   {fill(stale(", s-maxage=100, stale-while-revalidate=600")),
                    refreshing(fresh).of(1), hit().of(2).eventually()}});
  cases.push_back(
      {"RFC5861_3_TheRefreshOfAVariant",
       {fill({"Cache-Control: max-age=100, stale-while-revalidate=600", "Age: 110", "Vary: Foo"})
            .with({"Foo: 1"}),
        refreshing({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}).of(1),
        hit().with({"Foo: 1"}).of(2).eventually()}});
  const struct {
    std::string name, directives;
    Fields request;
  } waits[] = {
      {"IsOver", ", stale-while-revalidate=5", {}},
      {"AgainstMustRevalidate", ", stale-while-revalidate=600, must-revalidate", {}},
      {"AgainstProxyRevalidate", ", stale-while-revalidate=600, proxy-revalidate", {}},
      {"AgainstNoCache", ", stale-while-revalidate=600, no-cache", {}},
      {"AgainstMaxAgeOfTheRequest",
       ", stale-while-revalidate=600",
       {"Cache-Control: max-age=1000"}},
      {"AgainstMinFreshOfTheRequest",
       ", stale-while-revalidate=600",
       {"Cache-Control: min-fresh=1"}},
      {"AgainstNoCacheOfTheRequest", ", stale-while-revalidate=600", {"Cache-Control: no-cache"}},
  };
  for (const auto& row : waits) {
    cases.push_back({"RFC5861_3_StaleWhileRevalidate" + row.name,
                     {fill(stale(row.directives)), miss(fresh).with(row.request)}});
  }
}

void add_immutable(Cases& cases) {
  const Fields immutable = {"Cache-Control: max-age=3600, immutable", "ETag: \"a\""};
  cases.push_back(reused("RFC8246_2_Immutable", immutable));
  cases.push_back(reused_for("RFC8246_2_1_ReloadIsAnsweredFromTheCache", immutable,
                             {"Cache-Control: max-age=0"}));
  cases.push_back(reused_for("RFC8246_2_1_ImmutableInUpperCase",
                             {"Cache-Control: max-age=3600, IMMUTABLE"},
                             {"Cache-Control: max-age=0"}));
  cases.push_back(not_reused_for("RFC8246_2_1_NoCacheOfARequestStillCounts", immutable,
                                 {"Cache-Control: no-cache"}));
  cases.push_back(
      checked_again("RFC8246_2_StaleImmutableIsValidated",
                    {"Cache-Control: max-age=100, immutable", "Age: 110", "ETag: \"a\""}));
}

void add_cache_status(Cases& cases) {
  const Fields fresh = {"Cache-Control: max-age=3600", "ETag: \"a\""};
  const Fields stale = {"Cache-Control: max-age=100", "Age: 110", "ETag: \"a\""};
  // A client may come back before the fill that answered it has ended; then it follows that fill.
  const auto says = [](const std::string& text) { return Fields{"Cache-Status: ~" + text}; };
  cases.push_back({"RFC9211_2_1_Hit", {fill(fresh), hit().having(says("mcs; hit")).eventually()}});
  cases.push_back({"RFC9211_2_2_UriMiss", {fill(fresh).having(says("mcs; fwd=uri-miss; stored"))}});
  cases.push_back({"RFC9211_2_2_VaryMiss",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    miss({"Cache-Control: max-age=3600", "Vary: Foo"})
                        .with({"Foo: 2"})
                        .having(says("fwd=vary-miss; stored"))}});
  cases.push_back(
      {"RFC9211_2_2_Request",
       {fill(fresh),
        miss(fresh).with({"Cache-Control: no-cache"}).having(says("fwd=request; stored"))}});
  cases.push_back(
      {"RFC9211_2_2_Stale", {fill(stale), miss(fresh).having(says("fwd=stale; stored"))}});
  cases.push_back({"RFC9211_2_2_Method", {does("POST").having(says("fwd=method"))}});
  cases.push_back(
      {"RFC9211_2_2_Bypass", {fill(fresh).sending("content").having(says("fwd=bypass"))}});
  cases.push_back(
      {"RFC9211_2_3_ForwardStatusOfAValidation",
       {fill(stale), checked(fresh).having(says("fwd=stale; fwd-status=304; stored"))}});
  cases.push_back({"RFC9211_2_3_ForwardStatusOfAFailure",
                   {fill({"Cache-Control: max-age=100, stale-if-error=600", "Age: 110"}),
                    miss()
                        .answered(503)
                        .gives(200, "body of step 1")
                        .having(says("fwd=stale; fwd-status=503"))}});
  cases.push_back({"RFC9211_2_4_PositiveTtl",
                   {fill({"Cache-Control: max-age=3600", "Age: 3001"}),
                    hit().having(says("hit; ttl=59")).eventually()}});
  cases.push_back(
      {"RFC9211_2_4_NegativeTtl",
       {fill({"Cache-Control: max-age=100", "Age: 1109", "ETag: \"a\""}),
        hit().with({"Cache-Control: max-stale"}).having(says("hit; ttl=-10")).eventually()}});
  cases.push_back(
      {"RFC9211_2_5_NotStored",
       {fill({"Cache-Control: no-store"}).having({"Cache-Status: ~fwd=uri-miss; key"})}});
  cases.push_back({"RFC9211_2_7_Key",
                   {fill(fresh).at("?x=1").having(says("key=\"http://{host}{base}?x=1\""))}});
  cases.push_back({"RFC9211_2_FieldOfTheOriginComesFirst",
                   {fill({"Cache-Control: max-age=3600", "Cache-Status: inner; hit"})
                        .having(says("inner; hit, mcs; fwd=uri-miss")),
                    hit().having(says("inner; hit, mcs; hit")).eventually()}});
  cases.push_back(
      {"RFC9211_2_On304",
       {fill(fresh),
        hit().with({"If-None-Match: \"a\""}).gives(304).having(says("hit")).eventually()}});
  cases.push_back({"RFC9211_2_OnlyIfCached",
                   {hit()
                        .with({"Cache-Control: only-if-cached"})
                        .gives(504)
                        .having(says("mcs; fwd=uri-miss"))}});
}

}  // namespace

Cases extension_cases() {
  Cases cases;
  add_targeted(cases);
  add_stale(cases);
  add_immutable(cases);
  add_cache_status(cases);
  return cases;
}

}  // namespace mcs::conformance
