// SPDX-License-Identifier: Apache-2.0
// RFC 9111 4.1 and RFC 9110 12.5.5: Vary.
#include "tests/conformance/case.h"

namespace mcs::conformance {
namespace {

Fields varying(const std::string& vary) { return {"Cache-Control: max-age=3600", "Vary: " + vary}; }

}  // namespace

Cases vary_cases() {
  const struct {
    std::string name, vary;
    Fields first, second;
    bool same;
  } rows[] = {
      {"SameValue", "Foo", {"Foo: 1"}, {"Foo: 1"}, true},
      {"OtherValue", "Foo", {"Foo: 1"}, {"Foo: 2"}, false},
      {"NameInOtherCase", "fOO", {"Foo: 1"}, {"foo: 1"}, true},
      {"ValueInOtherCase", "Foo", {"Foo: a"}, {"Foo: A"}, false},
      {"Added", "Foo", {}, {"Foo: 1"}, false},
      {"Left", "Foo", {"Foo: 1"}, {}, false},
      {"NeitherHasIt", "Foo", {}, {}, true},
      {"LongValuesThatDifferAtTheEnd",
       "Foo",
       {"Foo: " + std::string(3000, 'v') + "1"},
       {"Foo: " + std::string(3000, 'v') + "2"},
       false},
      {"OthersMayDiffer", "Foo", {"Foo: 1", "Bar: 2"}, {"Foo: 1", "Bar: 3"}, true},
      {"PartOfAValue", "Foo", {"Foo: 1"}, {"Foo: 11"}, false},
      {"TwoNames", "Foo, Bar", {"Foo: 1", "Bar: a"}, {"Bar: a", "Foo: 1"}, true},
      {"TwoNamesFirstDiffers", "Foo, Bar", {"Foo: 1", "Bar: a"}, {"Foo: 2", "Bar: a"}, false},
      {"TwoNamesSecondDiffers", "Foo, Bar", {"Foo: 1", "Bar: a"}, {"Foo: 1", "Bar: b"}, false},
      {"TwoNamesSwapped", "Foo, Bar", {"Foo: 1", "Bar: 2"}, {"Foo: 2", "Bar: 1"}, false},
      {"ThreeNamesOneAbsent", "Foo, Bar, Baz", {"Foo: 1", "Baz: 7"}, {"Foo: 1", "Baz: 7"}, true},
      {"ThreeNamesOneAdded",
       "Foo, Bar, Baz",
       {"Foo: 1", "Baz: 7"},
       {"Foo: 1", "Bar: 2", "Baz: 7"},
       false},
      {"NamesWithoutSpaces", "Foo,Bar", {"Foo: 1", "Bar: a"}, {"Foo: 1", "Bar: b"}, false},
      {"EmptyMembers", ",, Foo ,", {"Foo: 1"}, {"Foo: 1"}, true},
      {"Star", "*", {"Foo: 1"}, {"Foo: 1"}, false},
      {"StarFirst", "*, Foo", {"Foo: 1"}, {"Foo: 1"}, false},
      {"StarLast", "Foo, *", {"Foo: 1"}, {"Foo: 1"}, false},
      {"StarInTheMiddle", "Foo, *, Bar", {"Foo: 1"}, {"Foo: 1"}, false},
      {"StarAfterAnEmptyMember", ", *", {"Foo: 1"}, {"Foo: 1"}, false},
      {"NoFieldName", "Foo Bar", {"Foo: 1"}, {"Foo: 1"}, false},
      {"SpacesInAList", "Foo", {"Foo: 1,2"}, {"Foo: 1 , 2"}, true},
      {"SpacesAround", "Foo", {"Foo: 1"}, {"Foo:   1  "}, true},
      {"LinesAsAList", "Foo", {"Foo: 1, 2"}, {"Foo: 1", "Foo: 2"}, true},
      {"OtherOrder", "Foo", {"Foo: 1, 2"}, {"Foo: 2, 1"}, false},
      {"LanguageInOtherCase",
       "Accept-Language",
       {"Accept-Language: en-GB"},
       {"Accept-Language: EN-gb"},
       true},
      {"LanguagesInOtherOrder",
       "Accept-Language",
       {"Accept-Language: en, de"},
       {"Accept-Language: De ,  eN"},
       true},
      {"LanguagesWithOtherWeights",
       "Accept-Language",
       {"Accept-Language: fr;q=0.5, it"},
       {"Accept-Language: fr, it;q=0.5"},
       false},
      {"LanguagesOrderedByWeight",
       "Accept-Language",
       {"Accept-Language: fr;q=0.5, it;q=0.9"},
       {"Accept-Language: it;q=0.90, fr;q=0.500"},
       true},
      {"OtherLanguage", "Accept-Language", {"Accept-Language: en"}, {"Accept-Language: it"}, false},
      {"CodingsInOtherOrder",
       "Accept-Encoding",
       {"Accept-Encoding: gzip, br"},
       {"Accept-Encoding: br,gzip"},
       true},
      {"OtherCoding", "Accept-Encoding", {"Accept-Encoding: gzip"}, {"Accept-Encoding: br"}, false},
      {"NoCoding", "Accept-Encoding", {"Accept-Encoding: gzip"}, {}, false},
      {"Cookie", "Cookie", {"Cookie: a=1"}, {"Cookie: a=2"}, false},
      {"SameCookie", "Cookie", {"Cookie: a=1; b=2"}, {"Cookie: a=1; b=2"}, true},
      {"UserAgent", "User-Agent", {"User-Agent: a b (c)"}, {"User-Agent: a b (c)"}, true},
      {"OtherUserAgent", "User-Agent", {"User-Agent: a"}, {"User-Agent: b"}, false},
      {"Accept",
       "Accept",
       {"Accept: text/html, text/plain;q=0.5"},
       {"Accept: text/html,text/plain; q=0.5"},
       true},
      {"Origin", "Origin", {"Origin: http://a.test"}, {"Origin: http://b.test"}, false},
  };
  Cases cases;
  for (const auto& row : rows) {
    const Fields answer = varying(row.vary);
    cases.push_back({"RFC9111_4_1_" + row.name,
                     {fill(answer).with(row.first),
                      row.same ? hit().with(row.second) : miss(answer).with(row.second)}});
  }
  cases.push_back(
      {"RFC9111_4_1_TwoVaryLines",
       {fill({"Cache-Control: max-age=3600", "Vary: Foo", "Vary: Bar"}).with({"Foo: 1", "Bar: 2"}),
        miss({"Cache-Control: max-age=3600", "Vary: Foo", "Vary: Bar"}).with({"Foo: 1", "Bar: 3"}),
        hit().with({"Foo: 1", "Bar: 2"}).of(1)}});
  cases.push_back({"RFC9111_4_1_StarInASecondLine",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo", "Vary: *"}).with({"Foo: 1"}),
                    miss({"Cache-Control: max-age=3600"}).with({"Foo: 1"})}});
  cases.push_back({"RFC9111_4_1_ThreeVariants",
                   {fill(varying("Foo")).with({"Foo: 1"}), miss(varying("Foo")).with({"Foo: 2"}),
                    miss(varying("Foo")), hit().with({"Foo: 1"}).of(1),
                    hit().with({"Foo: 2"}).of(2), hit().of(3)}});
  std::vector<Step> many;
  for (int i = 0; i < 20; ++i) {
    many.push_back(fill(varying("Foo")).with({"Foo: " + std::to_string(i)}));
  }
  for (int i = 0; i < 20; ++i) {
    many.push_back(hit().with({"Foo: " + std::to_string(i)}).of(i + 1));
  }
  cases.push_back({"RFC9111_4_1_TwentyVariants", many});
  cases.push_back({"RFC9111_4_1_AResponseWithoutVaryBesideVariants",
                   {fill(varying("Foo")).with({"Foo: 1"}),
                    miss({"Cache-Control: max-age=3600"}).with({"Foo: 2"}),
                    hit().with({"Foo: 1"}).with_any_body().gives(200)}});
  cases.push_back(
      {"RFC9111_4_1_OneVariantIsStale",
       {fill({"Cache-Control: max-age=10", "Age: 20", "Vary: Foo", "ETag: \"a\""}).with({"Foo: 1"}),
        miss(varying("Foo")).with({"Foo: 2"}),
        checked({"Cache-Control: max-age=3600", "Vary: Foo", "ETag: \"a\""}).with({"Foo: 1"}).of(1),
        hit().with({"Foo: 2"}).of(2), hit().with({"Foo: 1"}).of(1)}});
  cases.push_back(
      {"RFC9111_4_1_VaryChangesToAnotherField",
       {fill(varying("Foo")).with({"Foo: 1", "Bar: 1"}),
        miss(varying("Bar")).with({"Foo: 2", "Bar: 1"}), hit().with({"Foo: 3", "Bar: 1"}).of(2),
        miss(varying("Bar")).with({"Foo: 3", "Bar: 2"})}});
  cases.push_back({"RFC9111_4_1_HeadOfAVariant",
                   {fill(varying("Foo")).with({"Foo: 1"}), head_hit().with({"Foo: 1"}),
                    does("HEAD", varying("Foo")).with({"Foo: 2"})}});
  cases.push_back(
      {"RFC9111_4_1_PreferredLanguageOfAStoredResponse",
       {fill({"Cache-Control: max-age=3600", "Vary: Accept-Language", "Content-Language: de"})
            .with({"Accept-Language: en, de"}),
        hit().with({"Accept-Language: fr;q=0.5, de;q=1.0"})}});
  cases.push_back(
      {"RFC9111_4_1_LanguageThatIsNotPreferred",
       {fill({"Cache-Control: max-age=3600", "Vary: Accept-Language", "Content-Language: de"})
            .with({"Accept-Language: de"}),
        miss({"Cache-Control: max-age=3600", "Vary: Accept-Language", "Content-Language: fr"})
            .with({"Accept-Language: fr, de;q=0.5"}),
        hit().with({"Accept-Language: de"}).of(1), hit().with({"Accept-Language: fr"}).of(2)}});
  cases.push_back(
      {"RFC9111_4_1_ValidationCarriesTheSelectingField",
       {fill({"Cache-Control: max-age=10", "Age: 20", "Vary: Abc", "ETag: \"a\""}).with({"Abc: 1"}),
        checked({"Cache-Control: max-age=3600", "ETag: \"a\""})
            .with({"Abc: 1"})
            .reaching({"Abc: 1", "If-None-Match: ~\"a\""})}});
  cases.push_back({"RFC9111_4_1_VaryIsSentWithAHit",
                   {fill(varying("Foo, Bar")).with({"Foo: 1"}),
                    hit().with({"Foo: 1"}).having({"Vary: ~Bar"})}});
  cases.push_back(
      {"RFC9111_4_1_VariantsThroughBothServers",
       {fill(varying("Foo")).with({"Foo: 1"}), fill(varying("Foo")).with({"Foo: 2"}).on_the_other(),
        hit().with({"Foo: 1"}).on_the_other().of(1), hit().with({"Foo: 2"}).of(2)}});
  cases.push_back(
      {"RFC9111_4_1_EncodedBodiesAreVariants",
       {fill({"Cache-Control: max-age=3600", "Vary: Accept-Encoding", "Content-Encoding: br"})
            .with({"Accept-Encoding: br"})
            .origin_sends("\x0b\x02\x80 as if encoded"),
        fill(varying("Accept-Encoding")),
        hit().with({"Accept-Encoding: br"}).of(1).having({"Content-Encoding: br"}),
        hit().of(2).lacking({"Content-Encoding"})}});
  return cases;
}

}  // namespace mcs::conformance
