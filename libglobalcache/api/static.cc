// SPDX-License-Identifier: Apache-2.0
// Local files: find, check against the disk when `valid` is over, read and store, serve.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "libglobalcache/api/policy.h"
#include "libglobalcache/api/process.h"
#include "libglobalcache/api/response.h"
#include "libglobalcache/http/cache_status.h"
#include "libglobalcache/http/date.h"
#include "libglobalcache/http/etag.h"
#include "libglobalcache/http/key.h"

namespace mcs::api {
namespace {

// A file whose last change is younger than this may change again without its times showing it.
constexpr std::int64_t kYoungMs = 2000;
constexpr std::uint64_t kReadChunk = 128 * 1024;

/// The head of a local file's entry.
struct FileHead {
  std::uint32_t version;
  std::uint8_t server_kind;  // of the process that filled it
  std::uint8_t etag_size;
  std::uint16_t node;  // whose copy of the file it was
  std::int64_t mtime_ns;
  std::int64_t ctime_ns;
  std::uint64_t device;
  std::uint64_t inode;
  std::uint64_t size;
  char etag[40];
  char last_modified[32];  // 29 characters; formatted once, when the file is stored
  std::uint32_t uid;       // of the process that read it; kAnybody: everybody may read it
  std::uint32_t gid;
};
static_assert(sizeof(FileHead) == 128);
constexpr std::uint32_t kFileHead = 0x46494c33;  // "FIL3"
constexpr std::uint32_t kAnybody = ~0u;
constexpr std::size_t kDateSize = 29;

std::int64_t ns(const timespec& t) {
  return static_cast<std::int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec;
}

FileHead describe(const mcs_process& process, const struct stat& info) {
  FileHead head{};
  head.version = kFileHead;
  head.server_kind = process.server_kind;
  head.node = static_cast<std::uint16_t>(process.config.node);
  head.mtime_ns = ns(info.st_mtim);
  head.ctime_ns = ns(info.st_ctim);
  head.device = info.st_dev;
  head.inode = info.st_ino;
  head.size = static_cast<std::uint64_t>(info.st_size);
  const http::StaticEtag etag = http::make_static_etag(head.mtime_ns, head.size);
  head.etag_size = static_cast<std::uint8_t>(etag.view().size());
  std::memcpy(head.etag, etag.view().data(), etag.view().size());
  return head;
}

/// With what only responses need.
FileHead described(const mcs_process& process, const struct stat& info) {
  FileHead head = describe(process, info);
  const auto date = http::format_http_date(head.mtime_ns / 1000000);
  std::memcpy(head.last_modified, date.data(), kDateSize);
  const bool anybody = (info.st_mode & S_IROTH) != 0;
  head.uid = anybody ? kAnybody : ::geteuid();
  head.gid = anybody ? kAnybody : ::getegid();
  return head;
}

/// Whether this server could have read the file itself, as far as its mode tells.
bool may_read(const FileHead& head, const char* file) {
  return head.uid == kAnybody || (head.uid == ::geteuid() && head.gid == ::getegid()) ||
         ::faccessat(AT_FDCWD, file, R_OK, AT_EACCESS) == 0;
}

/// Whether `now` still is the file that `then` was read from. Other nodes may have copies of their
/// own, whose inode and change time say nothing.
bool same_file(const FileHead& then, const FileHead& now) {
  return then.mtime_ns == now.mtime_ns && then.size == now.size &&
         (then.node != now.node ||
          (then.ctime_ns == now.ctime_ns && then.inode == now.inode && then.device == now.device));
}

bool is_young(const FileHead& head, std::int64_t now_ms) {
  const std::int64_t changed_ms = std::max(head.mtime_ns, head.ctime_ns) / 1000000;
  return changed_ms > now_ms - kYoungMs;
}

/// What one call works on.
struct Request {
  mcs_process& process;
  const mcs_static_request& ask;
  mcs_response& response;
  cache::Key key;

  void* alloc(std::size_t n) const { return ask.alloc(ask.alloc_context, n); }
};

// Copies to the beginning of a cache line are the fastest.
constexpr std::uintptr_t kLine = 64;
std::byte* align_up(std::byte* at) {
  return at + (kLine - reinterpret_cast<std::uintptr_t>(at) % kLine) % kLine;
}

bool put_fields(Request& r, const FileHead& head, mcs_cache_status status) {
  mcs_response& out = r.response;
  out.cache_status = status;
  out.status = 200;
  out.last_modified = static_cast<time_t>(head.mtime_ns / 1000000000);
  out.body_length = head.size;
  auto* text = static_cast<char*>(r.alloc(sizeof head.etag + kDateSize));
  if (text == nullptr) return false;
  const std::size_t n = std::min<std::size_t>(head.etag_size, sizeof head.etag);
  std::memcpy(text, head.etag, n);
  std::memcpy(text + sizeof head.etag, head.last_modified, kDateSize);
  out.etag = {text, n};
  out.last_modified_field = {text + sizeof head.etag, kDateSize};
  return true;
}

void put_cache_status(Request& r) {
  const http::CachePolicy& rules = r.ask.policy->rules;
  if (!rules.send_cache_status) return;
  http::CacheStatus what;
  what.cache_name = rules.cache_status_name;
  switch (r.response.cache_status) {
    case MCS_CACHE_HIT:
    case MCS_CACHE_REVALIDATED:
      what.hit = true;
      break;
    case MCS_CACHE_MISS:
      what.forward = http::Forward::kUriMiss;
      break;
    case MCS_CACHE_EXPIRED:
      what.forward = http::Forward::kStale;
      break;
    case MCS_CACHE_BYPASS:
      what.forward = http::Forward::kBypass;
      break;
    default:
      return;
  }
  what.stored = r.response.file_fd < 0;
  // Reused, so that a hit allocates nothing.
  static thread_local std::string text;
  text.clear();
  http::append_cache_status(what, text);
  auto* field = static_cast<char*>(r.alloc(text.size()));
  if (field == nullptr) return;
  std::memcpy(field, text.data(), text.size());
  r.response.cache_status_field = {field, text.size()};
}

/// Fill the response from a pinned entry; takes over the pin or releases it.
bool respond(Request& r, cache::Hit& hit, const FileHead& head, mcs_cache_status status) {
  cache::GlobalCache& cache = *r.process.cache;
  mcs_response& out = r.response;
  if (!put_fields(r, head, status)) {
    cache.release(hit);
    return false;
  }
  const std::uint64_t bytes = hit.body_bytes();
  if (r.ask.head || bytes == 0) {
    cache.touch(hit);
    cache.release(hit);
    return true;
  }
  if (r.process.copies(bytes)) {
    // Verified on a private copy at every hit, and the pin is gone before the client is served.
    auto* memory = static_cast<std::byte*>(r.alloc(sizeof(iovec) + kLine + bytes));
    std::byte* const body = memory == nullptr ? nullptr : align_up(memory + sizeof(iovec));
    const bool ok = memory != nullptr && cache.read_verified(hit, body);
    cache.touch(hit);
    cache.release(hit);
    if (!ok) return false;
    auto* piece = reinterpret_cast<iovec*>(memory);
    *piece = {body, bytes};
    out.body = piece;
    out.body_count = 1;
    return true;
  }
  static thread_local std::vector<std::span<const std::byte>> pieces;
  cache.body_pieces(hit, pieces);
  auto* iov = static_cast<iovec*>(r.alloc(pieces.size() * sizeof(iovec)));
  if (iov == nullptr) {
    cache.release(hit);
    return false;
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    iov[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
  }
  cache.touch(hit);
  out.pin = hand_over_pin(r.process, hit);
  if (out.pin == nullptr) return false;
  out.body = iov;
  out.body_count = pieces.size();
  out.body_pinned = 1;
  return true;
}

/// Serve from the disk, without the cache but with the same fields.
mcs_outcome serve_file(Request& r, mcs_cache_status status) {
  const int fd = ::open(r.ask.file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info {};
  if (fd < 0) return MCS_DECLINED;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) ||
      !put_fields(r, described(r.process, info), status)) {
    ::close(fd);
    return MCS_DECLINED;
  }
  r.response.file_fd = fd;
  put_cache_status(r);
  r.process.count(status == MCS_CACHE_BYPASS ? kBypass : kMisses);
  r.process.count(kMissBytes, r.response.body_length);
  return MCS_FILE;
}

enum class Stored { kYes, kNo, kUnusable };

/// Read the file into the fill. The file's description before and after reading must be the same,
/// else it changed meanwhile and must not be stored mixed.
Stored store_file(Request& r, cache::Fill& fill, std::uint64_t largest) {
  const int fd = ::open(r.ask.file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return Stored::kUnusable;
  struct Close {
    int fd;
    ~Close() { ::close(fd); }
  } close_at_end{fd};
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return Stored::kUnusable;
  const FileHead before = described(r.process, info);
  const std::int64_t now = runtime::wall_ms();
  if (before.size > largest || is_young(before, now)) return Stored::kNo;
  fill.set_head(std::as_bytes(std::span(&before, 1)), before.size);
  static thread_local std::vector<std::byte> buffer(kReadChunk);
  std::uint64_t at = 0;
  while (at < before.size) {
    const ssize_t n = ::pread(fd, buffer.data(), std::min(kReadChunk, before.size - at),
                              static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Stored::kNo;
    if (fill.append({buffer.data(), static_cast<std::size_t>(n)}) != cache::Append::kOk) {
      return Stored::kNo;
    }
    at += static_cast<std::uint64_t>(n);
  }
  if (::fstat(fd, &info) != 0 || !same_file(before, describe(r.process, info))) return Stored::kNo;
  return fill.commit(now) ? Stored::kYes : Stored::kNo;
}

bool load_head(const cache::Hit& hit, FileHead& head) {
  if (hit.head.size() != sizeof head) return false;
  std::memcpy(&head, hit.head.data(), sizeof head);
  return head.version == kFileHead && head.size == hit.body_bytes();
}

mcs_outcome answer_hit(Request& r, cache::Hit& hit, const FileHead& head, mcs_cache_status status) {
  if (!respond(r, hit, head, status)) {
    // Damaged or lost under our hands, or no memory: the disk has the truth.
    r.process.cache->retire(hit.link);
    r.process.count(kDamaged);
    return serve_file(r, MCS_CACHE_MISS);
  }
  if (status == MCS_CACHE_HIT || status == MCS_CACHE_REVALIDATED) {
    r.process.count(status == MCS_CACHE_HIT ? kHits : kRevalidated);
    r.process.count(kHitBytes, r.response.body_length);
    if (head.server_kind != r.process.server_kind) r.process.count(kCrossServerHits);
  } else {
    r.process.count(status == MCS_CACHE_MISS ? kMisses : kExpired);
    r.process.count(kMissBytes, r.response.body_length);
  }
  put_cache_status(r);
  return MCS_RESPONSE;
}

mcs_outcome get(Request& r) {
  mcs_process& process = r.process;
  cache::GlobalCache& cache = *process.cache;
  const http::CachePolicy& rules = r.ask.policy->rules;
  const std::int64_t configured = http::configured_lifetime(rules, 200);
  const std::int64_t valid_ms = configured < 0 ? 1000 : configured * 1000;
  // Reused, so that a hit allocates nothing.
  static thread_local cache::Hit hit;

  mcs_cache_status status = MCS_CACHE_MISS;
  for (unsigned round = 0; round < 8; ++round) {
    cache::FindResult found = cache.find(r.key, hit);
    cache::Link seen;
    if (found.found == cache::Found::kHit) {
      FileHead head;
      if (!load_head(hit, head)) {
        cache.release(hit);
        cache.retire(hit.link);
        continue;
      }
      if (!may_read(head, r.ask.file)) {
        cache.release(hit);
        return MCS_DECLINED;
      }
      const std::int64_t now = runtime::wall_ms();
      const std::int64_t age = now - hit.checked_ms;
      // A clock that went back must not keep an entry fresh for ever.
      if (age < valid_ms && age > -60000 && !hit.soft_purged) {
        return answer_hit(r, hit, head, round == 0 || status == MCS_CACHE_MISS
                                            ? (status == MCS_CACHE_EXPIRED ? MCS_CACHE_EXPIRED
                                                                           : MCS_CACHE_HIT)
                                            : status);
      }
      struct stat info {};
      if (::stat(r.ask.file, &info) != 0 || !S_ISREG(info.st_mode)) {
        cache.release(hit);
        cache.retire(hit.link);
        return MCS_DECLINED;
      }
      if (same_file(head, describe(process, info)) && !hit.soft_purged) {
        cache.set_checked(hit, now);
        return answer_hit(r, hit, head, MCS_CACHE_REVALIDATED);
      }
      seen = hit.link;
      status = MCS_CACHE_EXPIRED;
      cache.release(hit);
    } else if (found.found == cache::Found::kNoPin) {
      return serve_file(r, MCS_CACHE_BYPASS);
    } else if (found.found == cache::Found::kDamaged) {
      process.count(kDamaged);
    }
    if (found.filling.value == 0) {
      struct stat info {};
      if (::stat(r.ask.file, &info) != 0 || !S_ISREG(info.st_mode)) return MCS_DECLINED;
      const std::uint64_t largest = largest_object(cache, *r.ask.policy);
      if (static_cast<std::uint64_t>(info.st_size) > largest ||
          is_young(describe(process, info), runtime::wall_ms())) {
        return serve_file(r, status);
      }
      cache::Fill fill;
      const cache::Begin begun = cache.begin(r.key, fill, seen, round > 1);
      if (begun == cache::Begin::kOther) continue;
      if (begun != cache::Begin::kFilling) return serve_file(r, status);
      process.count(kFills);
      const Stored stored = store_file(r, fill, largest);
      if (stored == Stored::kUnusable) return MCS_DECLINED;
      if (stored == Stored::kNo) {
        fill.abort();
        process.count(kFillFailures);
        return serve_file(r, status);
      }
      found = cache.find(r.key, hit);
      FileHead head;
      if (found.found != cache::Found::kHit) return serve_file(r, status);
      if (!load_head(hit, head)) {
        cache.release(hit);
        return serve_file(r, status);
      }
      return answer_hit(r, hit, head, status);
    }
    process.count(kWaits);
    if (r.ask.last_try) return serve_file(r, status);
    const auto wait_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
        rules.lock_timeout_ms, 1, 60000));
    const bool thread = r.ask.waiter == nullptr;
    const bool limited = rules.lock_busy != http::LockBusy::kWait &&
                         (thread || rules.lock_busy != http::LockBusy::kByServer);
    if (limited && !take_place(process)) return serve_file(r, status);
    if (thread) {
      wait_blocking(process, {found.filling, kUntilEnd},
                    runtime::monotonic_ns() + wait_ms * 1000000ULL);
      if (limited) leave_place(process);
      if (cache.still_filling(found.filling)) return serve_file(r, status);
      continue;
    }
    if (register_waiter(process, r.ask.waiter, {found.filling, kUntilEnd}, limited)) {
      r.response.wait_ms = wait_ms;
      return MCS_WAIT;
    }
  }
  return serve_file(r, status);
}

}  // namespace
}  // namespace mcs::api

using namespace mcs;

extern "C" {

mcs_outcome mcs_static_get(mcs_process* process, const mcs_static_request* request,
                           mcs_response* response) try {
  *response = mcs_response{};
  response->file_fd = -1;
  response->last_modified = -1;
  if (process == nullptr) return MCS_DECLINED;
  api::Request r{*process, *request, *response, {}};
  // Reused, so that a hit allocates nothing.
  static thread_local std::string key;
  const auto ok = http::build_static_key(request->policy->rules.key_base,
                                         {request->path.data, request->path.size}, key);
  if (!ok) return MCS_DECLINED;
  r.key = process->cache->make_key(key);
  r.key.site = request->policy->site_rules();
  process->count(api::kRequests);
  const api::LatencySample sample(*process);
  return api::get(r);
} catch (const std::exception&) {
  // Out of memory: the server answers by itself.
  if (response->file_fd >= 0) ::close(response->file_fd);
  mcs_response_release(process, response);
  return MCS_DECLINED;
}

}  // extern "C"
