// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loadtest/bench/internal/node_group.h"
#include "loadtest/bench/plot.h"

namespace mcs::loadtest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Cgroups, AreFoundAlsoWhenControllersShareAHierarchy) {
  const auto found = find_cgroups(
      "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
      "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
      "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n"
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
      "cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n");
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->cpu, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(found->cpuacct, found->cpu);
  EXPECT_EQ(found->memory, "/sys/fs/cgroup/memory");
  EXPECT_EQ(found->blkio, "/sys/fs/cgroup/blkio");
}

TEST(Cgroups, WhatIsMissingIsNamedWithTheRemedy) {
  const auto found = find_cgroups(
      "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate,memory_recursiveprot 0 0\n"
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n");
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().message, HasSubstr("blkio, cpu, cpuacct"));
  EXPECT_THAT(found.error().message, Not(HasSubstr("memory,")));
  EXPECT_THAT(found.error().message, HasSubstr("systemd.unified_cgroup_hierarchy=0"));
}

TEST(Cgroups, ReadsAreCountedForTheOneDisk) {
  const char* const text =
      "253:0 Read 7\n253:0 Total 7\n254:0 Read 1234\n254:0 Write 5\n254:0 Total 1239\nTotal 1246\n";
  EXPECT_EQ(blkio_count(text, "254:0", "Read"), 1234U);
  EXPECT_EQ(blkio_count(text, "254:0", "Write"), 5U);
  EXPECT_EQ(blkio_count(text, "8:0", "Read"), 0U);
  EXPECT_EQ(blkio_count("", "254:0", "Read"), 0U);
}

TEST(Cgroups, MemoryIsReadByItsWholeName) {
  const char* const text = "cache 4096\nrss 8192\nrss_huge 0\ntotal_rss 12288\n";
  EXPECT_EQ(memory_stat(text, "rss"), 8192U);
  EXPECT_EQ(memory_stat(text, "cache"), 4096U);
  EXPECT_EQ(memory_stat(text, "swap"), 0U);
}

TEST(Plot, TicksOfItsOwn) {
  Plot plot;
  plot.lines = {{"a", {{1, 1}, {8, 4}}}};
  EXPECT_THAT(plot.svg(), HasSubstr("<tspan"));
  plot.x_ticks = {1, 2, 4, 8};
  EXPECT_THAT(plot.svg(), Not(HasSubstr("<tspan")));
  EXPECT_THAT(plot.svg(), HasSubstr(">8</text>"));
}

}  // namespace
}  // namespace mcs::loadtest
