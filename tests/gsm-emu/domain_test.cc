// SPDX-License-Identifier: Apache-2.0
#include "gsm-emu/domain.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/statvfs.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "tests/gsm-emu/gsm_fixture.h"
#include "tests/gsm-emu/no_more_files.h"

namespace mcs::gsm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class DomainTest : public GsmTest {
 protected:
  void expect_refused(const std::string& name, ErrorCode code, const char* why) const {
    const auto opened = open(name);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, code) << opened.error().message;
    EXPECT_THAT(opened.error().message, HasSubstr(why));
    // One sentence, which names the thing.
    EXPECT_THAT(opened.error().message, HasSubstr(name));
    EXPECT_EQ(opened.error().message.find('\n'), std::string::npos);
  }
};

// Of address space, in bytes.
std::uint64_t mapped_bytes() {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * kPageSize;
}

TEST_F(DomainTest, WhatIsCreatedCanBeOpened) {
  const auto made = make("one", 3);
  const auto opened = open("one");
  ASSERT_TRUE(opened) << opened.error().message;
  Domain& domain = **opened;
  EXPECT_EQ(domain.name(), "one");
  EXPECT_EQ(domain.node_count(), 3U);
  EXPECT_EQ(domain.path(), path("one"));
  for (std::uint32_t node = 0; node < 3; ++node) {
    const SegmentHeader& header = domain.segment(node).header();
    EXPECT_EQ(header.node, node);
    EXPECT_EQ(header.node_count, 3U);
    EXPECT_EQ(header.incarnation, 1U);
    EXPECT_EQ(header.size, kBytes);
    EXPECT_EQ(header.meta_bytes, kMeta);
    EXPECT_EQ(header.user[3], 33U);
    EXPECT_STREQ(header.domain, "one");
    EXPECT_EQ(header.domain_id, made->header().domain_id);
    EXPECT_EQ(header.hash_seed, made->header().hash_seed);
    EXPECT_EQ(domain.segment(node).metadata()[kPageSize], static_cast<std::byte>(0xa0 + node));
  }
  EXPECT_THAT(Domain::list(directory_), ElementsAre(path("one")));
}

TEST_F(DomainTest, WritesAreSeenThroughEveryMapping) {
  const auto made = make("one", 2);
  const auto opened = open("one");
  ASSERT_TRUE(opened);
  made->segment(1).metadata()[kPageSize + 5] = std::byte{42};
  EXPECT_EQ((*opened)->segment(1).metadata()[kPageSize + 5], std::byte{42});
  const std::string text = "payload";
  ASSERT_TRUE(made->segment(1).write_payload(100, std::as_bytes(std::span(text))));
  EXPECT_EQ(std::memcmp((*opened)->segment(1).payload() + 100, text.data(), text.size()), 0);
  EXPECT_FALSE(made->segment(1).write_payload(kBytes - kMeta - 3, std::as_bytes(std::span(text))));
  EXPECT_FALSE(made->segment(1).write_payload(~0ULL, std::as_bytes(std::span(text))));
}

// Two kernels that map one device: each has a directory of its own.
class DeviceTest : public DomainTest {
 protected:
  DeviceTest() {
    device_ = directory_ + "/device";
    there_ = directory_ + "/other-kernel";
    std::filesystem::create_directory(there_);
    std::ofstream(device_).put('\0');
    std::filesystem::resize_file(device_, 4 * kBytes);
  }
  DomainSpec on_device(std::uint32_t nodes) const {
    DomainSpec s = spec("one", nodes);
    s.device = device_;
    return s;
  }
  Result<std::unique_ptr<Domain>> attach() const {
    DomainSpec here = spec("any");
    here.directory = there_;
    here.device = device_;
    return Domain::attach(here);
  }
  std::string device_;
  std::string there_;
};

TEST_F(DeviceTest, IsSharedByAllWhoAttach) {
  const auto made = create(on_device(3));
  ASSERT_TRUE(made) << made.error().message;
  const auto attached = attach();
  ASSERT_TRUE(attached) << attached.error().message;
  EXPECT_EQ((*attached)->name(), "one");
  EXPECT_EQ((*attached)->path(), Domain::path_of(there_, "one", kLayout));
  ASSERT_EQ((*attached)->node_count(), 3U);
  const auto opened = Domain::open(there_, "one", kLayout);
  ASSERT_TRUE(opened) << opened.error().message;
  for (std::uint32_t node = 0; node < 3; ++node) {
    Segment& here = (*made)->segment(node);
    Segment& there = (*opened)->segment(node);
    EXPECT_TRUE(there.on_device());
    EXPECT_EQ(there.node(), node);
    EXPECT_EQ(there.metadata()[kPageSize], static_cast<std::byte>(0xa0 + node));
    here.metadata()[kPageSize + 5] = static_cast<std::byte>(node + 1);
    EXPECT_EQ(there.metadata()[kPageSize + 5], static_cast<std::byte>(node + 1));
    auto window = there.writable_window(2 * kPageSize, kPageSize);
    ASSERT_TRUE(window);
    window.data()[7] = std::byte{9};
    EXPECT_EQ(here.metadata()[2 * kPageSize + 7], std::byte{9});
    // Not at a page's beginning, and over the end of one.
    const std::string text(5000, static_cast<char>('a' + node));
    ASSERT_TRUE(there.write_payload(kPageSize - 100, std::as_bytes(std::span(text))));
    EXPECT_EQ(std::memcmp(here.payload() + kPageSize - 100, text.data(), text.size()), 0);
    EXPECT_EQ(here.payload()[kPageSize - 101], std::byte{0});
    EXPECT_FALSE(there.write_payload(kBytes - kMeta - 3, std::as_bytes(std::span(text))));
    EXPECT_EQ(there.fd(), -1);
    EXPECT_FALSE(there.sendable());
    EXPECT_FALSE(there.renew_payload(0, kPageSize));
  }
  ASSERT_TRUE(Domain::destroy((*opened)->path()));
  EXPECT_EQ((*made)->segment(2).metadata()[kPageSize], std::byte{0xa2});
}

TEST_F(DeviceTest, IsWritableNowhereButInMetadata) {
  const auto made = create(on_device(1));
  ASSERT_TRUE(made) << made.error().message;
  const auto store = [](const std::byte* at) { *const_cast<volatile std::byte*>(at) = std::byte{1}; };
  EXPECT_DEATH(store((*made)->segment(0).payload()), "");
  const auto attached = attach();
  ASSERT_TRUE(attached);
  EXPECT_DEATH(store((*attached)->segment(0).metadata()), "");
}

TEST_F(DeviceTest, WhatIsHalfMadeIsNotAttached) {
  auto empty = attach();
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, ErrorCode::kDamaged);
  EXPECT_THAT(empty.error().message, HasSubstr("gsm-emu up"));
  ASSERT_TRUE(create(on_device(2)));
  // Made again over an older one, and killed while it formats the second segment.
  EXPECT_EXIT(
      {
        DomainSpec again = on_device(2);
        again.name = "two";
        (void)Domain::create(again, geometry(), [](Segment& segment) {
          if (segment.node() == 1) ::_exit(7);
        });
      },
      testing::ExitedWithCode(7), "");
  EXPECT_FALSE(attach());
  DomainSpec whole = on_device(2);
  whole.name = "three";
  ASSERT_TRUE(create(whole));
  EXPECT_TRUE(attach());
}

TEST_F(DeviceTest, TooSmallOnesAreRefused) {
  const auto made = create(on_device(5));
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kNoSpace);
  EXPECT_THAT(made.error().message, HasSubstr(device_));
  EXPECT_THAT(Domain::list(directory_), IsEmpty());
  ASSERT_TRUE(create(on_device(4)));
  std::filesystem::resize_file(device_, 3 * kBytes);
  EXPECT_FALSE(attach());
  EXPECT_FALSE(open("one"));
}

TEST_F(DomainTest, DomainsHaveIdentitiesAndSeedsOfTheirOwn) {
  const auto one = make("one");
  const auto two = make("two");
  EXPECT_NE(one->header().domain_id, two->header().domain_id);
  EXPECT_NE(one->header().hash_seed, two->header().hash_seed);
}

TEST_F(DomainTest, NamesAreChecked) {
  for (const char* good : {"a", "web-cache_1.x", "0", "abcdefghijklmnopqrstuvwxyz012345"}) {
    EXPECT_TRUE(Domain::check_name(good)) << good;
  }
  for (const char* bad :
       {"", ".a", "..", "A", "a/b", "a b", "ü", "a\n", "abcdefghijklmnopqrstuvwxyz0123456"}) {
    const auto checked = Domain::check_name(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
    EXPECT_FALSE(create(spec(bad)));
    EXPECT_FALSE(open(bad));
  }
  EXPECT_THAT(names_in_directory(), IsEmpty());
}

TEST_F(DomainTest, SizesAreChecked) {
  for (const std::uint32_t nodes : {0U, 17U, 4000000000U}) {
    const auto made = create(spec("one", nodes));
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  }
  DomainSpec small = spec("one");
  small.bytes_per_node = kMeta;
  const auto made = create(small);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(made.error().message, HasSubstr("too small"));
  EXPECT_THAT(names_in_directory(), IsEmpty());
}

TEST_F(DomainTest, ASecondOneOfTheNameIsRefusedAndLeavesNothing) {
  const auto made = make("one");
  const auto again = create(spec("one"));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kExists);
  EXPECT_EQ(names_in_directory().size(), 1U);
  EXPECT_TRUE(open("one"));
}

TEST_F(DomainTest, BuildsWithOtherLayoutsLiveBesideEachOther) {
  const auto ours = make("one");
  DomainSpec theirs = spec("one");
  theirs.layout_hash = kLayout + 1;
  ASSERT_TRUE(create(theirs));
  EXPECT_EQ(Domain::list(directory_).size(), 2U);
  EXPECT_TRUE(open("one"));
  EXPECT_TRUE(Domain::open(directory_, "one", kLayout + 1));
}

// ---- what cannot be opened

TEST_F(DomainTest, AMissingDomainIsNamed) {
  expect_refused("none", ErrorCode::kNotFound, "gsm-emu up none");
}

TEST_F(DomainTest, GarbageIsRefused) {
  make("one");
  SegmentHeader header = read_header(segment_path("one", 0));
  header.magic ^= 1;
  write_header(segment_path("one", 0), header, true);
  expect_refused("one", ErrorCode::kDamaged, "wrong magic");
}

TEST_F(DomainTest, AnotherFormatIsRefused) {
  make("one");
  SegmentHeader header = read_header(segment_path("one", 0));
  ++header.header_version;
  write_header(segment_path("one", 0), header, true);
  expect_refused("one", ErrorCode::kIncompatible, "segment format 3");
}

TEST_F(DomainTest, AnotherLayoutIsRefused) {
  make("one");
  // As if the low half of two layouts' hashes were the same.
  SegmentHeader header = read_header(segment_path("one", 0));
  header.layout_hash ^= 1ULL << 60;
  write_header(segment_path("one", 0), header, true);
  expect_refused("one", ErrorCode::kIncompatible, "another layout");
}

TEST_F(DomainTest, ADamagedHeaderIsRefused) {
  make("one");
  SegmentHeader header = read_header(segment_path("one", 0));
  header.user[7] ^= 1;
  write_header(segment_path("one", 0), header, false);
  expect_refused("one", ErrorCode::kDamaged, "checksum");
}

TEST_F(DomainTest, HeadersThatContradictTheFileAreRefused) {
  const auto refuse = [&](auto&& change) {
    make("one");
    SegmentHeader header = read_header(segment_path("one", 0));
    change(header);
    write_header(segment_path("one", 0), header, true);
    expect_refused("one", ErrorCode::kDamaged, "");
    EXPECT_TRUE(Domain::destroy(path("one")));
  };
  refuse([](SegmentHeader& h) { h.size -= kPageSize; });
  refuse([](SegmentHeader& h) { h.meta_bytes = 0; });
  refuse([](SegmentHeader& h) { h.meta_bytes += 1; });
  refuse([](SegmentHeader& h) { h.meta_bytes = h.size; });
  refuse([](SegmentHeader& h) { h.meta_bytes = ~0ULL << 12; });
  refuse([](SegmentHeader& h) { h.node = 1; });
  refuse([](SegmentHeader& h) { h.node_count = 0; });
  refuse([](SegmentHeader& h) { h.node_count = 17; });
  refuse([](SegmentHeader& h) { h.incarnation = 0; });
}

TEST_F(DomainTest, ATruncatedSegmentIsLost) {
  make("one", 2);
  for (const off_t length : {off_t{kBytes - 1}, off_t{kMeta}, off_t{0}}) {
    ASSERT_EQ(::truncate(segment_path("one", 0).c_str(), length), 0);
    const auto opened = open("one");
    ASSERT_TRUE(opened) << opened.error().message;
    EXPECT_TRUE((*opened)->segment(0).lost());
    EXPECT_FALSE((*opened)->segment(1).lost());
    EXPECT_EQ((*opened)->node_count(), 2U);
  }
  // Also if nothing is left.
  ASSERT_EQ(::truncate(segment_path("one", 1).c_str(), 0), 0);
  const auto opened = open("one");
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_TRUE((*opened)->segment(0).lost() && (*opened)->segment(1).lost());
  // Memory that is not there and no word of what it was: refused.
  ASSERT_EQ(::unlink((path("one") + "/header").c_str()), 0);
  expect_refused("one", ErrorCode::kDamaged, "too short");
}

TEST_F(DomainTest, ASegmentComesBackAsAnotherIncarnation) {
  make("one", 2);
  auto mapped = open("one");
  ASSERT_TRUE(mapped);
  auto tool = open("one");
  ASSERT_TRUE(tool);
  EXPECT_EQ((*tool)->restore(1, [](Segment&) {}).error().code, ErrorCode::kExists);
  ASSERT_EQ(::truncate(segment_path("one", 1).c_str(), 0), 0);
  Segment& former = (*mapped)->segment(1);
  EXPECT_FALSE((*mapped)->renew(1));
  ASSERT_TRUE((*tool)->restore(1, [](Segment&) {}));
  EXPECT_TRUE((*mapped)->renew(1));
  EXPECT_FALSE((*mapped)->renew(1));
  EXPECT_EQ((*mapped)->segment(1).incarnation(), 2U);
  EXPECT_TRUE((*mapped)->segment(1).answers());
  // Whoever still has the former one meets nothing of the new one.
  EXPECT_FALSE(former.answers());
}

TEST_F(DomainTest, WhatThisProcessCannotOpenIsOutOfItsReach) {
  make("one", 2);
  auto mapped = open("one");
  auto tool = open("one");
  ASSERT_TRUE(mapped && tool);
  ASSERT_EQ(::truncate(segment_path("one", 1).c_str(), 0), 0);
  ASSERT_TRUE((*tool)->restore(1, [](Segment&) {}));
  const auto expect_unreached = [&](const char* why) {
    for (const std::uint32_t node : {0U, 1U}) EXPECT_FALSE((*mapped)->renew(node)) << node;
    EXPECT_FALSE((*mapped)->is_out_of_reach(0)) << "it answers, so there is nothing to open";
    EXPECT_TRUE((*mapped)->is_out_of_reach(1));
    EXPECT_THAT((*mapped)->out_of_reach(1), HasSubstr(why));
    EXPECT_THAT((*mapped)->out_of_reach(1), HasSubstr(path("one")));
  };
  {
    const NoMoreFiles none;
    expect_unreached("Too many open files; allow more");
  }
  // More than the mappings there are, but not by a segment.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  if (mapped_bytes() < (1ULL << 40)) {  // sanitizers reserve all there is
    rlimit little = before;
    little.rlim_cur = mapped_bytes() + kBytes / 2;
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &little), 0);
    expect_unreached("Cannot allocate memory; allow more address space");
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
  }
  EXPECT_TRUE((*mapped)->renew(1));
  EXPECT_FALSE((*mapped)->is_out_of_reach(1));
  EXPECT_EQ((*mapped)->out_of_reach(1), "");
}

TEST_F(DomainTest, AMissingSegmentIsNamed) {
  make("one", 3);
  ASSERT_EQ(::unlink(segment_path("one", 1).c_str()), 0);
  expect_refused("one", ErrorCode::kDamaged, "no segment of node 1");
}

TEST_F(DomainTest, SegmentsOfOtherDomainsAndNodesAreRefused) {
  make("one", 2);
  make("two", 2);
  std::filesystem::copy_file(segment_path("two", 1), segment_path("one", 1),
                             std::filesystem::copy_options::overwrite_existing);
  expect_refused("one", ErrorCode::kDamaged, "another domain");
  std::filesystem::copy_file(segment_path("two", 0), segment_path("two", 1),
                             std::filesystem::copy_options::overwrite_existing);
  expect_refused("two", ErrorCode::kDamaged, "another domain or node");
}

TEST_F(DomainTest, ALinkInPlaceOfASegmentIsNotFollowed) {
  make("one");
  std::filesystem::rename(segment_path("one", 0), directory_ + "/elsewhere");
  std::filesystem::create_symlink(directory_ + "/elsewhere", segment_path("one", 0));
  EXPECT_FALSE(open("one"));
}

TEST_F(DomainTest, TheNewestIncarnationOfANodeIsOpened) {
  make("one", 2);
  for (const std::uint64_t incarnation : {2, 10}) {
    std::filesystem::copy_file(segment_path("one", 1), segment_path("one", 1, incarnation));
    SegmentHeader header = read_header(segment_path("one", 1));
    header.incarnation = incarnation;
    write_header(segment_path("one", 1, incarnation), header, true);
  }
  const auto opened = open("one");
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ((*opened)->segment(0).incarnation(), 1U);
  EXPECT_EQ((*opened)->segment(1).incarnation(), 10U);
}

// ---- rights

TEST_F(DomainTest, OnlyThoseWithRightsMayOpen) {
  make("one");
  const std::string said = in_child([&]() -> std::string {
    ::chmod(directory_.c_str(), 0755);
    // root may open everything, so the child becomes nobody; anybody else locks himself out.
    if (::geteuid() == 0) {
      if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 ||
          ::setresuid(65534, 65534, 65534) != 0) {
        return "cannot become nobody";
      }
    } else {
      ::chmod(path("one").c_str(), 0);
    }
    const auto opened = open("one");
    if (opened) return "opened";
    return opened.error().code == ErrorCode::kPermission ? "refused: " + opened.error().message
                                                         : "other: " + opened.error().message;
  });
  ::chmod(path("one").c_str(), 0700);
  EXPECT_THAT(said, HasSubstr("refused: "));
  EXPECT_THAT(said, HasSubstr("owner=, group= and mode="));
}

TEST_F(DomainTest, ModeAppliesToAllFilesAndTheDirectoryCanBeSearched) {
  DomainSpec s = spec("one", 2);
  s.mode = 0640;
  const mode_t before = ::umask(0077);
  ASSERT_TRUE(create(s));
  ::umask(before);
  struct stat info {};
  for (const std::string& file :
       {segment_path("one", 0), segment_path("one", 1), path("one") + "/live"}) {
    ASSERT_EQ(::stat(file.c_str(), &info), 0) << file;
    EXPECT_EQ(info.st_mode & 07777, 0640U) << file;
  }
  ASSERT_EQ(::stat(path("one").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0750U);
}

TEST_F(DomainTest, UnknownOwnersAndGroupsAreNamed) {
  DomainSpec s = spec("one");
  s.owner = "no-such-user";
  auto made = create(s);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(made.error().message, HasSubstr("owner=no-such-user"));
  s.owner.clear();
  s.group = "no-such-group";
  made = create(s);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("group=no-such-group"));
  EXPECT_THAT(names_in_directory(), IsEmpty());
}

TEST_F(DomainTest, AnOwnerCanBeGivenByRootOnly) {
  DomainSpec s = spec("one");
  s.owner = "daemon";
  const auto made = create(s);
  if (::geteuid() == 0) {
    ASSERT_TRUE(made) << made.error().message;
    struct stat info {};
    for (const std::string& file : {path("one"), segment_path("one", 0), path("one") + "/live"}) {
      ASSERT_EQ(::stat(file.c_str(), &info), 0);
      EXPECT_EQ(info.st_uid, 1U) << file;
    }
  } else {
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, ErrorCode::kPermission);
    EXPECT_THAT(made.error().message, HasSubstr("owner="));
    EXPECT_THAT(names_in_directory(), IsEmpty());
  }
}

// ---- creation

TEST_F(DomainTest, AFullMemoryFileSystemIsAnErrorAtOnce) {
  const std::string said = in_child([&]() -> std::string {
    DomainSpec s = spec("big", 2);
    // A small file system of the child's own; where mounting is not permitted, more than there is.
    if (::unshare(CLONE_NEWNS) == 0 &&
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=3m") == 0) {
      s.bytes_per_node = 2 << 20;  // room for the first node only
    } else {
      struct statvfs info {};
      if (::statvfs(directory_.c_str(), &info) != 0) return "no statvfs";
      s.bytes_per_node = std::uint64_t{info.f_blocks} * info.f_frsize + (1 << 20);
    }
    const auto made = create(s);
    if (made) return "made";
    if (made.error().code != ErrorCode::kNoSpace) return "other: " + made.error().message;
    return names_in_directory().empty() ? "no space: " + made.error().message : "leaves something";
  });
  EXPECT_THAT(said, HasSubstr("no space: "));
  EXPECT_THAT(said, HasSubstr("smaller size="));
}

TEST_F(DomainTest, ADirectoryThatCannotBeWrittenIsNamed) {
  DomainSpec s = spec("one");
  s.directory = directory_ + "/missing";
  const auto made = create(s);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("/missing"));
  EXPECT_THAT(made.error().message, HasSubstr("dir="));
}

TEST_F(DomainTest, WhatAKilledCreatorLeftIsRemovedAndALivingOneIsLeftAlone) {
  const auto leave_build = [&](const char* name) {
    const std::string build = directory_ + "/" + name;
    std::filesystem::create_directory(build);
    std::ofstream(build + "/building") << "";
    std::ofstream(build + "/segment.0.1") << "half";
    return build;
  };
  leave_build(".mcs-one.dead");
  leave_build(".mcs-gone.1.2");
  std::filesystem::remove(directory_ + "/.mcs-gone.1.2/building");
  // Killed before it could mark its directory, long ago; and one that may be about to do so.
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::create_directory(directory_ + "/.mcs-one.unmarked");
  std::filesystem::last_write_time(directory_ + "/.mcs-one.unmarked", now - std::chrono::hours(1));
  std::filesystem::create_directory(directory_ + "/.mcs-one.beginning");
  const std::string living = leave_build(".mcs-one.living");
  const int marker = ::open((living + "/building").c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  ASSERT_EQ(::fcntl(marker, F_OFD_SETLK, &lock), 0);
  make("one");
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/.mcs-one.dead"));
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/.mcs-gone.1.2"));
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/.mcs-one.unmarked"));
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/.mcs-one.beginning"));
  EXPECT_FALSE(std::filesystem::exists(path("one") + "/building"));
  EXPECT_TRUE(std::filesystem::exists(living + "/segment.0.1"));
  ::close(marker);
}

/// Whoever makes a domain is nobody's member yet, and others need not wait for it.
class StoppedCreatorTest : public DomainTest, public testing::WithParamInterface<bool> {};

TEST_P(StoppedCreatorTest, AnotherOneMakesTheDomainAndItFindsThat) {
  const pid_t creator = ::fork();
  ASSERT_GE(creator, 0);
  if (creator == 0) {
    const auto made = Domain::create(spec("d", 2), geometry(), [](Segment& segment) {
      format(segment);
      if (segment.node() == 0) ::raise(SIGSTOP);
    });
    const bool exists = !made && made.error().code == ErrorCode::kExists;
    ::_exit(exists && open("d") ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(creator, &status, WUNTRACED), creator);
  ASSERT_TRUE(WIFSTOPPED(status));
  if (GetParam()) {
    ASSERT_EQ(::ptrace(PTRACE_SEIZE, creator, nullptr, nullptr), 0);
    ASSERT_EQ(::waitpid(creator, &status, __WALL), creator);
  }
  EXPECT_FALSE(open("d"));
  make("d", 2);
  EXPECT_TRUE(open("d"));
  if (GetParam()) {
    ASSERT_EQ(::ptrace(PTRACE_DETACH, creator, nullptr, nullptr), 0);
  }
  ::kill(creator, SIGCONT);
  ASSERT_EQ(::waitpid(creator, &status, 0), creator);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(names_in_directory().size(), 1U) << "nothing of its own is left";
}

INSTANTIATE_TEST_SUITE_P(Stopped, StoppedCreatorTest, testing::Bool(), [](const auto& traced) {
  return traced.param ? std::string("Traced") : std::string("Untraced");
});

TEST_F(DomainTest, AHalfMadeDomainIsNeverFound) {
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = "r" + std::to_string(round);
    std::atomic<int> made{0};
    std::atomic<int> existed{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        const auto domain = create(spec(name, 3));
        if (domain) {
          ++made;
        } else if (domain.error().code == ErrorCode::kExists) {
          ++existed;
        } else {
          ADD_FAILURE() << domain.error().message;
        }
      });
    }
    threads.emplace_back([&] {
      for (;;) {
        const auto opened = open(name);
        if (!opened && opened.error().code == ErrorCode::kNotFound) continue;
        ASSERT_TRUE(opened) << opened.error().message;
        for (std::uint32_t node = 0; node < 3; ++node) {
          EXPECT_EQ((*opened)->segment(node).metadata()[kPageSize],
                    static_cast<std::byte>(0xa0 + node));
        }
        return;
      }
    });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(made, 1);
    EXPECT_EQ(existed, 2);
  }
  EXPECT_EQ(names_in_directory().size(), static_cast<std::size_t>(kRounds));
}

TEST_F(DomainTest, WhoHasItMappedKeepsADestroyedDomain) {
  const auto made = make("one");
  ASSERT_TRUE(Domain::destroy(path("one")));
  EXPECT_FALSE(open("one"));
  EXPECT_THAT(names_in_directory(), IsEmpty());
  made->segment(0).metadata()[kPageSize] = std::byte{7};
  EXPECT_EQ(made->segment(0).metadata()[kPageSize], std::byte{7});
  EXPECT_FALSE(made->segment(0).lost());
  const auto again = Domain::destroy(path("one"));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kNotFound);
}

TEST_F(DomainTest, InMemoryDomainsHaveNoFiles) {
  const auto domain = Domain::in_memory(spec("one", 2), geometry(), format);
  EXPECT_TRUE(domain->path().empty());
  EXPECT_EQ(domain->node_count(), 2U);
  EXPECT_EQ(domain->segment(1).metadata()[kPageSize], std::byte{0xa1});
  const std::string text = "payload";
  EXPECT_TRUE(domain->segment(1).write_payload(5, std::as_bytes(std::span(text))));
  EXPECT_EQ(std::memcmp(domain->segment(1).payload() + 5, text.data(), text.size()), 0);
  EXPECT_THAT(names_in_directory(), IsEmpty());
}

}  // namespace
}  // namespace mcs::gsm
