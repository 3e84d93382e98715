// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mcs::loadtest {

// A cache in which only the question matters whether an object is there.
class Policy {
 public:
  virtual ~Policy() = default;
  // True: a hit. A miss stores the object, if the policy wants it.
  virtual bool access(uint32_t object) = 0;
};

// What all policies of one comparison share. Sizes are in units (cache::kUnitBytes).
struct PolicyOptions {
  uint64_t capacity = 0;
  uint64_t largest = 0;  // objects above are never stored
  std::span<const uint32_t> sizes;  // by object; outlives the policy
};

// "lru", "sieve" (Y. Zhang et al., NSDI 2024), "s3-fifo" (J. Yang et al., SOSP 2023), "w-tinylfu"
// (G. Einziger et al., ACM TOS 13(4), 2017). Each as its paper has it, with sizes where that has none.
std::unique_ptr<Policy> make_reference(const std::string& name, const PolicyOptions& options);
std::vector<std::string> reference_names();

// The cache itself, in private memory of as many groups as the capacity, which must be a multiple of
// cache::kGroupUnits.
std::unique_ptr<Policy> make_real(const PolicyOptions& options);

}  // namespace mcs::loadtest
