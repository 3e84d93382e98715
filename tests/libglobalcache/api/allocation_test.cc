// SPDX-License-Identifier: Apache-2.0
// A hit takes memory from its request and from nowhere else. Sanitizers need their own allocator.
#if !defined(MCS_SANITIZED)
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/libglobalcache/api/api_kit.h"

namespace {

std::atomic<std::size_t> allocations{0};

}  // namespace

void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace mcs::api::testing {
namespace {

struct Arena {
  alignas(16) std::array<std::byte, 65536> bytes;
  std::size_t used = 0;

  static void* take(void* context, std::size_t size) {
    auto& arena = *static_cast<Arena*>(context);
    void* memory = arena.bytes.data() + arena.used;
    arena.used += (size + 15) / 16 * 16;
    return arena.used <= arena.bytes.size() ? memory : nullptr;
  }
};

mcs_str text(const char* s) { return {s, std::char_traits<char>::length(s)}; }

class AllocationTest : public ::testing::TestWithParam<std::size_t> {};

TEST_P(AllocationTest, AHitAllocatesOnlyFromItsRequest) {
  TestDomain domain;
  mcs_process* process = domain.join("nginx/1.22.1");
  TestPolicy policy;
  Request request;
  request.fields = {{"Accept", "*/*"}, {"User-Agent", "x"}};
  ask(process, policy.get(), request,
      Response{200, {{"Cache-Control", "max-age=100"}, {"ETag", "\"e\""}},
               std::string(GetParam(), 'x')});
  const mcs_field fields[] = {{text("Accept"), text("*/*")}, {text("User-Agent"), text("x")}};
  mcs_request hit{};
  hit.policy = policy.get();
  hit.method = text("GET");
  hit.scheme = text("http");
  hit.host = text("site.example");
  hit.target = text("/a");
  hit.fields = fields;
  hit.field_count = 2;
  hit.alloc = Arena::take;
  // The first of a thread may still grow its scratch memory.
  for (int i = 0; i < 3; ++i) {
    Arena arena;
    hit.alloc_context = &arena;
    mcs_transaction* transaction = nullptr;
    mcs_response response;
    const std::size_t before = allocations.load();
    const mcs_outcome outcome = mcs_begin(process, &hit, &transaction, &response);
    mcs_response_release(process, &response);
    const std::size_t after = allocations.load();
    ASSERT_EQ(outcome, MCS_RESPONSE);
    EXPECT_EQ(response.cache_status, MCS_CACHE_HIT);
    if (i > 0) {
      EXPECT_EQ(after - before, 0U);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, AllocationTest, ::testing::Values(1024, 16384, 400000));

}  // namespace
}  // namespace mcs::api::testing
#endif
