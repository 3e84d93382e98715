// SPDX-License-Identifier: Apache-2.0
// RFC 9111 3: which responses are stored.
#include "tests/conformance/case.h"

namespace mcs::conformance {

Cases storing_cases() {
  const Fields fresh = {"Cache-Control: max-age=3600"};
  Cases cases;
  // RFC 9110 15: any status may be stored if the response itself says how long it is fresh.
  for (const int status : {200, 203, 204, 301, 302, 303, 307, 308, 400, 402, 403, 404, 405, 410,
                           414, 451, 500, 501, 502, 503, 504}) {
    const std::string number = std::to_string(status);
    cases.push_back(reused("RFC9111_3_Status" + number + "WithMaxAgeIsStored", fresh, status));
  }
  return cases;
}

}  // namespace mcs::conformance
