// SPDX-License-Identifier: Apache-2.0
// The language the conformance cases are written in. A case is a list of steps; a step is one
// request of a client, what the origin would answer it, and what must be seen of both. Cases never
// wait for time to pass: the origin says with Age, Date and Expires how old its answers are.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mcs::conformance {

// "Name: value". In values of requests and answers "{base}" stands for the path of the case,
// "{host}" for the host it asks, and a value "@-60" for the date 60 s before the case began.
using Fields = std::vector<std::string>;

struct Step {
  // The request. `target` is appended to the path of the case.
  std::string method = "GET";
  std::string target;
  Fields request;
  std::string content;
  std::string raw_request;  // instead of all that: bytes, with "{base}" and "{host}"
  int clients = 1;          // at the same time, half of them through the other server
  bool elsewhere = false;   // to the other server

  // What the origin answers while this step is the current one.
  int origin_status = 200;
  Fields origin_fields;  // Date: now is added unless there is one ("Date: -": none)
  std::optional<std::string> origin_body;  // without: "body of step N"
  std::string raw_answer;                  // instead of all that; the connection ends after it
  bool chunked = false;
  bool answers_304 = false;  // if the request carries a condition
  bool breaks_off = false;   // the connection is reset without an answer

  // What is expected. How often the origin is asked meanwhile, -1 for at least once, nothing for
  // any number.
  std::optional<int> asks;
  int status = 0;                   // 0: what the origin answers, or what is stored
  std::optional<std::string> body;  // without: that of the step that the answer comes from
  int body_of = 0;                  // number of that step; 0: this one, or the one stored last
  bool any_body = false;
  Fields has;                      // of the response: "Name: value", "Name: 10..20" (a number),
                                   // "Name: ~part" or "Name: *" (any value)
  std::vector<std::string> lacks;  // names
  Fields reaches;                  // of the request at the origin, written like `has`
  std::vector<std::string> hides;  // names that must not reach the origin
  bool in_the_end = false;         // repeated until all this is so
  bool refreshes = false;          // the next step begins only when the origin has been asked
  bool lost = false;               // the client may receive a broken response, or none

  Step& as(std::string with_method) { return method = std::move(with_method), *this; }
  Step& at(std::string to) { return target = std::move(to), *this; }
  Step& with(Fields fields) { return request = std::move(fields), *this; }
  Step& sending(std::string bytes) { return content = std::move(bytes), *this; }
  Step& by(int number) { return clients = number, *this; }
  Step& on_the_other() { return elsewhere = true, *this; }
  Step& answered(int with_status, Fields fields = {}) {
    return origin_status = with_status, origin_fields = std::move(fields), *this;
  }
  Step& answered(Fields fields) { return origin_fields = std::move(fields), *this; }
  Step& origin_sends(std::string bytes) { return origin_body = std::move(bytes), *this; }
  Step& origin_sends_raw(std::string bytes) { return raw_answer = std::move(bytes), *this; }
  Step& answering_304() { return answers_304 = true, *this; }
  Step& in_chunks() { return chunked = true, *this; }
  Step& origin_breaks_off() { return breaks_off = true, *this; }
  Step& asking(int times) { return asks = times, *this; }
  Step& gives(int expected) { return status = expected, *this; }
  Step& gives(int expected, std::string bytes) {
    return status = expected, body = std::move(bytes), *this;
  }
  Step& gives(std::string bytes) { return body = std::move(bytes), *this; }
  Step& of(int step) { return body_of = step, *this; }
  Step& with_any_body() { return any_body = true, *this; }
  Step& having(Fields fields) { return has = std::move(fields), *this; }
  Step& lacking(std::vector<std::string> names) { return lacks = std::move(names), *this; }
  Step& reaching(Fields fields) { return reaches = std::move(fields), *this; }
  Step& hiding(std::vector<std::string> names) { return hides = std::move(names), *this; }
  Step& eventually() { return in_the_end = true, *this; }
  Step& or_breaks() { return lost = true, *this; }
};

struct Case {
  std::string name;  // begins with the section whose rule it tests
  std::vector<Step> steps;
};
using Cases = std::vector<Case>;

// A GET that the origin is asked once for, without a condition.
Step fill(Fields answer = {});
// The same, where it matters that it is not the first.
Step miss(Fields answer = {});
// A GET that is answered without the origin.
Step hit();
Step head_hit();
// A GET that makes the origin answer 304 to a condition, and that brings what is stored.
Step checked(Fields answer = {});
// A GET that is answered without waiting for the origin, which is asked once besides.
Step refreshing(Fields answer = {});
// A request with another method that the origin answers.
Step does(std::string method, Fields answer = {});
Step purge(std::string target = "");
// Bytes on a connection of their own.
Step raw(std::string bytes);

// A response, and a second request for it that is answered from the cache, or is not.
Case reused(std::string name, Fields answer, int status = 200);
Case not_reused(std::string name, Fields answer, int status = 200);
// The same where the second request has these fields.
Case reused_for(std::string name, Fields answer, Fields request);
Case not_reused_for(std::string name, Fields answer, Fields request);
// The second request makes the origin answer 304.
Case checked_again(std::string name, Fields answer, Fields request = {});

// The parts of the program, one file each.
Cases storing_cases();
Cases freshness_cases();
Cases date_cases();
Cases age_cases();
Cases request_cases();
Cases validation_cases();
Cases invalidation_cases();
Cases range_cases();
Cases vary_cases();
Cases field_cases();
Cases extension_cases();
Cases safety_cases();
Cases purge_cases();

}  // namespace mcs::conformance
