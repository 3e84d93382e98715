// SPDX-License-Identifier: Apache-2.0
// RFC 9111 5.2.1 and 5.4: what a request may ask of a cache.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

const Fields kFresh = {"Cache-Control: max-age=3600"};
const Fields kOld = {"Cache-Control: max-age=3600", "Age: 1800"};
const Fields kStale = {"Cache-Control: max-age=1000", "Age: 1100", "ETag: \"a\""};

Fields asking(const std::string& directives) { return {"Cache-Control: " + directives}; }

}  // namespace

Cases request_cases() {
  Cases cases;
  const struct {
    std::string name, directives;
    Fields answer;
    bool reused;
  } rows[] = {
      {"1_MaxAgeZero", "max-age=0", kFresh, false},
      {"1_MaxAgeBelowTheAge", "max-age=600", kOld, false},
      {"1_MaxAgeAboveTheAge", "max-age=3000", kOld, true},
      {"1_MaxAgeInMixedCase", "MAX-age=600", kOld, false},
      {"1_MaxAgeQuoted", "max-age=\"600\"", kOld, false},
      {"1_UnreadableMaxAgeCountsAsZero", "max-age=soon", kFresh, false},
      {"1_MaxAgeAbove64Bits", "max-age=99999999999999999999", kOld, true},
      {"1_MaxAgeAllowsNothingStale", "max-age=5000", kStale, false},
      {"2_MaxStaleAboveTheStaleness", "max-stale=1000", kStale, true},
      {"2_MaxStaleBelowTheStaleness", "max-stale=10", kStale, false},
      {"2_MaxStaleWithoutValue", "max-stale", kStale, true},
      {"2_MaxStaleWithMaxAgeAboveTheAge", "max-stale=1000, max-age=5000", kStale, true},
      {"2_MaxStaleWithMaxAgeBelowTheAge", "max-stale=1000, max-age=500", kStale, false},
      {"2_MaxStaleOfWhatIsFresh", "max-stale=10", kFresh, true},
      {"2_MaxStaleAgainstMustRevalidate",
       "max-stale=1000",
       {"Cache-Control: max-age=1000, must-revalidate", "Age: 1100", "ETag: \"a\""},
       false},
      {"2_MaxStaleAgainstProxyRevalidate",
       "max-stale=1000",
       {"Cache-Control: max-age=1000, proxy-revalidate", "Age: 1100", "ETag: \"a\""},
       false},
      {"2_MaxStaleAgainstSMaxAge",
       "max-stale=1000",
       {"Cache-Control: s-maxage=1000", "Age: 1100", "ETag: \"a\""},
       false},
      {"2_MaxStaleAgainstNoCache",
       "max-stale=1000",
       {"Cache-Control: max-age=1000, no-cache", "ETag: \"a\""},
       false},
      {"3_MinFreshBelowWhatIsLeft", "min-fresh=1000", kOld, true},
      {"3_MinFreshAboveWhatIsLeft", "min-fresh=2000", kOld, false},
      {"3_MinFreshAboveTheLifetime", "min-fresh=4000", kFresh, false},
      {"3_MinFreshInMixedCase", "Min-Fresh=2000", kOld, false},
      {"4_NoCache", "no-cache", kFresh, false},
      {"4_NoCacheInMixedCase", "No-Cache", kFresh, false},
      {"4_NoCacheAfterOthers", "foo, bar=\"a, b\", no-cache", kFresh, false},
      {"4_NoCacheInAQuotedString", "foo=\"no-cache\"", kFresh, true},
      {"5_NoStoreIsNotAnsweredFromStore", "no-store", kFresh, false},
      {"6_NoTransform", "no-transform", kFresh, true},
      {"7_OnlyIfCachedOfWhatIsFresh", "only-if-cached", kFresh, true},
      {"7_OnlyIfCachedWithMaxStale", "only-if-cached, max-stale", kStale, true},
      {"8_UnknownDirectives", "foo, bar=1, must-revalidate, private, public", kFresh, true},
  };
  for (const auto& row : rows) {
    const std::string name = "RFC9111_5_2_1_" + row.name;
    cases.push_back(row.reused ? reused_for(name, row.answer, asking(row.directives))
                               : not_reused_for(name, row.answer, asking(row.directives)));
  }
  cases.push_back(not_reused_for("RFC9111_5_2_1_4_NoCacheInASecondLine", kFresh,
                                 {"Cache-Control: foo", "Cache-Control: no-cache"}));
  cases.push_back(checked_again("RFC9111_5_2_1_4_NoCacheValidates",
                                {"Cache-Control: max-age=3600", "ETag: \"a\""},
                                asking("no-cache")));
  cases.push_back(checked_again("RFC9111_5_2_1_4_NoCacheValidatesByDate",
                                {"Cache-Control: max-age=3600", "Last-Modified: @-10000"},
                                asking("no-cache")));
  cases.push_back(checked_again("RFC9111_5_2_1_1_MaxAgeZeroValidates",
                                {"Cache-Control: max-age=3600", "ETag: \"a\""},
                                asking("max-age=0")));
  cases.push_back({"RFC9111_5_2_1_4_NoCacheRenewsWhatIsStored",
                   {fill(kFresh), miss(kFresh).with(asking("no-cache")), hit().of(2)}});
  cases.push_back({"RFC9111_5_2_1_5_NoStoreLeavesWhatIsStored",
                   {fill(kFresh), miss(kFresh).with(asking("no-store")), hit().of(1)}});
  cases.push_back({"RFC9111_5_2_1_7_OnlyIfCachedOfAHead",
                   {head_hit().with(asking("only-if-cached")).gives(504)}});
  cases.push_back(
      {"RFC9111_5_2_1_4_NoCacheOfAHead",
       {fill(kFresh), does("HEAD", kFresh).with(asking("no-cache")).of(1), hit().of(1)}});
  cases.push_back({"RFC9111_5_2_1_7_OnlyIfCachedOfNothing",
                   {hit().with(asking("only-if-cached")).gives(504), fill(kFresh)}});
  cases.push_back({"RFC9111_5_2_1_7_OnlyIfCachedOfWhatIsStale",
                   {fill(kStale), hit().with(asking("only-if-cached")).gives(504)}});
  cases.push_back({"RFC9111_5_2_1_7_OnlyIfCachedWithNoCache",
                   {fill(kFresh), hit().with(asking("only-if-cached, no-cache")).gives(504)}});
  cases.push_back({"RFC9111_5_2_1_7_OnlyIfCachedOfAnotherVariant",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    hit().with({"Foo: 2", "Cache-Control: only-if-cached"}).gives(504)}});
  cases.push_back(not_reused_for("RFC9111_5_4_PragmaNoCache", kFresh, {"Pragma: no-cache"}));
  cases.push_back(not_reused_for("RFC9111_5_4_PragmaInMixedCase", kFresh, {"Pragma: No-Cache"}));
  cases.push_back(not_reused_for("RFC9111_5_4_PragmaInAList", kFresh, {"Pragma: foo, no-cache"}));
  cases.push_back(reused_for("RFC9111_5_4_UnknownPragma", kFresh, {"Pragma: something"}));
  cases.push_back(reused_for("RFC9111_5_4_PragmaBesideCacheControl", kFresh,
                             {"Pragma: no-cache", "Cache-Control: max-age=3600"}));
  cases.push_back(reused_for("RFC9111_4_CookieOfTheRequest", kFresh, {"Cookie: a=b"}));
  cases.push_back(reused_for("RFC9111_4_FieldsThatVaryDoesNotName", kFresh,
                             {"User-Agent: other", "Accept: text/html", "Referer: http://x/"}));
  cases.push_back(
      {"RFC9111_4_DirectivesReachTheOrigin",
       {fill(kFresh).with(asking("no-cache, foo=1")).reaching({"Cache-Control: ~foo=1"})}});
  cases.push_back({"RFC9111_4_FieldsReachTheOrigin",
                   {fill(kFresh)
                        .with({"Accept-Language: de", "X-Own: 1", "Cookie: a=b"})
                        .reaching({"Accept-Language: de", "X-Own: 1", "Cookie: a=b"})}});
  return cases;
}

}  // namespace mcs::conformance
