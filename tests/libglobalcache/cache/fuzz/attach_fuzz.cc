// SPDX-License-Identifier: Apache-2.0
// A domain's segment file that is garbage, truncated, of another version, or made to look sound:
// opening it gives an error, or a domain in which nothing goes beyond the file.
#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "libglobalcache/api/domain.h"
#include "libglobalcache/cache/global_cache.h"
#include "libglobalcache/cache/verify.h"
#include "tests/libglobalcache/test_liveness.h"

namespace mcs::cache {
namespace {

constexpr std::uint64_t kSize = 1ULL << 20;

class File {
 public:
  File() {
    std::string directory = "/dev/shm/mcs-attach.XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) std::abort();
    directory_ = directory;
    gsm::DomainSpec spec;
    spec.name = "d";
    spec.directory = directory;
    spec.bytes_per_node = kSize;
    auto domain = api::create(spec);
    if (!domain) std::abort();
    fd_ = ::open(((*domain)->path() + "/segment.0.1").c_str(), O_RDWR | O_CLOEXEC);
    bytes_.resize(kSize);
    if (::pread(fd_, bytes_.data(), kSize, 0) != static_cast<ssize_t>(kSize)) std::abort();
    void* view = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (view == MAP_FAILED) std::abort();
    view_ = static_cast<std::byte*>(view);
  }
  ~File() {
    ::munmap(view_, kSize);
    std::filesystem::remove_all(directory_);
  }

  void run(FuzzedDataProvider& input) {
    gsm::SegmentHeader header;
    std::memcpy(&header, bytes_.data(), sizeof header);
    auto* words = reinterpret_cast<std::uint64_t*>(&header);
    const unsigned changes = input.ConsumeIntegralInRange<unsigned>(0, 4);
    for (unsigned i = 0; i < changes; ++i) {
      std::uint64_t& word = words[input.ConsumeIntegralInRange<std::size_t>(0, sizeof header / 8 - 1)];
      word = input.ConsumeBool() ? input.ConsumeIntegral<std::uint64_t>()
                                 : word + input.ConsumeIntegral<std::uint16_t>();
    }
    // Of an input that is used up each answer is 0, which must lead on.
    const bool sign = input.ConsumeIntegralInRange(0, 3) != 3;
    if (sign) header.checksum = gsm::header_checksum(header);
    // Seldom, since giving memory back and taking it again costs more than all the rest.
    const std::uint64_t size = input.ConsumeIntegralInRange(0, 15) != 15
                                   ? kSize
                                   : input.ConsumeIntegralInRange<std::uint64_t>(0, 2 * kSize);
    const std::string body = input.ConsumeRandomLengthString(4096);
    put(header, body, size);

    const auto domain = open(directory_, "d");
    if (!domain) {
      if (domain.error().message.empty()) std::abort();
      return;
    }
    // Truncated under our eyes: metadata reads as zeros, payload as lost.
    if (input.ConsumeIntegralInRange(0, 15) == 15) {
      (void)!::ftruncate(fd_, input.ConsumeIntegralInRange<off_t>(0, kSize));
    }
    use(**domain);
  }

 private:
  // Nothing is made anew that the run before has left as it was: thousands of runs a second.
  void put(const gsm::SegmentHeader& header, const std::string& body, std::uint64_t size) {
    resize(kSize);
    for (std::size_t at = 0; at < kSize; at += gsm::kPageSize) {
      if (std::memcmp(view_ + at, bytes_.data() + at, gsm::kPageSize) != 0) {
        std::memcpy(view_ + at, bytes_.data() + at, gsm::kPageSize);
      }
    }
    std::memcpy(view_, &header, sizeof header);
    std::memcpy(view_ + gsm::kPageSize, body.data(), body.size());
    resize(size);
  }

  void resize(std::uint64_t size) {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) std::abort();
    if (static_cast<std::uint64_t>(info.st_size) == size) return;
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) std::abort();
  }

  static void use(gsm::Domain& domain) {
    TestLiveness liveness;
    auto instance = runtime::Instance::join(
        domain, liveness, {.server = "fuzz/1", .busy_spins = 20, .may_inherit = true});
    if (!instance) return;
    GlobalCache cache(domain, **instance);
    (*instance)->activate();
    const std::string name = "/file";
    const Key key = cache.make_key(name);
    Fill fill;
    Hit hit;
    if (cache.begin(key, fill) == Begin::kFilling) {
      fill.set_head(std::as_bytes(std::span(name)), name.size());
      if (fill.append(std::as_bytes(std::span(name))) == Append::kOk) fill.commit(1);
    }
    if (cache.find(key, hit).found == Found::kHit) cache.release(hit);
    VerifyOptions options;
    options.rechecks = 1;
    options.interval = options.dead_grace = {};
    verify(domain, liveness, options);
    cache.leave();
    (*instance)->leave();
  }

  std::string directory_;
  int fd_ = -1;
  std::byte* view_ = nullptr;      // of the file
  std::vector<std::byte> bytes_;  // the file as it was made
};

}  // namespace
}  // namespace mcs::cache

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static mcs::cache::File file;
  FuzzedDataProvider input(data, size);
  file.run(input);
  return 0;
}
