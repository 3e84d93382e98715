// SPDX-License-Identifier: Apache-2.0
// RFC 9111 4.3: validation, by the cache and by clients, and what 304 and HEAD update.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

// Old when it arrives.
Fields stale(Fields more) {
  more.insert(more.begin(), {"Cache-Control: max-age=100", "Age: 200"});
  return more;
}
Fields fresh(Fields more) {
  more.insert(more.begin(), "Cache-Control: max-age=3600");
  return more;
}

void add_validators(Cases& cases) {
  cases.push_back({"RFC9111_4_3_1_IfNoneMatch",
                   {fill(stale({"ETag: \"a\""})),
                    checked(fresh({"ETag: \"a\""})).reaching({"If-None-Match: \"a\""}), hit()}});
  cases.push_back(
      {"RFC9111_4_3_1_IfNoneMatchWithAWeakTag",
       {fill(stale({"ETag: W/\"a\""})),
        checked(fresh({"ETag: W/\"a\""})).reaching({"If-None-Match: W/\"a\""}), hit()}});
  cases.push_back({"RFC9111_4_3_1_IfNoneMatchWithAnUnquotedTag",
                   {fill(stale({"ETag: abc"})),
                    checked(fresh({"ETag: abc"})).reaching({"If-None-Match: abc"}), hit()}});
  cases.push_back({"RFC9111_4_3_1_IfModifiedSince",
                   {fill(stale({"Last-Modified: @-5000"})),
                    checked(fresh({})).reaching({"If-Modified-Since: @-5000"}), hit()}});
  cases.push_back({"RFC9111_4_3_1_BothValidators",
                   {fill(stale({"ETag: \"a\"", "Last-Modified: @-5000"})),
                    checked(fresh({"ETag: \"a\""}))
                        .reaching({"If-None-Match: \"a\"", "If-Modified-Since: @-5000"}),
                    hit()}});
  cases.push_back({"RFC9111_4_3_1_NoValidatorNoCondition",
                   {fill(fresh({})), miss(fresh({}))
                                         .with({"Cache-Control: no-cache"})
                                         .hiding({"If-None-Match", "If-Modified-Since"})}});
  cases.push_back({"RFC9111_4_3_1_ValidatorsOfTheVariantThatIsAskedFor",
                   {fill(stale({"ETag: \"a\"", "Vary: Foo"})).with({"Foo: 1"}),
                    fill(stale({"ETag: \"b\"", "Vary: Foo"})).with({"Foo: 2"}),
                    checked(fresh({"ETag: \"a\"", "Vary: Foo"}))
                        .with({"Foo: 1"})
                        .reaching({"If-None-Match: ~\"a\"", "Foo: 1"})
                        .of(1)}});
  cases.push_back({"RFC9111_4_3_1_ConditionsOfTheClientStayHere",
                   {fill(stale({"ETag: \"a\""})), checked(fresh({"ETag: \"a\""}))
                                                      .with({"If-None-Match: \"b\""})
                                                      .reaching({"If-None-Match: \"a\""})}});
  cases.push_back(
      {"RFC9111_4_3_1_ValidatedForTheClientsCondition",
       {fill(stale({"ETag: \"a\""})),
        checked(fresh({"ETag: \"a\""})).with({"If-None-Match: \"a\""}).gives(304), hit()}});
}

void add_answers(Cases& cases) {
  cases.push_back(
      {"RFC9111_4_3_3_FullAnswerReplaces",
       {fill(stale({"ETag: \"a\""})), miss(fresh({"ETag: \"b\""})).gives("body of step 2"),
        hit().of(2).having({"ETag: \"b\""})}});
  cases.push_back({"RFC9111_4_3_3_FullAnswerThatIsNotStorable",
                   {fill(stale({"ETag: \"a\""})), miss({"Cache-Control: no-store"}), miss()}});
  cases.push_back(
      {"RFC9111_4_3_3_ServerErrorIsPassedOn",
       {fill(stale({"ETag: \"a\""})), miss().answered(500).gives(500).with_any_body()}});
  cases.push_back({"RFC9111_4_3_3_NotFoundIsPassedOn",
                   {fill(stale({"ETag: \"a\""})), miss().answered(404, fresh({})), hit().of(2)}});
  cases.push_back(
      {"RFC9111_4_2_4_MustRevalidateForbidsStaleWhenDisconnected",
       {fill({"Cache-Control: max-age=100, must-revalidate", "Age: 200", "ETag: \"a\""}),
        miss().asking(-1).origin_breaks_off().gives(502)}});
  cases.push_back(
      {"RFC9111_4_2_4_ProxyRevalidateForbidsStaleWhenDisconnected",
       {fill({"Cache-Control: max-age=100, proxy-revalidate", "Age: 200", "ETag: \"a\""}),
        miss().asking(-1).origin_breaks_off().gives(502)}});
  cases.push_back({"RFC9111_4_2_4_SMaxAgeForbidsStaleWhenDisconnected",
                   {fill({"Cache-Control: s-maxage=100", "Age: 200", "ETag: \"a\""}),
                    miss().asking(-1).origin_breaks_off().gives(502)}});
  cases.push_back({"RFC9111_4_2_4_NoCacheForbidsStaleWhenDisconnected",
                   {fill({"Cache-Control: no-cache", "ETag: \"a\""}),
                    miss().asking(-1).origin_breaks_off().gives(502)}});
  cases.push_back({"RFC9111_4_2_4_StaleWhenDisconnected",
                   {fill(stale({"ETag: \"a\""})),
                    miss().asking(-1).origin_breaks_off().gives(200, "body of step 1")}});
  cases.push_back(
      {"RFC9111_4_3_4_304OfAnotherTagIsNotUsed",
       {fill(stale({"ETag: \"a\""})),
        checked(fresh({"ETag: \"b\""})).asking(2).gives(200, "body of step 2"), hit().of(2)}});
  cases.push_back(
      {"RFC9111_4_3_4_304OfAnotherDateIsNotUsed",
       {fill(stale({"Last-Modified: @-5000"})),
        checked(fresh({"Last-Modified: @-4000"})).asking(2).gives(200, "body of step 2"),
        hit().of(2)}});
  cases.push_back({"RFC9111_4_3_4_304WithTheTagInWeakForm",
                   {fill(stale({"ETag: \"a\""})), checked(fresh({"ETag: W/\"a\""})), hit().of(1)}});
  cases.push_back(
      {"RFC9111_4_3_4_304WithoutAnyValidator",
       {fill(stale({"ETag: \"a\""})), checked(fresh({})), hit().of(1).having({"ETag: \"a\""})}});
  cases.push_back({"RFC9111_4_3_4_304SaysThatItIsStillStale",
                   {fill(stale({"ETag: \"a\""})), checked(stale({"ETag: \"a\""})),
                    checked(fresh({"ETag: \"a\""})), hit().of(1)}});
  cases.push_back({"RFC9111_4_3_4_304UpdatesStoredFields",
                   {fill(stale({"ETag: \"a\"", "X-Kept: 1", "X-Changed: old"})),
                    checked(fresh({"ETag: \"a\"", "X-Changed: new", "X-Added: 2"}))
                        .having({"X-Kept: 1", "X-Changed: new", "X-Added: 2"}),
                    hit().having({"X-Kept: 1", "X-Changed: new", "X-Added: 2",
                                  "Cache-Control: max-age=3600"})}});
  cases.push_back({"RFC9111_3_2_304ReplacesAllLinesOfAField",
                   {fill(stale({"ETag: \"a\"", "X-List: 1", "X-List: 2"})),
                    checked(fresh({"ETag: \"a\"", "X-List: 3"})), hit().having({"X-List: 3"})}});
  cases.push_back({"RFC9111_3_2_304LeavesContentEncoding",
                   {fill(stale({"ETag: \"a\"", "Content-Encoding: x-own"})),
                    checked(fresh({"ETag: \"a\"", "Content-Encoding: x-other"})),
                    hit().having({"Content-Encoding: x-own"})}});
  cases.push_back(
      {"RFC9111_3_2_304LeavesContentLength",
       {fill(stale({"ETag: \"a\""})), checked(fresh({"ETag: \"a\"", "Content-Range: x"})),
        hit().having({"Content-Length: 14"}).lacking({"Content-Range"})}});
  cases.push_back({"RFC9111_3_2_304LeavesOutWhatItsConnectionNames",
                   {fill(stale({"ETag: \"a\"", "X-Own: old"})),
                    checked(fresh({"ETag: \"a\"", "X-Own: hop", "Connection: X-Own"})),
                    hit().having({"X-Own: old"})}});
  cases.push_back(
      {"RFC9111_4_3_4_304WithNoStoreTakesItOut",
       {fill(stale({"ETag: \"a\""})), checked({"Cache-Control: no-store", "ETag: \"a\""}),
        miss().hiding({"If-None-Match"})}});
  cases.push_back({"RFC9111_4_3_4_304WithPrivateTakesItOut",
                   {fill(stale({"ETag: \"a\""})),
                    checked({"Cache-Control: private, max-age=3600", "ETag: \"a\""}),
                    miss().hiding({"If-None-Match"})}});
  cases.push_back(
      {"RFC9111_4_3_4_304WithAnotherVaryTakesItOut",
       {fill(stale({"ETag: \"a\"", "Vary: Foo"})).with({"Foo: 1", "Bar: 1"}),
        checked(fresh({"ETag: \"a\"", "Vary: Bar"})).with({"Foo: 1", "Bar: 1"}),
        miss(fresh({"Vary: Bar"})).with({"Foo: 1", "Bar: 1"}), hit().with({"Foo: 2", "Bar: 1"})}});
  cases.push_back({"RFC9111_4_3_4_304WithVaryStarTakesItOut",
                   {fill(stale({"ETag: \"a\""})), checked(fresh({"ETag: \"a\"", "Vary: *"})),
                    miss().hiding({"If-None-Match"})}});
  cases.push_back(
      {"RFC9111_4_3_4_304WithNoCacheIsValidatedAgain",
       {fill(stale({"ETag: \"a\""})), checked({"Cache-Control: no-cache", "ETag: \"a\""}),
        checked({"Cache-Control: no-cache", "ETag: \"a\""})}});
  cases.push_back({"RFC9111_4_3_4_304WithoutCacheControlLeavesTheStoredOne",
                   {fill({"Cache-Control: max-age=3600", "Age: 7200", "ETag: \"a\""}),
                    checked({"ETag: \"a\""}), hit().having({"Cache-Control: max-age=3600"})}});
  cases.push_back({"RFC9111_4_3_4_304WithExpires",
                   {fill({"Expires: @-100", "ETag: \"a\""}),
                    checked({"Expires: @3600", "ETag: \"a\""}), hit()}});
  cases.push_back({"RFC9111_4_3_4_304KeepsALargeBody",
                   {fill(stale({"ETag: \"a\""})).origin_sends(std::string(300'000, 'z')),
                    checked(fresh({"ETag: \"a\"", "X-New: 1"})), hit().having({"X-New: 1"})}});
  cases.push_back({"RFC9111_4_3_4_304KeepsABodyThatCameInChunks",
                   {fill(stale({"ETag: \"a\""})).in_chunks(), checked(fresh({"ETag: \"a\""})),
                    hit().having({"Content-Length: 14"})}});
  cases.push_back(
      {"RFC9111_4_3_4_304KeepsAnEmptyBody",
       {fill(stale({"ETag: \"a\""})).origin_sends(""), checked(fresh({"ETag: \"a\""})), hit()}});
  cases.push_back({"RFC9111_4_3_4_304KeepsTheStatus",
                   {fill().answered(404, stale({"ETag: \"a\""})),
                    checked(fresh({"ETag: \"a\""})).gives(404), hit().gives(404)}});
}

void add_conditions(Cases& cases) {
  const Fields tagged = fresh({"ETag: \"abcdef\"", "Last-Modified: @-5000"});
  const Fields weak = fresh({"ETag: W/\"abcdef\""});
  const Fields dated = fresh({"Last-Modified: @-3000"});
  const struct {
    std::string name;
    Fields answer, request;
    int status;
  } rows[] = {
      {"13_1_2_IfNoneMatch", tagged, {"If-None-Match: \"abcdef\""}, 304},
      {"13_1_2_IfNoneMatchInAList", tagged, {"If-None-Match: \"1\", \"abcdef\", \"2\""}, 304},
      {"13_1_2_IfNoneMatchWithACommaInATag", tagged, {"If-None-Match: \"a,b\", \"abcdef\""}, 304},
      {"13_1_2_IfNoneMatchWeakly", tagged, {"If-None-Match: W/\"abcdef\""}, 304},
      {"13_1_2_IfNoneMatchOfAWeakTag", weak, {"If-None-Match: W/\"abcdef\""}, 304},
      {"13_1_2_IfNoneMatchAny", tagged, {"If-None-Match: *"}, 304},
      {"13_1_2_IfNoneMatchOther", tagged, {"If-None-Match: \"1234\""}, 200},
      {"13_1_2_IfNoneMatchOtherCase", tagged, {"If-None-Match: \"ABCDEF\""}, 200},
      {"13_1_2_IfNoneMatchOfWhatHasNoTag", dated, {"If-None-Match: \"a\""}, 200},
      {"13_1_3_IfNoneMatchBeforeIfModifiedSince",
       tagged,
       {"If-None-Match: \"x\"", "If-Modified-Since: @-1"},
       200},
      {"13_1_3_IfNoneMatchWithIfModifiedSince",
       tagged,
       {"If-None-Match: \"abcdef\"", "If-Modified-Since: @-9999"},
       304},
      {"13_1_3_IfModifiedSinceTheSameDate", dated, {"If-Modified-Since: @-3000"}, 304},
      {"13_1_3_IfModifiedSinceALaterDate", dated, {"If-Modified-Since: @-2000"}, 304},
      {"13_1_3_IfModifiedSinceAnEarlierDate", dated, {"If-Modified-Since: @-4000"}, 200},
      {"13_1_3_IfModifiedSinceNoDate", dated, {"If-Modified-Since: recently"}, 200},
      {"13_1_3_IfModifiedSinceOfWhatHasOnlyADate",
       fresh({"Date: @-100"}),
       {"If-Modified-Since: @-50"},
       304},
      {"13_1_1_IfMatch", tagged, {"If-Match: \"abcdef\""}, 200},
      {"13_1_1_IfMatchAny", tagged, {"If-Match: *"}, 200},
      {"13_1_1_IfMatchOther", tagged, {"If-Match: \"x\""}, 412},
      {"13_1_1_IfMatchOfAWeakTag", weak, {"If-Match: W/\"abcdef\""}, 412},
      {"13_1_4_IfUnmodifiedSinceALaterDate", dated, {"If-Unmodified-Since: @-2000"}, 200},
      {"13_1_4_IfUnmodifiedSinceAnEarlierDate", dated, {"If-Unmodified-Since: @-4000"}, 412},
      {"13_2_2_IfMatchBeforeIfUnmodifiedSince",
       tagged,
       {"If-Match: \"abcdef\"", "If-Unmodified-Since: @-9999"},
       200},
  };
  for (const auto& row : rows) {
    cases.push_back(
        {"RFC9110_" + row.name, {fill(row.answer), hit().with(row.request).gives(row.status)}});
  }
  cases.push_back({"RFC9110_15_4_5_304CarriesWhatA200Would",
                   {fill(fresh({"ETag: \"a\"", "Vary: X-None", "Content-Location: /x",
                                "Content-Language: de", "X-Own: 1"})),
                    hit()
                        .with({"If-None-Match: \"a\""})
                        .gives(304)
                        .having({"ETag: \"a\"", "Vary: X-None", "Content-Location: /x",
                                 "Cache-Control: max-age=3600", "Age: *", "Date: *"})
                        .lacking({"Content-Language"})}});
  cases.push_back({"RFC9110_13_1_2_ConditionalHead",
                   {fill(tagged), head_hit().with({"If-None-Match: \"abcdef\""}).gives(304)}});
  cases.push_back(
      {"RFC9110_13_2_1_OnlyFor2xx",
       {fill().answered(404, tagged), hit().with({"If-None-Match: \"abcdef\""}).gives(404)}});
  cases.push_back(
      {"RFC9111_4_3_2_AFillIgnoresTheClientsCondition",
       {fill(tagged).with({"If-None-Match: \"abcdef\""}).hiding({"If-None-Match"}).gives(304),
        hit()}});
  cases.push_back(
      {"RFC9111_4_3_2_AFillIgnoresTheClientsDate",
       {fill(dated).with({"If-Modified-Since: @-1000"}).hiding({"If-Modified-Since"}).gives(304),
        hit()}});
  cases.push_back({"RFC9111_4_3_2_WhatIsKnownToBeUnstorableIsAskedForWithTheClientsCondition",
                   {fill({"Cache-Control: no-store", "ETag: \"a\""}),
                    miss({"Cache-Control: no-store", "ETag: \"a\""})
                        .with({"If-None-Match: \"a\""})
                        .reaching({"If-None-Match: \"a\""})
                        .answering_304()
                        .gives(304)}});
  cases.push_back({"RFC9110_13_1_1_ConditionsOfUnsafeRequestsReachTheOrigin",
                   {fill(tagged),
                    does("PUT")
                        .sending("new")
                        .with({"If-Match: \"x\""})
                        .reaching({"If-Match: \"x\""})
                        .answered(412)
                        .gives(412),
                    hit().of(1)}});
  cases.push_back({"RFC9111_4_3_2_AFillForAConditionThatFails",
                   {fill(tagged).with({"If-Match: \"x\""}).gives(412), hit()}});
}

void add_head(Cases& cases) {
  const Fields old = stale({"X-Kept: 1", "X-Changed: old", "ETag: \"a\""});
  cases.push_back({"RFC9111_4_3_5_HeadFreshens",
                   {fill(old), does("HEAD", fresh({"X-Changed: new", "ETag: \"a\""})),
                    hit().having({"X-Kept: 1", "X-Changed: new"}).of(1)}});
  cases.push_back(
      {"RFC9111_4_3_5_HeadWithAnotherTagMarksStale",
       {fill(old), does("HEAD", fresh({"ETag: \"b\""})), miss(fresh({"ETag: \"b\""}))}});
  cases.push_back({"RFC9111_4_3_5_HeadWithAnotherDateMarksStale",
                   {fill(stale({"Last-Modified: @-5000"})),
                    does("HEAD", fresh({"Last-Modified: @-4000"})), miss(fresh({}))}});
  cases.push_back(
      {"RFC9111_4_3_5_HeadWithAnotherLengthMarksStale",
       {fill(old), does("HEAD", fresh({"ETag: \"a\""})).origin_sends("longer than that was"),
        miss(fresh({"ETag: \"a\""}))}});
  cases.push_back(
      {"RFC9111_4_3_5_HeadWithAnErrorChangesNothing",
       {fill(fresh({"ETag: \"a\""})),
        does("HEAD").with({"Cache-Control: no-cache"}).answered(500).gives(500), hit().of(1)}});
  cases.push_back({"RFC9111_4_3_5_HeadNotFoundMarksStale",
                   {fill(fresh({"ETag: \"a\""})),
                    does("HEAD").with({"Cache-Control: no-cache"}).answered(404).gives(404),
                    miss(fresh({"ETag: \"a\""}))}});
  cases.push_back(
      {"RFC9111_4_3_5_HeadIsValidated",
       {fill(old), does("HEAD", fresh({"ETag: \"a\""})).answering_304().of(1), hit().of(1)}});
  cases.push_back({"RFC9111_4_3_5_HeadFreshensALargeBody",
                   {fill(stale({"ETag: \"a\""})).origin_sends(std::string(300'000, 'h')),
                    does("HEAD", fresh({"ETag: \"a\"", "X-New: 1"})).answering_304().of(1),
                    hit().of(1).having({"X-New: 1"})}});
}

}  // namespace

Cases validation_cases() {
  Cases cases;
  add_validators(cases);
  add_answers(cases);
  add_conditions(cases);
  add_head(cases);
  return cases;
}

}  // namespace mcs::conformance
