// SPDX-License-Identifier: Apache-2.0
#include "tests/conformance/case.h"

namespace mcs::conformance {

Step fill(Fields answer) {
  Step step;
  step.origin_fields = std::move(answer);
  step.asks = 1;
  return step;
}

Step miss(Fields answer) { return fill(std::move(answer)); }

Step hit() {
  Step step;
  step.asks = 0;
  return step;
}

Step head_hit() {
  Step step = hit();
  step.method = "HEAD";
  return step;
}

Step checked(Fields answer) {
  Step step = fill(std::move(answer));
  step.answers_304 = true;
  return step;
}

Step refreshing(Fields answer) {
  Step step = fill(std::move(answer));
  step.asks.reset();
  step.refreshes = true;
  return step;
}

Step does(std::string method, Fields answer) {
  Step step = fill(std::move(answer));
  step.method = std::move(method);
  return step;
}

Step purge(std::string target) {
  Step step;
  step.method = "PURGE";
  step.target = std::move(target);
  step.asks = 0;
  step.status = 200;
  step.any_body = true;
  return step;
}

Step raw(std::string bytes) {
  Step step;
  step.raw_request = std::move(bytes);
  return step;
}

Case reused(std::string name, Fields answer, int status) {
  return {std::move(name), {fill().answered(status, std::move(answer)), hit()}};
}

Case not_reused(std::string name, Fields answer, int status) {
  return {std::move(name), {fill().answered(status, answer), miss().answered(status, answer)}};
}

Case reused_for(std::string name, Fields answer, Fields request) {
  return {std::move(name), {fill(std::move(answer)), hit().with(std::move(request))}};
}

Case not_reused_for(std::string name, Fields answer, Fields request) {
  return {std::move(name), {fill(answer), miss(answer).with(std::move(request))}};
}

Case checked_again(std::string name, Fields answer, Fields request) {
  return {std::move(name), {fill(answer), checked(answer).with(std::move(request))}};
}

}  // namespace mcs::conformance
