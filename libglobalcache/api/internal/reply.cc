// SPDX-License-Identifier: Apache-2.0
// From an entry, or from what the origin sent, to an mcs_response: preconditions, ranges, fields and
// body. All memory comes from the request.
#include <sys/random.h>

#include <algorithm>
#include <charconv>

#include "libglobalcache/api/internal/transaction.h"
#include "libglobalcache/api/response.h"
#include "libglobalcache/http/cache_status.h"
#include "libglobalcache/http/conditional.h"
#include "libglobalcache/http/field_filter.h"
#include "libglobalcache/http/freshness.h"
#include "libglobalcache/http/key.h"
#include "libglobalcache/http/range.h"

namespace mcs::api {
namespace {

// Fields that a response may get besides those that are stored.
constexpr std::size_t kExtraFields = 4;
// Digits of an age or a position.
constexpr std::size_t kDigits = 20;

template <std::size_t n>
mcs_str literal(const char (&text)[n]) {
  return {text, n - 1};
}

std::uint64_t nonce() {
  std::uint64_t value = 0;
  if (::getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value) {
    value = runtime::monotonic_ns();
  }
  return value;
}

void tell(const Transaction& t, const Story& story, std::string& out) {
  http::CacheStatus status;
  status.cache_name = t.policy->cache_status_name;
  status.hit = story.forward == http::Forward::kNone;
  status.forward = story.forward;
  status.forward_status = story.forward_status;
  status.ttl_s = story.ttl_s;
  status.stored = story.stored;
  status.collapsed = story.collapsed;
  const std::string key = http::display_key(t.primary);
  status.key = key;
  http::append_cache_status(status, out);
}

/// Builds the field array and the strings that belong to it. Strings are collected first and placed
/// behind the array, so that there is one piece of memory.
class FieldWriter {
 public:
  /// Room for `count` fields and `extra` bytes behind them; place() gives them out.
  bool open(Transaction& t, std::size_t count, std::size_t bytes) {
    const std::size_t table = (count + kExtraFields) * sizeof(mcs_field);
    auto* memory = static_cast<char*>(t.alloc(table + bytes));
    if (memory == nullptr) return false;
    fields_ = reinterpret_cast<mcs_field*>(memory);
    bytes_ = memory + table;
    return true;
  }
  char* place(std::size_t n) {
    char* at = bytes_;
    bytes_ += n;
    return at;
  }
  void add(mcs_str name, mcs_str value) { fields_[count_++] = {name, value}; }
  void add_copy(mcs_str name, std::string_view value) {
    char* at = place(value.size());
    std::memcpy(at, value.data(), value.size());
    add(name, {at, value.size()});
  }
  void finish(mcs_response& out) {
    out.fields = fields_;
    out.field_count = count_;
  }

 private:
  mcs_field* fields_ = nullptr;
  char* bytes_ = nullptr;
  std::size_t count_ = 0;
};

/// Texts that depend on the request, before there is memory for them. Reused by each thread, so that
/// a hit allocates nothing.
struct Texts {
  std::string content_range;
  std::string content_type;
  std::string cache_status;
  char age[kDigits];
  std::size_t age_size = 0;

  std::size_t size() const {
    return content_range.size() + content_type.size() + cache_status.size() + age_size;
  }
};

void write_texts(const Transaction& t, const Selection& selection, const http::RangeSet& set,
                 std::uint64_t length, const Story& story, Texts& texts) {
  texts.content_range.clear();
  texts.content_type.clear();
  texts.cache_status.clear();
  texts.age_size = 0;
  if (selection.unsatisfied) {
    http::append_unsatisfied_range(length, texts.content_range);
  } else if (selection.ranges == 1) {
    http::append_content_range(set.ranges[0], length, texts.content_range);
  }
  if (t.policy->send_cache_status) tell(t, story, texts.cache_status);
}

void add_texts(FieldWriter& writer, const Texts& texts, mcs_response& out) {
  if (texts.age_size > 0) writer.add_copy(literal("Age"), {texts.age, texts.age_size});
  if (!texts.content_range.empty()) {
    writer.add_copy(literal("Content-Range"), texts.content_range);
  }
  if (!texts.content_type.empty()) writer.add_copy(literal("Content-Type"), texts.content_type);
  if (!texts.cache_status.empty()) {
    char* at = writer.place(texts.cache_status.size());
    std::memcpy(at, texts.cache_status.data(), texts.cache_status.size());
    out.cache_status_field = {at, texts.cache_status.size()};
    writer.add(literal("Cache-Status"), out.cache_status_field);
  }
}

Texts& thread_texts() {
  static thread_local Texts texts;
  return texts;
}

void begin_response(mcs_response& out, const Selection& selection, const Story& story) {
  out = mcs_response{};
  out.file_fd = -1;
  out.last_modified = -1;
  out.age = -1;
  out.cache_status = story.status;
  out.status = selection.status;
}

// The fields of an entry, with all that a hit adds. `extra` bytes remain to be placed by the caller.
bool put_fields(Transaction& t, const EntryView& entry, const Selection& selection,
                const Texts& texts, std::size_t extra, FieldWriter& writer, mcs_response& out) {
  const ProxyHead& head = entry.head();
  const std::string_view block = entry.block();
  if (!writer.open(t, head.field_count, block.size() + texts.size() + extra)) return false;
  char* copy = writer.place(block.size());
  std::memcpy(copy, block.data(), block.size());
  for (std::size_t i = 0; i < head.field_count; ++i) {
    const StoredField field = entry.field(i);
    if (std::size_t{field.name_at} + field.name_size > block.size() ||
        std::size_t{field.value_at} + field.value_size > block.size()) {
      return false;
    }
    const mcs_str value{copy + field.value_at, field.value_size};
    if (i + 1 == head.etag) out.etag = value;
    if (selection.only_with_304 && (field.flags & StoredField::kWith304) == 0) continue;
    if (i + 1 == head.content_type && !texts.content_type.empty()) continue;
    writer.add({copy + field.name_at, field.name_size}, value);
  }
  if (selection.status == 200 && head.accept_ranges == 0) {
    writer.add(literal("Accept-Ranges"), literal("bytes"));
  }
  add_texts(writer, texts, out);
  const std::int64_t modified = entry.meta().last_modified_ms;
  if (modified != http::kNoTime) out.last_modified = static_cast<time_t>(modified / 1000);
  return true;
}

void write_age(const Transaction& t, const EntryView& entry, Texts& texts, mcs_response& out) {
  out.age = http::age_to_send(entry.meta(), t.now_ms);
  const auto end = std::to_chars(texts.age, texts.age + kDigits, out.age);
  texts.age_size = static_cast<std::size_t>(end.ptr - texts.age);
}

// Cuts [first, first + n) out of pieces of memory.
void cut(const std::vector<std::span<const std::byte>>& pieces, std::uint64_t first,
         std::uint64_t n, std::vector<iovec>& out) {
  for (const auto& piece : pieces) {
    if (n == 0) return;
    if (first >= piece.size()) {
      first -= piece.size();
      continue;
    }
    const std::uint64_t length = std::min<std::uint64_t>(n, piece.size() - first);
    out.push_back({const_cast<std::byte*>(piece.data()) + first, length});
    n -= length;
    first = 0;
  }
}

/// What of the body is sent, in order: stretches of it, and text between them.
struct Plan {
  std::vector<std::string> texts;  // before each range, and after the last
  std::uint64_t length = 0;
};

Plan plan_multipart(const http::RangeSet& set, std::uint64_t length, std::string_view type,
                    std::string& content_type) {
  const http::Multipart multipart(set.view(), length, type, nonce());
  Plan plan;
  for (std::size_t i = 0; i < set.count; ++i) plan.texts.push_back(multipart.part_header(i));
  plan.texts.push_back(multipart.trailer());
  plan.length = multipart.content_length();
  content_type = multipart.content_type();
  return plan;
}

struct Scratch {
  std::vector<std::span<const std::byte>> pieces;
  std::vector<iovec> cuts;
};

Scratch& thread_scratch() {
  static thread_local Scratch scratch;
  return scratch;
}

// The selected stretches of the body as `scratch.cuts`; multipart texts are copied to `at`.
void lay_out(const Selection& selection, const http::RangeSet& set, std::uint64_t length,
             std::uint64_t held_from, const Plan& plan, char* at, Scratch& scratch) {
  scratch.cuts.clear();
  if (selection.ranges == 0) {
    cut(scratch.pieces, 0, length, scratch.cuts);
    return;
  }
  const auto put_text = [&](const std::string& text) {
    std::memcpy(at, text.data(), text.size());
    scratch.cuts.push_back({at, text.size()});
    at += text.size();
  };
  for (std::size_t i = 0; i < selection.ranges; ++i) {
    if (!plan.texts.empty()) put_text(plan.texts[i]);
    cut(scratch.pieces, set.ranges[i].first - held_from, set.ranges[i].length(), scratch.cuts);
  }
  if (!plan.texts.empty()) put_text(plan.texts.back());
}

bool put_pieces(Transaction& t, const std::vector<iovec>& cuts, mcs_response& out) {
  auto* pieces = static_cast<iovec*>(t.alloc(std::max<std::size_t>(1, cuts.size()) *
                                             sizeof(iovec)));
  if (pieces == nullptr) return false;
  std::copy(cuts.begin(), cuts.end(), pieces);
  out.body = pieces;
  out.body_count = cuts.size();
  return true;
}

}  // namespace

Representation represent(const EntryView& entry, std::uint64_t length) {
  Representation what;
  what.status = entry.meta().status;
  what.etag = entry.etag();
  what.last_modified_ms = entry.meta().last_modified_ms;
  what.date_ms = entry.meta().date_ms;
  what.length = length;
  return what;
}

Selection select(const Transaction& t, const Representation& what, http::RangeSet& set) {
  Selection selection;
  selection.status = what.status;
  selection.body = t.method != http::Method::kHead;
  const http::Validators validators{what.etag, what.last_modified_ms, what.date_ms};
  if (t.has_conditions) {
    switch (http::evaluate_preconditions(t.method, t.fields, what.status, validators, t.now_ms)) {
      case http::Precondition::kProceed:
        break;
      case http::Precondition::kNotModified:
        selection.status = 304;
        break;
      case http::Precondition::kFailed:
        selection.status = 412;
        break;
    }
    if (selection.status != what.status) {
      selection.body = false;
      selection.only_with_304 = true;
      return selection;
    }
  }
  // RFC 9110 14.2: Range is defined for GET and for what would be a 200.
  if (!t.has_range || t.method != http::Method::kGet || what.status != 200 ||
      what.length == kUnknownBody || !http::range_applies(t.fields, validators, t.now_ms)) {
    return selection;
  }
  set = http::parse_range(http::field_value(t.fields, "range"), what.length, t.policy->max_ranges);
  if (set.result == http::RangeResult::kPartial) {
    selection.status = 206;
    selection.ranges = set.count;
  } else if (set.result == http::RangeResult::kUnsatisfiable) {
    selection.status = 416;
    selection.body = false;
    selection.only_with_304 = true;
    selection.unsatisfied = true;
  }
  return selection;
}

Made reply_from_hit(Transaction& t, const EntryView& entry, const Story& story,
                    mcs_response& out) {
  const std::uint64_t held = t.hit.body_bytes();
  // Of a representation that is stored in part only what is held is ever selected (partial.cc).
  const bool partial = entry.head().kind == EntryKind::kPartial;
  const std::uint64_t length = partial ? entry.meta().complete_length : held;
  http::RangeSet set;
  const Selection selection = select(t, represent(entry, length), set);
  begin_response(out, selection, story);
  Texts& texts = thread_texts();
  write_texts(t, selection, set, length, story, texts);
  write_age(t, entry, texts, out);
  Plan plan;
  out.body_length = length;
  if (selection.ranges > 1) {
    plan = plan_multipart(set, length, entry.value(entry.head().content_type), texts.content_type);
    out.body_length = plan.length;
  } else if (selection.ranges == 1) {
    out.body_length = set.ranges[0].length();
  } else if (!selection.body && t.method != http::Method::kHead) {
    out.body_length = 0;
  }

  const bool wants_body = selection.body && held > 0;
  const bool copied = wants_body && t.process->copies(held);
  std::size_t extra = 0;
  for (const std::string& text : plan.texts) extra += text.size();
  FieldWriter writer;
  if (!put_fields(t, entry, selection, texts, extra + (copied ? held : 0), writer, out)) {
    return Made::kNoMemory;
  }
  writer.finish(out);
  if (!wants_body) return Made::kYes;

  Scratch& scratch = thread_scratch();
  if (copied) {
    // Verified on a private copy at every hit.
    auto* body = reinterpret_cast<std::byte*>(writer.place(held));
    if (!t.cache().read_verified(t.hit, body)) return Made::kDamaged;
    scratch.pieces.assign(1, {body, held});
  } else {
    t.cache().body_pieces(t.hit, scratch.pieces);
  }
  lay_out(selection, set, length, partial ? entry.meta().range_first : 0, plan,
          writer.place(extra), scratch);
  if (!put_pieces(t, scratch.cuts, out)) return Made::kNoMemory;
  if (!copied) {
    out.body_pinned = 1;
    out.pin = share_pin(*t.process, t.hit);
    if (out.pin == nullptr) return Made::kDamaged;
  }
  return Made::kYes;
}

bool reply_head(Transaction& t, const EntryView& entry, const Selection& selection,
                const http::RangeSet& set, std::uint64_t length, const Story& story,
                mcs_response& out) {
  begin_response(out, selection, story);
  Texts& texts = thread_texts();
  write_texts(t, selection, set, length, story, texts);
  write_age(t, entry, texts, out);
  out.body_length = selection.ranges == 1 ? set.ranges[0].length() : length;
  if (!selection.body && t.method != http::Method::kHead) out.body_length = 0;
  FieldWriter writer;
  if (!put_fields(t, entry, selection, texts, 0, writer, out)) return false;
  writer.finish(out);
  return true;
}

bool reply_from_origin(Transaction& t, http::Fields fields, const Selection& selection,
                       const http::RangeSet& set, std::uint64_t length, const Story& story,
                       mcs_response& out) {
  begin_response(out, selection, story);
  Texts& texts = thread_texts();
  write_texts(t, selection, set, length, story, texts);
  out.body_length = selection.ranges == 1 ? set.ranges[0].length()
                                          : (selection.body ? length : 0);
  FieldWriter writer;
  if (!writer.open(t, fields.size(), texts.size())) return false;
  for (const http::FieldView& field : fields) {
    const http::FieldId id = http::field_id(field.name);
    if (http::is_hop_by_hop(id) || id == http::FieldId::kContentLength ||
        http::list_contains(fields, "connection", field.name) ||
        (selection.only_with_304 && !http::is_sent_with_304(id))) {
      continue;
    }
    writer.add({field.name.data(), field.name.size()}, {field.value.data(), field.value.size()});
    if (id == http::FieldId::kEtag) out.etag = {field.value.data(), field.value.size()};
  }
  add_texts(writer, texts, out);
  writer.finish(out);
  return true;
}

bool reply_generated(Transaction& t, int status, std::string_view body, const Story& story,
                     mcs_response& out) {
  Selection selection;
  selection.status = status;
  begin_response(out, selection, story);
  Texts& texts = thread_texts();
  write_texts(t, selection, {}, 0, story, texts);
  if (!body.empty()) texts.content_type = "text/plain; charset=utf-8";
  out.body_length = body.size();
  FieldWriter writer;
  if (!writer.open(t, 0, texts.size() + body.size())) return false;
  add_texts(writer, texts, out);
  writer.finish(out);
  if (body.empty() || t.method == http::Method::kHead) return true;
  char* copy = writer.place(body.size());
  std::memcpy(copy, body.data(), body.size());
  return put_pieces(t, {iovec{copy, body.size()}}, out);
}

void add_story(Transaction& t, const Story& story, mcs_response& out) {
  out = mcs_response{};
  out.file_fd = -1;
  out.last_modified = -1;
  out.age = -1;
  out.cache_status = story.status;
  if (!t.policy->send_cache_status) return;
  Texts& texts = thread_texts();
  write_texts(t, {}, {}, 0, story, texts);
  FieldWriter writer;
  if (!writer.open(t, 0, texts.size())) return;
  add_texts(writer, texts, out);
  writer.finish(out);
}

}  // namespace mcs::api
