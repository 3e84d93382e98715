// SPDX-License-Identifier: Apache-2.0
// RFC 9111 4.2: how long a response is fresh.
#include "tests/conformance/case.h"

namespace mcs::conformance {

Cases freshness_cases() {
  return {
      not_reused("RFC9111_4_2_NoFreshnessInformationIsNotReused", {}),
      reused("RFC9111_4_2_1_MaxAge", {"Cache-Control: max-age=3600"}),
      reused("RFC9111_4_2_1_SMaxAgeOverridesMaxAge",
             {"Cache-Control: max-age=1, s-maxage=3600", "Age: 100"}),
      not_reused("RFC9111_4_2_1_SmallSMaxAgeOverridesMaxAge",
                 {"Cache-Control: max-age=3600, s-maxage=1", "Age: 100"}),
  };
}

}  // namespace mcs::conformance
