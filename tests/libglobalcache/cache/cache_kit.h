// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::cache {

/// One process.
struct Member {
  std::unique_ptr<runtime::Instance> instance;
  std::unique_ptr<GlobalCache> cache;
  std::uint32_t slot() const { return instance->slot_number(); }
};

/// A small domain in private memory, with entries whose bytes follow from their key.
class CacheTest : public testing::Test {
 protected:
  explicit CacheTest(std::uint64_t bytes = 16ULL << 20, std::uint32_t instances = 16,
                     std::uint32_t nodes = 1, std::uint32_t remote_penalty_percent = 100) {
    gsm::DomainSpec spec;
    spec.name = "cache";
    spec.nodes = nodes;
    spec.bytes_per_node = bytes;
    spec.remote_penalty_percent = remote_penalty_percent;
    domain_ = api::create_in_memory(spec, instances, 128);
  }

  Member join(std::function<void(std::uint32_t)> wake = {}, std::uint32_t node = 0) {
    Member member;
    auto instance = runtime::Instance::join(
        *domain_, liveness_, {.node = node, .server = "server/1", .may_inherit = true});
    EXPECT_TRUE(instance) << instance.error().message;
    member.instance = std::move(*instance);
    member.cache = std::make_unique<GlobalCache>(*domain_, *member.instance, std::move(wake));
    member.instance->activate();
    return member;
  }
  /// All that a node's segment holds is gone.
  void lose(std::uint32_t node) {
    gsm::Segment& segment = domain_->segment(node);
    std::memset(segment.metadata(), 0, segment.header().size);
    segment.mark_lost();
  }
  /// The process ends without leaving.
  void kill(const Member& member) { liveness_.release(member.slot()); }

  static std::string body_of(const std::string& key, std::size_t bytes) {
    std::string body;
    while (body.size() < bytes) {
      body.append(key).append(std::to_string(body.size())).append(100, ';');
    }
    body.resize(bytes);
    return body;
  }
  static bool write(Fill& fill, const std::string& key, std::size_t bytes) {
    const std::string body = body_of(key, bytes);
    fill.set_head(std::as_bytes(std::span(key)), bytes);
    return fill.append(std::as_bytes(std::span(body))) == Append::kOk && fill.commit(1);
  }
  static Begin put(const Member& member, const std::string& key, std::size_t bytes,
                   bool* stored = nullptr) {
    Fill fill;
    const Begin begin = member.cache->begin(member.cache->make_key(key), fill, {}, true);
    const bool ok = begin == Begin::kFilling && write(fill, key, bytes);
    if (stored != nullptr) *stored = ok;
    return begin;
  }
  /// Whether it is there; its bytes must be right then.
  static bool get(const Member& member, const std::string& key) {
    Hit hit;
    if (member.cache->find(member.cache->make_key(key), hit).found != Found::kHit) return false;
    expect_right(member, key, hit);
    member.cache->touch(hit);
    member.cache->release(hit);
    return true;
  }
  static void expect_right(const Member& member, const std::string& key, const Hit& hit) {
    std::string body(hit.body_bytes(), '\0');
    EXPECT_TRUE(member.cache->read_verified(hit, body.data())) << key;
    EXPECT_EQ(body, body_of(key, body.size()));
  }
  void expect_clean(const VerifyOptions& options = {}) {
    const VerifyReport report = verify(*domain_, liveness_, options);
    for (const Problem& problem : report.problems) {
      ADD_FAILURE() << problem.kind << " " << problem.where << ": " << problem.detail;
    }
    EXPECT_EQ(report.leaked_bytes, 0U);
  }

  /// Of what is left.
  void expect_whole() {
    VerifyOptions options;
    options.lost_is_wrong = false;
    expect_clean(options);
  }

  TestLiveness liveness_;
  std::unique_ptr<gsm::Domain> domain_;
};

}  // namespace mcs::cache
