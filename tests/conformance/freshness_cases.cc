// SPDX-License-Identifier: Apache-2.0
// RFC 9111 4.2: how long a response is fresh, as max-age, s-maxage, Expires, or nothing says it.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

struct Row {
  std::string name;
  Fields answer;
};

// "Age: 100" makes a lifetime of 1 s a thing of the past without any wait.
const Row kFresh[] = {
    {"1_MaxAge", {"Cache-Control: max-age=3600"}},
    {"1_MaxAgeAboveTheAge", {"Cache-Control: max-age=3600", "Age: 1000"}},
    {"1_MaxAgeOf31Bits", {"Cache-Control: max-age=2147483647"}},
    {"1_MaxAgeAbove31Bits", {"Cache-Control: max-age=2147483648"}},
    {"1_MaxAgeAbove64Bits", {"Cache-Control: max-age=99999999999999999999"}},
    {"1_MaxAgeOverridesExpires", {"Cache-Control: max-age=3600", "Expires: @-7200"}},
    {"1_MaxAgeOverridesInvalidExpires", {"Cache-Control: max-age=3600", "Expires: 0"}},
    {"1_MaxAgeInMixedCase", {"Cache-Control: MaX-aGe=3600"}},
    {"1_MaxAgeQuoted", {"Cache-Control: max-age=\"3600\""}},
    {"1_MaxAgeWithLeadingZeros", {"Cache-Control: max-age=003600", "Age: 100"}},
    {"1_MaxAgeAfterAnUnknownDirective", {"Cache-Control: foobar, max-age=3600"}},
    {"1_MaxAgeAfterEmptyMembers", {"Cache-Control: ,, ,max-age=3600"}},
    {"1_MaxAgeAfterATab", {"Cache-Control: public,\tmax-age=3600"}},
    {"1_MaxAgeInASecondLine", {"Cache-Control: public", "Cache-Control: max-age=3600"}},
    {"1_FirstMaxAgeCounts", {"Cache-Control: max-age=1800, max-age=1", "Age: 100"}},
    {"1_MaxAgeAfterAQuotedOne", {"Cache-Control: x=\"max-age=1\", max-age=3600", "Age: 100"}},
    {"1_SMaxAge", {"Cache-Control: s-maxage=3600"}},
    {"1_SMaxAgeOverridesMaxAge", {"Cache-Control: max-age=1, s-maxage=3600", "Age: 100"}},
    {"1_SMaxAgeOverridesMaxAgeZero", {"Cache-Control: s-maxage=3600, max-age=0"}},
    {"1_SMaxAgeOverridesExpires", {"Cache-Control: s-maxage=3600", "Expires: @-10"}},
    {"1_SMaxAgeInMixedCase", {"Cache-Control: S-MaxAge=3600"}},
    {"1_SMaxAgeQuoted", {"Cache-Control: s-maxage=\"3600\""}},
    {"1_Expires", {"Expires: @3600"}},
    {"1_ExpiresFarAway", {"Expires: @2592000"}},
    {"1_ExpiresAboveTheAge", {"Expires: @3600", "Age: 1000"}},
    {"1_ExpiresAfterAnOldDate", {"Expires: @3600", "Date: @-1000"}},
    {"1_ExpiresWithInvalidDate", {"Expires: @600", "Date: foo"}},
    {"1_ExpiresWithoutDate", {"Expires: @600", "Date: -"}},
    {"1_SameExpiresTwice", {"Expires: @3600", "Expires: @3600"}},
    {"1_PragmaOfAResponseMeansNothing", {"Cache-Control: max-age=3600", "Pragma: no-cache"}},
};

const Row kNotFresh[] = {
    {"_NoInformation", {}},
    {"1_MaxAgeZero", {"Cache-Control: max-age=0"}},
    {"1_MaxAgeBelowTheAge", {"Cache-Control: max-age=3600", "Age: 7200"}},
    {"1_MaxAgeEqualToTheAge", {"Cache-Control: max-age=3600", "Age: 3600"}},
    {"1_MaxAgeBelowTheApparentAge", {"Cache-Control: max-age=3600", "Date: @-7200"}},
    {"1_MaxAgeNegative", {"Cache-Control: max-age=-3600"}},
    {"1_MaxAgeWithoutValue", {"Cache-Control: max-age"}},
    {"1_MaxAgeEmpty", {"Cache-Control: max-age="}},
    {"1_MaxAgeOfLetters", {"Cache-Control: max-age=abc"}},
    {"1_MaxAgeInSingleQuotes", {"Cache-Control: max-age='3600'"}},
    {"1_MaxAgeWithFraction", {"Cache-Control: max-age=3600.5"}},
    {"1_MaxAgeWithUnit", {"Cache-Control: max-age=3600s"}},
    {"1_MaxAgeHexadecimal", {"Cache-Control: max-age=0x3600"}},
    {"1_MaxAgeWithSpaceBeforeTheSign", {"Cache-Control: max-age =3600"}},
    {"1_MaxAgeWithSpaceAfterTheSign", {"Cache-Control: max-age= 3600"}},
    {"1_MaxAgeOnlyInAQuotedString", {"Cache-Control: x=\"max-age=3600\""}},
    {"1_MaxAgeBeforeAQuotedOne", {"Cache-Control: max-age=1, x=\"max-age=3600\"", "Age: 100"}},
    {"1_FirstMaxAgeCountsInLines",
     {"Cache-Control: max-age=1", "Cache-Control: max-age=1800", "Age: 100"}},
    {"1_MaxAgeZeroOverridesExpires", {"Cache-Control: max-age=0", "Expires: @3600"}},
    {"1_InvalidMaxAgeOverridesExpires", {"Cache-Control: max-age=x", "Expires: @3600"}},
    {"1_SmallSMaxAgeOverridesMaxAge", {"Cache-Control: max-age=3600, s-maxage=1", "Age: 100"}},
    {"1_SmallSMaxAgeInASecondLine",
     {"Cache-Control: max-age=3600", "Cache-Control: s-maxage=1", "Age: 100"}},
    {"1_SMaxAgeZeroOverridesMaxAge", {"Cache-Control: max-age=3600, s-maxage=0"}},
    {"1_InvalidSMaxAge", {"Cache-Control: s-maxage=x, max-age=3600"}},
    {"1_ExpiresInThePast", {"Expires: @-3600"}},
    {"1_ExpiresNow", {"Expires: @0", "Date: @0"}},
    {"1_ExpiresBeforeDate", {"Expires: @300", "Date: @400"}},
    {"1_ExpiresBelowTheAge", {"Expires: @3600", "Date: @0", "Age: 7200"}},
    {"1_ExpiresZero", {"Expires: 0"}},
    {"1_ExpiresMinusOne", {"Expires: -1"}},
    {"1_ExpiresEmpty", {"Expires:"}},
    {"1_DifferentExpires", {"Expires: @3600", "Expires: @7200"}},
    {"1_PublicAlone", {"Cache-Control: public"}},
    {"1_ImmutableAlone", {"Cache-Control: immutable"}},
};

void add_heuristics(Cases& cases) {
  const Fields modified = {"Last-Modified: @-864000"};
  for (const int status : {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}) {
    cases.push_back(
        reused("RFC9111_4_2_2_HeuristicForStatus" + std::to_string(status), modified, status));
  }
  for (const int status : {201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504}) {
    cases.push_back(not_reused("RFC9111_4_2_2_NoHeuristicForStatus" + std::to_string(status),
                               modified, status));
  }
  for (const int status : {201, 302, 403, 503}) {
    cases.push_back(reused("RFC9111_4_2_2_PublicHeuristicForStatus" + std::to_string(status),
                           {"Last-Modified: @-864000", "Cache-Control: public"}, status));
  }
  const Row fresh[] = {
      {"OldLastModified", {"Last-Modified: @-864000"}},
      {"OldLastModifiedAboveTheAge", {"Last-Modified: @-864000", "Age: 1000"}},
      {"LastModifiedWithETag", {"Last-Modified: @-864000", "ETag: \"a\""}},
      {"AsctimeLastModified", {"Last-Modified: Sun Nov  6 08:49:37 1994"}},
      {"Rfc850LastModified", {"Last-Modified: Sunday, 06-Nov-94 08:49:37 GMT"}},
      {"PragmaOfAResponseMeansNothing", {"Last-Modified: @-864000", "Pragma: no-cache"}},
      {"UnknownDirectivesMeanNothing", {"Last-Modified: @-864000", "Cache-Control: foo, a=b"}},
  };
  const Row not_fresh[] = {
      {"ETagAloneIsNoDate", {"ETag: \"a\""}},
      {"YoungLastModified", {"Last-Modified: @-9"}},
      {"LastModifiedBelowTheAge", {"Last-Modified: @-1000", "Age: 200"}},
      {"LastModifiedInTheFuture", {"Last-Modified: @1000"}},
      {"InvalidLastModified", {"Last-Modified: yesterday"}},
      {"NoHeuristicBesideMaxAge", {"Last-Modified: @-864000", "Cache-Control: max-age=0"}},
      {"NoHeuristicBesideInvalidExpires", {"Last-Modified: @-864000", "Expires: 0"}},
      {"AtMostADay", {"Last-Modified: @-86400000", "Age: 86500"}},
  };
  for (const Row& row : fresh) {
    cases.push_back(reused("RFC9111_4_2_2_" + row.name, row.answer));
  }
  for (const Row& row : not_fresh) {
    cases.push_back(not_reused("RFC9111_4_2_2_" + row.name, row.answer));
  }
}

}  // namespace

Cases freshness_cases() {
  Cases cases;
  for (const Row& row : kFresh) cases.push_back(reused("RFC9111_4_2_" + row.name, row.answer));
  for (const Row& row : kNotFresh) {
    cases.push_back(not_reused("RFC9111_4_2_" + row.name + "IsNotFresh", row.answer));
  }
  add_heuristics(cases);
  return cases;
}

Cases date_cases() {
  const struct {
    std::string name, expires;
    bool fresh;
  } rows[] = {
      {"ImfFixdate", "Thu, 18 Aug 2050 02:01:18 GMT", true},
      {"ImfFixdateAfter2038", "Tue, 19 Jan 2038 14:14:08 GMT", true},
      {"ImfFixdateAfter2286", "Sun, 21 Nov 2286 04:46:39 GMT", true},
      {"ImfFixdateOfTheYear9999", "Fri, 31 Dec 9999 23:59:59 GMT", true},
      {"ImfFixdateOfALeapDay", "Tue, 29 Feb 2028 12:00:00 GMT", true},
      {"Rfc850Date", "Thursday, 18-Aug-50 02:01:18 GMT", true},
      {"AsctimeDate", "Thu Aug  8 02:01:18 2050", true},
      {"AsctimeDateWithTwoDigits", "Thu Aug 18 02:01:18 2050", true},
      {"MixedCase", "THU, 18 AUG 2050 02:01:18 gMT", true},
      {"Rfc850DateOfLastCentury", "Sunday, 06-Nov-94 08:49:37 GMT", false},
      {"NoZone", "Thu, 18 Aug 2050 02:01:18", false},
      {"InUtc", "Thu, 18 Aug 2050 02:01:18 UTC", false},
      {"InAnotherZone", "Thu, 18 Aug 2050 02:01:18 AEST", false},
      {"NoComma", "Thu 18 Aug 2050 02:01:18 GMT", false},
      {"TwoDigitYear", "Thu, 18 Aug 50 02:01:18 GMT", false},
      {"TwoSpaces", "Thu, 18  Aug  2050 02:01:18 GMT", false},
      {"Dashes", "Thu, 18-Aug-2050 02:01:18 GMT", false},
      {"Periods", "Thu, 18 Aug 2050 02.01.18 GMT", false},
      {"OneDigitHour", "Thu, 18 Aug 2050 2:01:18 GMT", false},
      {"Hour25", "Thu, 18 Aug 2050 25:01:18 GMT", false},
      {"Day32", "Thu, 32 Aug 2050 02:01:18 GMT", false},
      {"UnknownMonth", "Thu, 18 Abc 2050 02:01:18 GMT", false},
      {"Iso8601", "2050-08-18T02:01:18Z", false},
      {"SecondsSinceTheEpoch", "2544400878", false},
  };
  Cases cases;
  for (const auto& row : rows) {
    const Fields answer = {"Expires: " + row.expires};
    const std::string name = "RFC9110_5_6_7_Expires" + row.name;
    cases.push_back(row.fresh ? reused(name, answer) : not_reused(name + "IsNotFresh", answer));
  }
  return cases;
}

Cases age_cases() {
  Cases cases;
  const struct {
    std::string name;
    Fields ages;
    bool fresh;
  } rows[] = {
      {"Letters", {"Age: abc"}, true},
      {"Negative", {"Age: -7200"}, true},
      {"Fraction", {"Age: 7200.0"}, true},
      {"Empty", {"Age:"}, true},
      {"Zero", {"Age: 0"}, true},
      {"Below", {"Age: 3000"}, true},
      {"Above", {"Age: 7200"}, false},
      {"LeadingZeros", {"Age: 0007200"}, false},
      {"Of31Bits", {"Age: 2147483647"}, false},
      {"Above31Bits", {"Age: 2147483649"}, false},
      {"Above64Bits", {"Age: 99999999999999999999"}, false},
      {"ListWithALargeOneFirst", {"Age: 7200, 0"}, false},
      {"ListWithALargeOneLast", {"Age: 0, 7200"}, true},
      {"LinesWithALargeOneFirst", {"Age: 7200", "Age: 0"}, false},
      {"LinesWithALargeOneLast", {"Age: 0", "Age: 7200"}, true},
      {"SmallLines", {"Age: 3000", "Age: 3000"}, true},
  };
  for (const auto& row : rows) {
    Fields answer = row.ages;
    answer.push_back("Cache-Control: max-age=3600");
    const std::string name = "RFC9111_5_1_Age" + row.name;
    cases.push_back(row.fresh ? reused(name, answer) : not_reused(name + "IsNotFresh", answer));
  }
  const auto sent = [&](std::string name, Fields answer, std::string age) {
    answer.push_back("Cache-Control: max-age=360000");
    cases.push_back(
        {"RFC9111_" + std::move(name), {fill(std::move(answer)), hit().having({"Age: " + age})}});
  };
  sent("5_1_AgeIsSentWithAHit", {}, "0..60");
  sent("4_2_3_AgeOfACacheBeforeUsGoesOn", {"Age: 1000"}, "1000..1060");
  sent("4_2_3_ApparentAgeOfAnOldDate", {"Date: @-2000"}, "2000..2060");
  sent("4_2_3_LargerOfAgeAndApparentAge", {"Date: @-2000", "Age: 500"}, "2000..2060");
  sent("4_2_3_AgeValueIsNotAddedToTheApparentAge", {"Date: @-2000", "Age: 3000"}, "3000..3060");
  sent("4_2_3_DateInTheFutureIsNoNegativeAge", {"Date: @2000"}, "0..60");
  sent("4_2_3_NoDate", {"Date: -"}, "0..60");
  sent("4_2_3_InvalidDate", {"Date: sometime"}, "0..60");
  sent("4_2_3_InvalidAgeIsNotSent", {"Age: abc"}, "0..60");
  sent("4_2_3_OneAgeIsSentForSeveral", {"Age: 100", "Age: 200"}, "100..160");
  cases.push_back(
      {"RFC9110_6_6_1_StoredDateIsSent",
       {fill({"Cache-Control: max-age=3600", "Date: @-100"}), hit().having({"Date: @-100"})}});
  cases.push_back({"RFC9110_6_6_1_DateIsAddedToWhatHasNone",
                   {fill({"Cache-Control: max-age=3600", "Date: -"}), hit().having({"Date: *"})}});
  cases.push_back({"RFC9111_5_1_AgeStartsAgainAfterValidation",
                   {fill({"Cache-Control: max-age=3600", "Age: 7200", "ETag: \"a\""}),
                    checked({"Cache-Control: max-age=3600", "ETag: \"a\""}).having({"Age: 0..60"}),
                    hit().having({"Age: 0..60"})}});
  cases.push_back({"RFC9111_5_1_AgeOfTheAnswerToAValidation",
                   {fill({"Cache-Control: max-age=3600", "Age: 7200", "ETag: \"a\""}),
                    checked({"Cache-Control: max-age=3600", "ETag: \"a\"", "Age: 500"}),
                    hit().having({"Age: 500..560"})}});
  cases.push_back({"RFC9111_5_1_AgeOf304",
                   {fill({"Cache-Control: max-age=3600", "Age: 100", "ETag: \"a\""}),
                    hit().with({"If-None-Match: \"a\""}).gives(304).having({"Age: 100..160"})}});
  return cases;
}

}  // namespace mcs::conformance
