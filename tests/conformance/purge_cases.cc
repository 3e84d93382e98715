// SPDX-License-Identifier: Apache-2.0
// PURGE, which no RFC defines: what is gone after its answer, and what is not.
#include "tests/conformance/case.h"

namespace mcs::conformance {

Cases purge_cases() {
  const Fields fresh = {"Cache-Control: max-age=3600"};
  const auto tagged = [](const std::string& field) {
    return Fields{"Cache-Control: max-age=3600", field};
  };
  const Fields tagged_etag = {"Cache-Control: max-age=3600", "ETag: \"a\""};
  Cases cases;
  cases.push_back({"Purge_Key",
                   {fill(fresh), hit().having({"Cache-Status: ~; hit"}).eventually(),
                    purge().gives("purged 1\n"), miss(fresh), hit()}});
  cases.push_back({"Purge_KeyThatIsNotStored", {purge().gives("purged 0\n"), fill(fresh), hit()}});
  cases.push_back({"Purge_LargeResponse",
                   {fill(fresh).origin_sends(std::string(500'000, 'p')), purge(), miss(fresh)}});
  cases.push_back({"Purge_KeyWithItsQueryOnly",
                   {fill(fresh).at("?a"), fill(fresh).at("?b"), purge("?a"), miss(fresh).at("?a"),
                    hit().at("?b").of(2)}});
  cases.push_back({"Purge_KeyInAnotherSpelling",
                   {fill(fresh).at("/a~b"), purge("/a%7Eb"), miss(fresh).at("/a~b")}});
  cases.push_back({"Purge_AllVariants",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 2"}), purge(),
                    miss({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    miss({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 2"})}});
  cases.push_back(
      {"Purge_KeyLeavesLongerOnes",
       {fill(fresh).at("/a"), fill(fresh).at("/ab"), fill(fresh).at("/a/b"), purge("/a"),
        hit().at("/ab").of(2), hit().at("/a/b").of(3), miss(fresh).at("/a")}});
  cases.push_back(
      {"Purge_Prefix",
       {fill(fresh).at("/x/a"), fill(fresh).at("/x/b?q"), fill(fresh).at("/y"), purge("/x/*"),
        hit().at("/y").of(3), miss(fresh).at("/x/a"), miss(fresh).at("/x/b?q")}});
  cases.push_back({"Purge_PrefixInTheQuery",
                   {fill(fresh).at("/x?a=1"), fill(fresh).at("/x?a=2"), fill(fresh).at("/x?b=1"),
                    purge("/x?a=*"), hit().at("/x?b=1").of(3), miss(fresh).at("/x?a=1"),
                    miss(fresh).at("/x?a=2")}});
  cases.push_back({"Purge_Pattern",
                   {fill(fresh).at("/x/a.png"), fill(fresh).at("/y/b.png"),
                    fill(fresh).at("/x/a.css"), purge("/*.png"), hit().at("/x/a.css").of(3),
                    miss(fresh).at("/x/a.png"), miss(fresh).at("/y/b.png")}});
  cases.push_back({"Purge_SurrogateKey",
                   {fill(tagged("Surrogate-Key: one{base} two{base}")).at("/a"),
                    fill(tagged("Surrogate-Key: two{base}")).at("/b"), fill(fresh).at("/c"),
                    purge().with({"Surrogate-Key: one{base}"}), hit().at("/b").of(2),
                    hit().at("/c").of(3), miss(fresh).at("/a")}});
  cases.push_back({"Purge_TagOfSeveral",
                   {fill(tagged("xkey: one{base} two{base}")).at("/a"),
                    fill(tagged("xkey: two{base}")).at("/b"), purge().with({"xkey: two{base}"}),
                    miss(fresh).at("/a"), miss(fresh).at("/b")}});
  cases.push_back({"Purge_SeveralTags",
                   {fill(tagged("Surrogate-Key: one{base}")).at("/a"),
                    fill(tagged("Surrogate-Key: two{base}")).at("/b"),
                    fill(tagged("Surrogate-Key: three{base}")).at("/c"),
                    purge().with({"Surrogate-Key: one{base} two{base}"}), hit().at("/c").of(3),
                    miss(fresh).at("/a"), miss(fresh).at("/b")}});
  cases.push_back({"Purge_PartOfATag",
                   {fill(tagged("Surrogate-Key: one{base}")), purge().with({"Surrogate-Key: one"}),
                    hit().of(1)}});
  cases.push_back({"Purge_Soft",
                   {fill(tagged_etag), purge().with({"Soft-Purge: 1"}), checked(tagged_etag).of(1),
                    hit().of(1)}});
  cases.push_back({"Purge_SoftForMaxStale",
                   {fill(tagged_etag), purge().with({"Soft-Purge: 1"}),
                    hit().with({"Cache-Control: max-stale"}).of(1), miss(fresh), hit().of(4)}});
  cases.push_back({"Purge_SoftForAnOriginThatFails",
                   {fill(tagged("ETag: \"a\"")), purge().with({"Soft-Purge: 1"}),
                    miss().asking(-1).origin_breaks_off().gives(200, "body of step 1")}});
  cases.push_back(
      {"Purge_SoftAndStaleWhileRevalidate",
       {fill({"Cache-Control: max-age=3600, stale-while-revalidate=600"}),
        purge().with({"Soft-Purge: 1"}), refreshing(fresh).of(1), hit().of(3).eventually()}});
  cases.push_back({"Purge_SoftPrefix",
                   {fill(tagged_etag).at("/x/a"), fill(tagged_etag).at("/y"),
                    purge("/x/*").with({"Soft-Purge: 1"}), hit().at("/y").of(2),
                    checked(tagged_etag).at("/x/a").of(1)}});
  cases.push_back({"Purge_ThroughTheOtherServer",
                   {fill(fresh), hit().on_the_other(), purge().on_the_other(), miss(fresh),
                    hit().on_the_other()}});
  cases.push_back({"Purge_PrefixThroughTheOtherServer",
                   {fill(fresh).at("/x/a"), fill(fresh).at("/x/b"), purge("/x/*").on_the_other(),
                    miss(fresh).at("/x/a"), miss(fresh).at("/x/b").on_the_other()}});
  cases.push_back({"Purge_TagThroughTheOtherServer",
                   {fill(tagged("xkey: tag{base}")),
                    purge("/any").with({"xkey: tag{base}"}).on_the_other(), miss(fresh)}});
  cases.push_back(
      {"Purge_OfAnotherHost",
       {fill(fresh), purge().with({"Host: other.test"}).gives("purged 0\n"), hit().of(1)}});
  cases.push_back({"Purge_BadTarget", {fill(fresh), purge("%zz").gives(400), hit().of(1)}});
  return cases;
}

}  // namespace mcs::conformance
