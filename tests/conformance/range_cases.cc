// SPDX-License-Identifier: Apache-2.0
// RFC 9110 14 and RFC 9111 3.3, 3.4: parts of stored responses, and what becomes of parts.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

const std::string kBody = "0123456789A";
const Fields kTagged = {"Cache-Control: max-age=3600", "ETag: \"a\"", "X-Own: 1"};

Step fill_body(Fields answer = kTagged) { return fill(std::move(answer)).origin_sends(kBody); }

void add_ranges_of_stored(Cases& cases) {
  const struct {
    std::string name, range;
    int status;
    std::string body, content_range;
  } rows[] = {
      {"FirstBytes", "bytes=0-1", 206, "01", "bytes 0-1/11"},
      {"FirstByte", "bytes=0-0", 206, "0", "bytes 0-0/11"},
      {"Middle", "bytes=3-5", 206, "345", "bytes 3-5/11"},
      {"OpenEnd", "bytes=1-", 206, "123456789A", "bytes 1-10/11"},
      {"Everything", "bytes=0-", 206, "0123456789A", "bytes 0-10/11"},
      {"EndBeyondTheLast", "bytes=9-99", 206, "9A", "bytes 9-10/11"},
      {"LargeEnd", "bytes=9-99999999999999999999", 206, "9A", "bytes 9-10/11"},
      {"Suffix", "bytes=-1", 206, "A", "bytes 10-10/11"},
      {"SuffixOfFive", "bytes=-5", 206, "6789A", "bytes 6-10/11"},
      {"SuffixLongerThanAll", "bytes=-100", 206, "0123456789A", "bytes 0-10/11"},
      {"UnitInUpperCase", "BYTES=0-1", 206, "01", "bytes 0-1/11"},
      {"EmptyMembers", "bytes=,0-1,", 206, "01", "bytes 0-1/11"},
      {"OneOfTwoIsSatisfiable", "bytes=0-1, 20-30", 206, "01", "bytes 0-1/11"},
      {"StartBeyondTheEnd", "bytes=11-", 416, "", "bytes */11"},
      {"SuffixOfNothing", "bytes=-0", 416, "", "bytes */11"},
      {"OtherUnit", "lines=1-2", 200, kBody, ""},
      {"NoUnit", "0-1", 200, kBody, ""},
      {"LastBeforeFirst", "bytes=5-3", 200, kBody, ""},
      {"Letters", "bytes=a-b", 200, kBody, ""},
      {"NoNumbers", "bytes=-", 200, kBody, ""},
  };
  for (const auto& row : rows) {
    Step part = hit().with({"Range: " + row.range});
    if (row.status == 416) {
      part.gives(416);
    } else {
      part.gives(row.status, row.body);
    }
    if (row.content_range.empty()) {
      part.lacking({"Content-Range"});
    } else {
      part.having({"Content-Range: " + row.content_range});
    }
    cases.push_back({"RFC9110_14_2_" + row.name, {fill_body(), part}});
  }
  cases.push_back({"RFC9110_14_6_SeveralRanges",
                   {fill_body({"Cache-Control: max-age=3600", "Content-Type: text/x-own"}),
                    hit()
                        .with({"Range: bytes=0-1, 5-6"})
                        .gives(206)
                        .with_any_body()
                        .having({"Content-Type: ~multipart/byteranges; boundary="})
                        .lacking({"Content-Range"})}});
  cases.push_back({"RFC9110_14_2_TwoRangesOfWhichOneIsEverything",
                   {fill_body(), hit().with({"Range: bytes=0-, 2-3"}).with_any_body().gives(206)}});
  std::string many = "bytes=";
  for (int i = 0; i < 100; ++i) many += "0-0,";
  cases.push_back({"RFC9110_14_2_TooManyRangesAreIgnored",
                   {fill_body(), hit().with({"Range: " + many}).gives(200, kBody)}});
  cases.push_back({"RFC9110_15_3_7_APartCarriesTheFields",
                   {fill_body(), hit()
                                     .with({"Range: bytes=0-1"})
                                     .gives(206, "01")
                                     .having({"ETag: \"a\"", "X-Own: 1", "Content-Length: 2",
                                              "Cache-Control: max-age=3600", "Age: *"})}});
  cases.push_back({"RFC9110_14_3_AcceptRanges",
                   {fill_body(), hit().having({"Accept-Ranges: bytes"}).gives(kBody)}});
  cases.push_back(
      {"RFC9110_14_2_RangeOfAHeadIsIgnored",
       {fill_body(),
        head_hit().with({"Range: bytes=0-1"}).gives(200).having({"Content-Length: 11"})}});
  cases.push_back({"RFC9110_14_2_RangeOfAnErrorIsIgnored",
                   {fill_body().answered(404, kTagged),
                    hit().with({"Range: bytes=0-1"}).gives(404).with_any_body()}});
  cases.push_back(
      {"RFC9110_14_2_ConditionsComeFirst",
       {fill_body(), hit().with({"Range: bytes=0-1", "If-None-Match: \"a\""}).gives(304)}});
  cases.push_back({"RFC9110_14_2_PartsOfALargeBody",
                   {fill(kTagged).origin_sends(std::string(1'000'000, 'a') + "xyz"),
                    hit().with({"Range: bytes=999999-1000001"}).gives(206, "axy"),
                    hit().with({"Range: bytes=-2"}).gives(206, "yz"),
                    hit().with({"Range: bytes=0-9"}).gives(206, "aaaaaaaaaa")}});
}

void add_if_range(Cases& cases) {
  const std::string range = "Range: bytes=0-1";
  const Fields dated = {"Cache-Control: max-age=3600", "Last-Modified: @-3000"};
  const struct {
    std::string name;
    Fields answer;
    std::string condition;
    bool part;
  } rows[] = {
      {"Tag", kTagged, "\"a\"", true},
      {"OtherTag", kTagged, "\"b\"", false},
      {"WeakTag", kTagged, "W/\"a\"", false},
      {"TagOfAWeakOne", {"Cache-Control: max-age=3600", "ETag: W/\"a\""}, "W/\"a\"", false},
      {"Date", dated, "@-3000", true},
      {"EarlierDate", dated, "@-4000", false},
      {"LaterDate", dated, "@-2000", false},
      {"DateOfWhatHasNone", kTagged, "@-3000", false},
      {"Nonsense", kTagged, "whatever", false},
  };
  for (const auto& row : rows) {
    Step part = hit().with({range, "If-Range: " + row.condition});
    row.part ? part.gives(206, "01") : part.gives(200, kBody);
    cases.push_back({"RFC9110_13_1_5_IfRangeWith" + row.name, {fill_body(row.answer), part}});
  }
}

void add_misses(Cases& cases) {
  cases.push_back({"RFC9111_3_3_AMissForAPartFillsTheWhole",
                   {fill_body()
                        .with({"Range: bytes=2-3"})
                        .hiding({"Range"})
                        .gives(206, "23")
                        .having({"Content-Range: bytes 2-3/11"}),
                    hit().gives(200, kBody), hit().with({"Range: bytes=-1"}).gives(206, "A")}});
  cases.push_back({"RFC9111_3_3_AMissForASuffixFillsTheWhole",
                   {fill_body().with({"Range: bytes=-4"}).hiding({"Range"}).gives(206, "789A"),
                    hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_3_3_AMissForNoPartFillsTheWhole",
                   {fill_body().with({"Range: bytes=20-"}).gives(416), hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_3_3_AMissWithIfRangeFillsTheWhole",
                   {fill_body()
                        .with({"Range: bytes=0-1", "If-Range: \"a\""})
                        .hiding({"Range", "If-Range"})
                        .gives(206, "01"),
                    hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_3_3_AMissForSeveralParts",
                   {fill_body().with({"Range: bytes=0-1,4-5"}).with_any_body().gives(200),
                    hit().gives(200, kBody)}});
  cases.push_back(
      {"RFC9111_3_3_AMissOfAnUnstorableResponse",
       {fill_body({"Cache-Control: no-store"}).with({"Range: bytes=0-1"}).gives(206, "01"),
        miss({"Cache-Control: no-store"}).origin_sends(kBody)}});
  cases.push_back({"RFC9111_3_3_WhatIsKnownToBeUnstorableIsAskedForInPart",
                   {fill_body({"Cache-Control: no-store"}),
                    miss()
                        .with({"Range: bytes=0-1"})
                        .answered(206, {"Cache-Control: no-store", "Content-Range: bytes 0-1/11"})
                        .origin_sends("01")
                        .reaching({"Range: bytes=0-1"})
                        .having({"Content-Range: bytes 0-1/11"})}});
  cases.push_back({"RFC9111_3_3_AnUnaskedPartIsNotStored",
                   {fill()
                        .answered(206, {"Cache-Control: max-age=3600", "ETag: \"a\"",
                                        "Content-Range: bytes 0-1/11"})
                        .origin_sends("01"),
                    miss(kTagged).origin_sends(kBody), hit()}});
  cases.push_back({"RFC9111_3_4_APartNeverAnswersAWholeRequest",
                   {fill_body({"Cache-Control: no-store"}),
                    miss()
                        .with({"Range: bytes=0-1"})
                        .answered(206, {"Cache-Control: max-age=3600", "ETag: \"a\"",
                                        "Content-Range: bytes 0-1/11"})
                        .origin_sends("01"),
                    miss(kTagged).origin_sends(kBody), hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_3_4_416IsNotStored",
                   {fill_body({"Cache-Control: no-store"}),
                    miss()
                        .with({"Range: bytes=20-"})
                        .answered(416, {"Cache-Control: max-age=3600", "Content-Range: bytes */11"})
                        .gives(416),
                    miss(kTagged).origin_sends(kBody)}});
  cases.push_back({"RFC9111_4_3_1_APartOfWhatIsStaleIsValidatedWhole",
                   {fill_body({"Cache-Control: max-age=10", "Age: 20", "ETag: \"a\""}),
                    checked(kTagged)
                        .with({"Range: bytes=2-3"})
                        .hiding({"Range"})
                        .gives(206, "23")
                        .having({"Content-Range: bytes 2-3/11"}),
                    hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_4_3_3_APartOfWhatHasChanged",
                   {fill_body({"Cache-Control: max-age=10", "Age: 20", "ETag: \"a\""}),
                    miss({"Cache-Control: max-age=3600", "ETag: \"b\""})
                        .origin_sends("abcdefghij")
                        .with({"Range: bytes=2-3"})
                        .gives(206, "cd"),
                    hit().gives(200, "abcdefghij")}});
  cases.push_back({"RFC9111_3_3_AMissInChunksForAPart",
                   {fill_body().in_chunks().with({"Range: bytes=2-3"}).with_any_body().gives(200),
                    hit().with({"Range: bytes=2-3"}).gives(206, "23")}});
}

// What is known not to be storable as a whole is fetched, and stored, in parts.
void add_stored_parts(Cases& cases) {
  const Step unstorable = fill_body({"Cache-Control: no-store"});
  const auto tagged = [](const std::string& range, const std::string& tag = "\"a\"") {
    return Fields{"Cache-Control: max-age=3600", "ETag: " + tag, "X-Own: 1",
                  "Content-Range: bytes " + range};
  };
  // A request for a part that the origin answers with `bytes`.
  const auto part = [](const std::string& range, const Fields& answer, const std::string& bytes) {
    return miss()
        .with({"Range: bytes=" + range})
        .answered(206, answer)
        .origin_sends(bytes)
        .reaching({"Range: bytes=" + range})
        .gives(206, bytes);
  };
  const auto held = [](const std::string& range, const std::string& bytes,
                       const std::string& content_range) {
    return hit()
        .with({"Range: bytes=" + range})
        .gives(206, bytes)
        .having({"Content-Range: bytes " + content_range, "X-Own: 1", "Age: *"});
  };
  // A request that the origin sees, and answers with something that is not stored.
  const auto not_from_the_part = [](const Fields& request) {
    return miss()
        .with(request)
        .answered(206, {"Cache-Control: no-store", "Content-Range: bytes 0-1/11"})
        .origin_sends("xy")
        .reaching({"Range: *"});
  };
  const Step first = part("0-4", tagged("0-4/11"), "01234");
  cases.push_back({"RFC9111_3_3_APartIsStored",
                   {unstorable, first, held("0-4", "01234", "0-4/11"), held("1-2", "12", "1-2/11"),
                    held("0-0", "0", "0-0/11"), held("4-4", "4", "4-4/11")}});
  cases.push_back({"RFC9111_3_3_APartIsStoredForBothServers",
                   {unstorable, first, held("0-4", "01234", "0-4/11").on_the_other()}});
  cases.push_back({"RFC9111_3_3_TheLastPartIsStored",
                   {unstorable, part("-5", tagged("6-10/11"), "6789A"),
                    held("-3", "89A", "8-10/11"), held("7-", "789A", "7-10/11"),
                    held("6-99", "6789A", "6-10/11")}});
  cases.push_back({"RFC9111_3_3_WhatIsNotHeldIsAskedFor",
                   {unstorable, first, part("4-6", tagged("4-6/11", "\"b\""), "xyz")}});
  cases.push_back({"RFC9111_3_3_AStoredPartIsNotTheWhole",
                   {unstorable, first, miss(kTagged).origin_sends(kBody).gives(200, kBody),
                    hit().gives(200, kBody)}});
  cases.push_back({"RFC9111_3_3_AStoredPartIsNoneOfSeveral",
                   {unstorable, first,
                    not_from_the_part({"Range: bytes=0-1,3-4"})}});
  cases.push_back(
      {"RFC9111_3_3_OnlyIfCachedGetsAPart",
       {unstorable, first,
        hit().with({"Range: bytes=0-1", "Cache-Control: only-if-cached"}).gives(206, "01"),
        hit().with({"Range: bytes=0-5", "Cache-Control: only-if-cached"}).gives(504)}});
  cases.push_back({"RFC9111_4_3_2_APartAnswersACondition",
                   {unstorable, first,
                    hit().with({"Range: bytes=0-1", "If-None-Match: \"a\""}).gives(304)}});
  cases.push_back({"RFC9110_13_1_5_IfRangeOfAStoredPart",
                   {unstorable, first,
                    hit().with({"Range: bytes=0-1", "If-Range: \"a\""}).gives(206, "01"),
                    not_from_the_part({"Range: bytes=0-1", "If-Range: \"b\""})}});
  cases.push_back({"RFC9111_4_2_AStalePartIsAskedFor",
                   {unstorable,
                    part("0-4", {"Cache-Control: max-age=10", "Age: 20", "ETag: \"a\"",
                                 "Content-Range: bytes 0-4/11"},
                         "01234"),
                    part("0-4", tagged("0-4/11"), "01234"), held("0-4", "01234", "0-4/11")}});
  cases.push_back({"RFC9111_4_4_AnUnsafeRequestInvalidatesAPart",
                   {unstorable, first, does("POST", {}),
                    fill_body().with({"Range: bytes=0-4"}).hiding({"Range"}).gives(206, "01234")}});
  cases.push_back({"Purge_OfAPart", {unstorable, first, purge(), fill_body(kTagged), hit()}});
  cases.push_back({"RFC9111_4_1_APartOfAVariant",
                   {unstorable,
                    part("0-4",
                         {"Cache-Control: max-age=3600", "ETag: \"a\"", "X-Own: 1", "Vary: X-A",
                          "Content-Range: bytes 0-4/11"},
                         "01234"),
                    held("1-2", "12", "1-2/11"),
                    not_from_the_part({"Range: bytes=1-2", "X-A: 1"})}});

  const struct {
    std::string name, one, one_is, one_bytes, other, other_is, other_bytes;
  } joined[] = {
      {"Following", "0-4", "0-4/11", "01234", "5-10", "5-10/11", "56789A"},
      {"Preceding", "5-10", "5-10/11", "56789A", "0-4", "0-4/11", "01234"},
      {"Overlapping", "0-6", "0-6/11", "0123456", "4-10", "4-10/11", "456789A"},
      {"OverlappingBefore", "4-10", "4-10/11", "456789A", "0-6", "0-6/11", "0123456"},
      {"Surrounding", "3-5", "3-5/11", "345", "0-10", "0-10/11", "0123456789A"},
  };
  for (const auto& row : joined) {
    cases.push_back({"RFC9111_3_4_" + row.name + "PartsMakeTheWhole",
                     {unstorable, part(row.one, tagged(row.one_is), row.one_bytes),
                      part(row.other, tagged(row.other_is), row.other_bytes),
                      hit().gives(200, kBody).lacking({"Content-Range"}).having({"X-Own: 1"}),
                      held("3-7", "34567", "3-7/11")}});
  }
  cases.push_back({"RFC9111_3_4_AGrowingPart",
                   {unstorable, part("4-5", tagged("4-5/11"), "45"),
                    part("6-7", tagged("6-7/11"), "67"), part("2-4", tagged("2-4/11"), "234"),
                    part("0-5", tagged("0-5/11"), "012345"), held("1-7", "1234567", "1-7/11"),
                    part("6-8", tagged("6-8/11"), "678"), held("0-8", "012345678", "0-8/11"),
                    miss(kTagged).origin_sends(kBody).gives(200, kBody)}});
  cases.push_back({"RFC9110_15_3_7_3_TheLaterPartGivesTheFields",
                   {unstorable, first,
                    part("5-6",
                         {"Cache-Control: max-age=100", "ETag: \"a\"", "X-Own: 2",
                          "Content-Range: bytes 5-6/11"},
                         "56"),
                    hit()
                        .with({"Range: bytes=3-6"})
                        .gives(206, "3456")
                        .having({"X-Own: 2", "Cache-Control: max-age=100"})}});
  const struct {
    std::string name, range, bytes, tag;
  } apart[] = {{"WithAGap", "6-7/11", "67", "\"a\""},
               {"WithAnotherTag", "5-7/11", "567", "\"b\""},
               {"OfAnotherLength", "5-7/12", "567", "\"a\""}};
  for (const auto& row : apart) {
    const std::string range = row.range.substr(0, 3);
    cases.push_back({"RFC9111_3_4_Parts" + row.name + "StayApart",
                     {unstorable, first, part(range, tagged(row.range, row.tag), row.bytes),
                      held(range, row.bytes, row.range),
                      part("0-4", tagged("0-4/11", row.tag), "01234")}});
  }
  const struct {
    std::string name;
    Fields answer;
  } refused[] = {
      {"WithoutATag", {"Cache-Control: max-age=3600", "Content-Range: bytes 0-4/11"}},
      {"WithAWeakTag", tagged("0-4/11", "W/\"a\"")},
      {"OfUnknownLength", tagged("0-4/*")},
      {"OfAnotherSize", tagged("0-9/11")},
      {"BeyondTheEnd", tagged("0-4/3")},
      {"InAnotherUnit",
       {"Cache-Control: max-age=3600", "ETag: \"a\"", "Content-Range: lines 0-4/11"}},
      {"WithoutContentRange", {"Cache-Control: max-age=3600", "ETag: \"a\""}},
      {"OfNoStore",
       {"Cache-Control: no-store", "ETag: \"a\"", "Content-Range: bytes 0-4/11"}},
  };
  for (const auto& row : refused) {
    cases.push_back({"RFC9111_3_3_APart" + row.name + "IsNotStored",
                     {unstorable, part("0-4", row.answer, "01234"),
                      part("0-4", row.answer, "01234")}});
  }
}

}  // namespace

Cases range_cases() {
  Cases cases;
  add_ranges_of_stored(cases);
  add_if_range(cases);
  add_misses(cases);
  add_stored_parts(cases);
  return cases;
}

}  // namespace mcs::conformance
