// SPDX-License-Identifier: Apache-2.0
// RFC 9111 4.4: what unsafe requests invalidate.
#include "tests/conformance/case.h"

namespace mcs::conformance {

Cases invalidation_cases() {
  const Fields fresh = {"Cache-Control: max-age=3600"};
  Cases cases;
  for (const std::string method : {"POST", "PUT", "DELETE", "PATCH", "M-SEARCH"}) {
    cases.push_back({"RFC9111_4_4_" + method, {fill(fresh), does(method), miss(fresh)}});
    cases.push_back(
        {"RFC9111_4_4_Failed" + method, {fill(fresh), does(method).answered(500), hit().of(1)}});
    for (const std::string field : {"Location", "Content-Location"}) {
      cases.push_back({"RFC9111_4_4_" + method + "With" + field,
                       {fill(fresh).at("other"), does(method, {field + ": {base}other"}),
                        miss(fresh).at("other")}});
      cases.push_back(
          {"RFC9111_4_4_" + method + "With" + field + "ElsewhereInvalidatesNothing",
           {fill(fresh).at("other"), does(method, {field + ": http://other.test{base}other"}),
            hit().at("other").of(1)}});
    }
  }
  const struct {
    std::string name, location;
    bool invalidates;
  } rows[] = {
      {"AbsolutePath", "{base}other", true},
      {"AbsoluteUri", "http://{host}{base}other", true},
      {"AbsoluteUriWithTheDefaultPort", "http://{host}:80{base}other", true},
      {"AbsoluteUriInUpperCase", "HTTP://CACHE.TEST{base}other", true},
      {"NetworkPath", "//{host}{base}other", true},
      {"DotSegments", "/x/..{base}other", true},
      {"EncodedUnreserved", "{base}%6Fther", true},
      {"OtherScheme", "https://{host}{base}other", false},
      {"OtherPort", "http://{host}:81{base}other", false},
      {"OtherHost", "http://other.test{base}other", false},
      {"HostAsUserInfo", "http://{host}@other.test{base}other", false},
      {"OtherHostAsNetworkPath", "//other.test{base}other", false},
      {"OtherQuery", "{base}other?x", false},
  };
  for (const auto& row : rows) {
    const Fields location = {"Location: " + row.location};
    cases.push_back({"RFC9111_4_4_LocationAs" + row.name,
                     {fill(fresh).at("other"), does("POST").answered(201, location),
                      row.invalidates ? miss(fresh).at("other") : hit().at("other").of(1)}});
  }
  cases.push_back({"RFC9111_4_4_RelativeLocation",
                   {fill(fresh).at("/dir/other"), does("POST", {"Location: other"}).at("/dir/form"),
                    miss(fresh).at("/dir/other")}});
  for (const int status : {200, 201, 204, 303}) {
    cases.push_back({"RFC9111_4_4_PostAnswered" + std::to_string(status),
                     {fill(fresh), does("POST").sending("a=b").answered(status), miss(fresh)}});
  }
  for (const int status : {400, 404, 500, 503}) {
    cases.push_back({"RFC9111_4_4_PostAnswered" + std::to_string(status) + "InvalidatesNothing",
                     {fill(fresh), does("POST").sending("a=b").answered(status), hit().of(1)}});
  }
  for (const std::string method : {"OPTIONS", "HEAD"}) {
    cases.push_back({"RFC9111_4_4_" + method + "IsSafe",
                     {fill(fresh), does(method).with({"Cache-Control: no-store"}), hit().of(1)}});
  }
  cases.push_back({"RFC9111_4_4_AllVariants",
                   {fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    fill({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 2"}),
                    does("POST").with({"Foo: 3"}),
                    miss({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 1"}),
                    miss({"Cache-Control: max-age=3600", "Vary: Foo"}).with({"Foo: 2"})}});
  cases.push_back({"RFC9111_4_4_OnlyThatQuery",
                   {fill(fresh).at("?a"), fill(fresh).at("?b"), does("DELETE").at("?a"),
                    hit().at("?b").of(2), miss(fresh).at("?a")}});
  cases.push_back({"RFC9111_4_4_BothLocationsAndTheTarget",
                   {fill(fresh).at("x"), fill(fresh).at("y"), fill(fresh),
                    does("PUT", {"Location: {base}x", "Content-Location: {base}y"}),
                    miss(fresh).at("x"), miss(fresh).at("y"), miss(fresh)}});
  cases.push_back({"RFC9111_4_4_ThroughTheOtherServer",
                   {fill(fresh), hit().on_the_other(), does("POST").on_the_other(), miss(fresh),
                    hit().on_the_other()}});
  cases.push_back(
      {"RFC9111_4_4_LargeResponse",
       {fill(fresh).origin_sends(std::string(200'000, 'l')), does("DELETE"), miss(fresh)}});
  cases.push_back(
      {"RFC9111_4_PostWithMuchContent",
       {does("POST").sending(std::string(100'000, 'p')).reaching({"Content-Length: 100000"}),
        does("POST").sending(std::string(100'000, 'q'))}});
  cases.push_back({"RFC9111_4_OnlyIfCachedDoesNotStopAPost",
                   {does("POST").with({"Cache-Control: only-if-cached"})}});
  cases.push_back({"RFC9111_4_PostReachesTheOriginWithItsContent",
                   {does("POST", fresh).sending("a=b").reaching({"Content-Length: 3"}),
                    does("POST", fresh).sending("a=b")}});
  return cases;
}

}  // namespace mcs::conformance
