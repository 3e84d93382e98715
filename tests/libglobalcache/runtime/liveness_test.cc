// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/runtime/liveness.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace mcs::runtime {
namespace {

class LivenessTest : public testing::Test {
 protected:
  LivenessTest() {
    char name[] = "/tmp/mcs-live-XXXXXX";
    path_ = ::mkdtemp(name);
    std::ofstream(path_ + "/live") << "";
  }
  ~LivenessTest() override { std::filesystem::remove_all(path_); }
  std::unique_ptr<KernelLiveness> open() { return std::move(KernelLiveness::open(path_).value()); }

  std::string path_;
};

TEST_F(LivenessTest, AByteHasOneOwner) {
  const auto mine = open();
  const auto other = open();
  EXPECT_FALSE(other->held(7));
  EXPECT_TRUE(mine->acquire(7));
  EXPECT_TRUE(mine->held(7));
  EXPECT_TRUE(other->held(7));
  EXPECT_FALSE(other->held(8));
  EXPECT_FALSE(other->acquire(7));
  // The kernel would let the same description have it twice, and the loser would release it.
  EXPECT_FALSE(mine->acquire(7));
  other->release(7);
  EXPECT_TRUE(mine->held(7));
  mine->release(7);
  EXPECT_FALSE(other->held(7));
  EXPECT_TRUE(other->acquire(7));
}

TEST_F(LivenessTest, AForkedChildDoesNotKeepItsParentsByteAlive) {
  const auto other = open();
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const auto mine = open();
    if (!mine->acquire(3)) ::_exit(1);
    if (::fork() == 0) {
      const pid_t self = ::getpid();
      if (::write(pipe[1], &self, sizeof self) != sizeof self) ::_exit(1);
    }
    for (;;) ::pause();
  }
  pid_t child = 0;
  ASSERT_EQ(::read(pipe[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  EXPECT_TRUE(other->held(3));
  ::kill(parent, SIGKILL);
  ASSERT_EQ(::waitpid(parent, nullptr, 0), parent);
  EXPECT_FALSE(other->held(3));
  EXPECT_EQ(::kill(child, 0), 0) << "the child lives";
  ::kill(child, SIGKILL);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_F(LivenessTest, CountsWhatAnybodyHolds) {
  const auto one = open();
  const auto other = open();
  constexpr std::uint32_t kFirst = held_bytes(7);
  EXPECT_EQ(one->count_held(kFirst, kFirst + 99, 100), 0U);
  // Neighbours of one owner are one lock for the kernel.
  for (const std::uint32_t byte : {0, 1, 2, 50}) EXPECT_TRUE(one->acquire(kFirst + byte));
  for (const std::uint32_t byte : {3, 51, 98, 99, 100}) EXPECT_TRUE(other->acquire(kFirst + byte));
  EXPECT_FALSE(other->acquire(kFirst + 50));
  for (KernelLiveness* liveness : {one.get(), other.get()}) {
    EXPECT_EQ(liveness->count_held(kFirst, kFirst + 99, 100), 8U);
  }
  EXPECT_EQ(one->count_held(kFirst + 1, kFirst + 50, 100), 4U);
  EXPECT_EQ(one->count_held(kFirst, kFirst + 99, 5), 5U);
  EXPECT_EQ(one->count_held(kFirst + 52, kFirst + 97, 9), 0U);
  one->release(kFirst + 1);
  EXPECT_EQ(other->count_held(kFirst, kFirst + 99, 100), 7U);
}

}  // namespace
}  // namespace mcs::runtime
