// SPDX-License-Identifier: Apache-2.0
// Memory that is protected, and memory that stops answering.
#include "gsm-emu/segment.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "gsm-emu/fault.h"
#include "tests/gsm-emu/gsm_fixture.h"

namespace mcs::gsm {
namespace {

class SegmentTest : public GsmTest {
 protected:
  void lose(const std::string& name, std::uint32_t node, off_t left = 0) const {
    ASSERT_EQ(::truncate(segment_path(name, node).c_str(), left), 0);
  }
  static volatile std::byte* at(const Domain& domain, std::uint32_t node, std::uint64_t offset) {
    return domain.segment(node).metadata() + offset;
  }
  static std::byte load(const Domain& domain, std::uint32_t node, std::uint64_t offset) {
    return *at(domain, node, offset);
  }
};

using SegmentDeathTest = SegmentTest;

TEST_F(SegmentTest, LostMetadataReadsAsZeroAndSaysSo) {
  const auto domain = make("one", 2);
  *at(*domain, 0, kPageSize + 8) = std::byte{1};
  lose("one", 0);
  EXPECT_FALSE(domain->segment(0).lost());
  EXPECT_EQ(load(*domain, 0, kPageSize + 8), std::byte{0});
  EXPECT_TRUE(domain->segment(0).lost());
  // Stores go nowhere, but nobody dies of them.
  *at(*domain, 0, 2 * kPageSize) = std::byte{5};
  // The other node's memory is as it was.
  EXPECT_EQ(load(*domain, 1, kPageSize), std::byte{0xa1});
  EXPECT_FALSE(domain->segment(1).lost());
}

TEST_F(SegmentTest, AtomicsOnLostMetadataAnswerZero) {
  const auto domain = make("one");
  auto& word =
      *reinterpret_cast<std::atomic<std::uint64_t>*>(domain->segment(0).metadata() + 2 * kPageSize);
  word = 7;
  lose("one", 0);
  EXPECT_EQ(word.fetch_add(1), 0U);
  std::uint64_t expected = 7;
  EXPECT_FALSE(word.compare_exchange_strong(expected, 8));
  EXPECT_TRUE(domain->segment(0).lost());
}

TEST_F(SegmentTest, EachMappingFindsOutForItself) {
  const auto one = make("one");
  const auto other = open("one");
  ASSERT_TRUE(other);
  lose("one", 0);
  EXPECT_EQ(load(*one, 0, kPageSize), std::byte{0});
  EXPECT_FALSE((*other)->segment(0).lost());
  EXPECT_EQ(load(**other, 0, kPageSize), std::byte{0});
  EXPECT_TRUE((*other)->segment(0).lost());
}

TEST_F(SegmentTest, ManyThreadsMayMeetTheLossAtOnce) {
  const auto domain = make("one");
  lose("one", 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const auto page = static_cast<std::uint64_t>(1 + i % 3);
      EXPECT_EQ(load(*domain, 0, page * kPageSize + 64), std::byte{0});
      char byte;
      EXPECT_FALSE(guarded_copy(&byte, domain->segment(0).payload() + i * 4096, 1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(domain->segment(0).lost());
}

TEST_F(SegmentTest, GuardedCopyOfLostPayloadAnswersFalse) {
  const auto domain = make("one");
  Segment& segment = domain->segment(0);
  const std::string text(10000, 'x');
  ASSERT_TRUE(segment.write_payload(0, std::as_bytes(std::span(text))));
  std::string copy(text.size(), ' ');
  ASSERT_TRUE(guarded_copy(copy.data(), segment.payload(), copy.size()));
  EXPECT_EQ(copy, text);

  // All but the first two pages of the payload are gone.
  lose("one", 0, static_cast<off_t>(kMeta + 2 * kPageSize));
  EXPECT_FALSE(segment.lost());
  EXPECT_TRUE(guarded_copy(copy.data(), segment.payload(), 2 * kPageSize));
  EXPECT_FALSE(guarded_copy(copy.data(), segment.payload(), 2 * kPageSize + 1));
  EXPECT_TRUE(segment.lost());
  // Not repaired: it goes on answering false, and what is there can still be read.
  EXPECT_FALSE(guarded_copy(copy.data(), segment.payload() + 2 * kPageSize, 1));
  EXPECT_TRUE(guarded_copy(copy.data(), segment.payload(), 10));
}

TEST_F(SegmentTest, GuardedCopyIsExactWhereverSourceAndTargetLieInTheirPages) {
  const auto domain = make("one");
  Segment& segment = domain->segment(0);
  std::string text(2 * kPageSize, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 % 251);
  ASSERT_TRUE(segment.write_payload(0, std::as_bytes(std::span(text))));
  alignas(64) char copy[3 * kPageSize];
  for (std::size_t at = 0; at < 130; ++at) {
    for (const std::size_t size : {1UL, 1023UL, 1024UL, 1025UL, 5000UL}) {
      std::fill(std::begin(copy), std::end(copy), '#');
      ASSERT_TRUE(guarded_copy(copy + at, segment.payload() + 32, size));
      ASSERT_EQ(std::string_view(copy + at, size), std::string_view(text).substr(32, size));
      ASSERT_EQ(copy[at + size], '#');
    }
  }
}

TEST_F(SegmentTest, SystemCallsOnLostPayloadFailInsteadOfSendingZeros) {
  const auto domain = make("one");
  lose("one", 0, static_cast<off_t>(kMeta));
  char byte;
  ASSERT_FALSE(guarded_copy(&byte, domain->segment(0).payload(), 1));
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  iovec piece{const_cast<std::byte*>(domain->segment(0).payload()), 100};
  errno = 0;
  EXPECT_EQ(::writev(ends[1], &piece, 1), -1);
  EXPECT_EQ(errno, EFAULT);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(SegmentTest, AWriteDoesNotBringALostSegmentBack) {
  const auto domain = make("one");
  lose("one", 0);
  ASSERT_FALSE(domain->segment(0).lost());
  const std::string text = "late";
  EXPECT_FALSE(domain->segment(0).write_payload(0, std::as_bytes(std::span(text))));
  EXPECT_TRUE(domain->segment(0).lost());
  EXPECT_EQ(std::filesystem::file_size(segment_path("one", 0)), 0U);
}

TEST_F(SegmentTest, NothingIsWrittenToASegmentThatIsKnownToBeLost) {
  const auto domain = make("one");
  lose("one", 0);
  EXPECT_EQ(load(*domain, 0, kPageSize), std::byte{0});
  const std::string text = "late";
  EXPECT_FALSE(domain->segment(0).write_payload(0, std::as_bytes(std::span(text))));
  EXPECT_EQ(std::filesystem::file_size(segment_path("one", 0)), 0U);
}

TEST_F(SegmentTest, PagesThatWereSentKeepTheirBytesWhenTheirPlaceIsRenewed) {
  const auto domain = make("sent");
  Segment& segment = domain->segment(0);
  ASSERT_TRUE(segment.sendable()) << "huge pages on /dev/shm";
  const std::vector<std::byte> before(2 * kPageSize, std::byte{1});
  const std::vector<std::byte> after(2 * kPageSize, std::byte{2});
  ASSERT_TRUE(segment.write_payload(kPageSize, before));
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  auto at = static_cast<loff_t>(segment.file_offset(kPageSize));
  ASSERT_EQ(::splice(segment.fd(), &at, ends[1], nullptr, before.size(), 0),
            static_cast<ssize_t>(before.size()));
  EXPECT_FALSE(segment.renew_payload(kPageSize + 1, kPageSize));
  EXPECT_FALSE(segment.renew_payload(kPageSize, 100));
  ASSERT_TRUE(segment.renew_payload(kPageSize, before.size()));
  std::vector<std::byte> got(before.size());
  ASSERT_TRUE(guarded_copy(got.data(), segment.payload() + kPageSize, got.size()));
  EXPECT_EQ(got, std::vector<std::byte>(got.size()));
  ASSERT_TRUE(segment.write_payload(kPageSize, after));
  ASSERT_EQ(::read(ends[0], got.data(), got.size()), static_cast<ssize_t>(got.size()));
  EXPECT_EQ(got, before);
  ASSERT_TRUE(guarded_copy(got.data(), segment.payload() + kPageSize, got.size()));
  EXPECT_EQ(got, after);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_F(SegmentTest, ALostSegmentIsNotRenewed) {
  const auto domain = make("one");
  lose("one", 0);
  ASSERT_FALSE(domain->segment(0).lost());
  EXPECT_FALSE(domain->segment(0).renew_payload(0, kPageSize));
  EXPECT_TRUE(domain->segment(0).lost());
  struct stat info {};
  ASSERT_EQ(::stat(segment_path("one", 0).c_str(), &info), 0);
  EXPECT_EQ(info.st_blocks, 0);
}

TEST_F(SegmentTest, WindowsAreWritableViewsOfTheSameMemory) {
  const auto domain = make("one");
  Segment& segment = domain->segment(0);
  auto window = segment.writable_window(2 * kPageSize, kPageSize);
  ASSERT_TRUE(window);
  segment.protect(2 * kPageSize, kPageSize);
  window.data()[9] = std::byte{9};
  EXPECT_EQ(segment.metadata()[2 * kPageSize + 9], std::byte{9});
  auto moved = std::move(window);
  EXPECT_FALSE(window);  // NOLINT(bugprone-use-after-move)
  moved.data()[9] = std::byte{10};
  EXPECT_EQ(segment.metadata()[2 * kPageSize + 9], std::byte{10});
  // A window onto lost memory is repaired like other metadata.
  lose("one", 0);
  EXPECT_EQ(std::byte(*const_cast<volatile std::byte*>(moved.data() + 9)), std::byte{0});
  EXPECT_TRUE(segment.lost());
  moved.reset();
  EXPECT_FALSE(moved);
}

TEST_F(SegmentTest, MappingAndUnmappingLeavesNothingWatched) {
  make("one", 2);
  // More often than ranges can be watched at once.
  for (int i = 0; i < 400; ++i) {
    const auto opened = open("one");
    ASSERT_TRUE(opened) << i << ": " << opened.error().message;
    auto window = (*opened)->segment(0).writable_window(2 * kPageSize, kPageSize);
    ASSERT_TRUE(window);
    window.data()[0] = std::byte{1};
  }
}

TEST_F(SegmentDeathTest, PayloadHeaderAndProtectedPagesCannotBeWritten) {
  const auto domain = make("one");
  Segment& segment = domain->segment(0);
  segment.protect(2 * kPageSize, kPageSize);
  const auto scribble = [](const std::byte* where) {
    *const_cast<volatile std::byte*>(where) = std::byte{1};
  };
  EXPECT_DEATH(scribble(segment.payload()), "");
  EXPECT_DEATH(scribble(segment.metadata()), "");
  EXPECT_DEATH(scribble(segment.metadata() + 2 * kPageSize), "");
  scribble(segment.metadata() + kPageSize);
}

TEST_F(SegmentDeathTest, FaultsElsewhereStillKill) {
  const auto domain = make("one");
  const std::string file = directory_ + "/stranger";
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::ftruncate(fd, 4096), 0);
  auto* memory =
      static_cast<volatile char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(::ftruncate(fd, 0), 0);
  EXPECT_DEATH(memory[0] = 1, "");
  ::munmap(const_cast<char*>(memory), 4096);
  ::close(fd);
}

TEST_F(SegmentTest, RemoteMemoryCostsOnlyThoseFarFromIt) {
  DomainSpec s = spec("one", 2);
  s.remote_penalty_percent = 1200;
  const auto domain = create(s);
  ASSERT_TRUE(domain);
  const SegmentHeader& header = (*domain)->header();
  EXPECT_EQ(header.remote_penalty_percent, 1200U);
  // Eleven times a local access on top of it.
  EXPECT_NEAR(header.remote_extra_ns, local_load_ns() * 11, 1.0);
  const auto plain = make("two");
  EXPECT_EQ(plain->header().remote_extra_ns, 0U);
}

}  // namespace
}  // namespace mcs::gsm
