// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/vary.h"

#include <algorithm>
#include <array>
#include <span>

namespace mcs::http {
namespace {

// Fields whose value is not a list, although it may contain commas.
constexpr std::array<std::string_view, 13> kSingletons = {"authorization",
                                                          "cookie",
                                                          "date",
                                                          "from",
                                                          "host",
                                                          "if-range",
                                                          "origin",
                                                          "referer",
                                                          "user-agent",
                                                          "x-forwarded-proto",
                                                          "content-type",
                                                          "purpose",
                                                          "if-modified-since"};

enum class Kind : std::uint8_t { kList, kSingleton, kWeighted, kAccept };

Kind kind_of(std::string_view name) {
  if (name == "accept-encoding" || name == "accept-language" || name == "accept-charset") {
    return Kind::kWeighted;
  }
  if (name == "accept") return Kind::kAccept;
  return std::find(kSingletons.begin(), kSingletons.end(), name) == kSingletons.end()
             ? Kind::kList
             : Kind::kSingleton;
}

// A weight in thousandths (RFC 9110 12.4.2); broken ones count as 1.
int parse_weight(std::string_view text) {
  text = trim(text);
  if (text.empty() || (text[0] != '0' && text[0] != '1') || text.size() > 5) return 1000;
  if (text.size() == 1) return text[0] == '1' ? 1000 : 0;
  if (text[1] != '.') return 1000;
  int weight = text[0] - '0';
  for (std::size_t i = 2; i < 5; ++i) {
    if (i < text.size() && !is_digit(text[i])) return 1000;
    weight = weight * 10 + (i < text.size() ? text[i] - '0' : 0);
  }
  return std::min(weight, 1000);
}

struct Weighted {
  std::string_view name;
  int weight = 1000;
};

// The members of all lines of a weighted list field; more than fit are a matter for kAccept.
struct WeightedList {
  std::array<Weighted, 32> members;
  std::size_t size = 0;
  bool overflow = false;

  std::span<Weighted> view() { return {members.data(), size}; }
};

Weighted parse_weighted(std::string_view member) {
  Weighted weighted;
  const std::size_t semicolon = std::min(member.find(';'), member.size());
  weighted.name = trim(member.substr(0, semicolon));
  std::string_view rest = member.substr(semicolon);
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::size_t end = std::min(rest.find(';'), rest.size());
    const Directive parameter = split_directive(trim(rest.substr(0, end)));
    if (equals_ignore_case(parameter.name, "q")) weighted.weight = parse_weight(parameter.value);
    rest.remove_prefix(end);
  }
  return weighted;
}

void collect_weighted(Fields request, std::string_view field_name, WeightedList& list) {
  for (const FieldView& field : request) {
    if (!equals_ignore_case(field.name, field_name)) continue;
    ListReader reader(field.value);
    for (std::string_view member; reader.next(member);) {
      if (list.size == list.members.size()) {
        list.overflow = true;
        return;
      }
      list.members[list.size++] = parse_weighted(member);
    }
  }
}

void append_lower(std::string_view text, std::string& out) {
  for (const char c : text) out += to_lower(c);
}

void append_weighted(WeightedList& list, std::string& out) {
  const std::span<Weighted> members = list.view();
  std::sort(members.begin(), members.end(), [](const Weighted& a, const Weighted& b) {
    if (a.weight != b.weight) return a.weight > b.weight;
    return compare_ignore_case(a.name, b.name) < 0;
  });
  const Weighted* previous = nullptr;
  for (const Weighted& member : members) {
    if (previous != nullptr) {
      if (previous->weight == member.weight && equals_ignore_case(previous->name, member.name)) {
        continue;
      }
      out += ',';
    }
    append_lower(member.name, out);
    if (member.weight != 1000) {
      out += ";q=0.";
      for (int unit = 100; unit > 0; unit /= 10) {
        out += static_cast<char>('0' + member.weight / unit % 10);
      }
    }
    previous = &member;
  }
}

// One list member of Accept without whitespace around ";", in lower case outside quotes.
void append_accept_member(std::string_view member, std::string& out) {
  bool quoted = false;
  for (std::size_t i = 0; i < member.size(); ++i) {
    const char c = member[i];
    if (quoted) {
      out += c;
      if (c == '\\' && i + 1 < member.size()) {
        out += member[++i];
      } else if (c == '"') {
        quoted = false;
      }
      continue;
    }
    if (is_ows(c)) continue;
    quoted = c == '"';
    out += to_lower(c);
  }
}

void append_lines(Fields request, std::string_view name, Kind kind, std::string& out) {
  bool first = true;
  const std::string_view separator = name == "cookie" ? "; " : ",";
  const auto separate = [&] {
    if (!first) out += separator;
    first = false;
  };
  for (const FieldView& field : request) {
    if (!equals_ignore_case(field.name, name)) continue;
    if (kind == Kind::kSingleton) {
      separate();
      out += trim(field.value);
      continue;
    }
    ListReader reader(field.value);
    for (std::string_view member; reader.next(member);) {
      separate();
      if (kind == Kind::kAccept) {
        append_accept_member(member, out);
      } else {
        out += member;
      }
    }
  }
}

void append_value(Fields request, std::string_view name, std::string& key) {
  if (find_field(request, name) == nullptr) {
    key += 'a';
    return;
  }
  key += 'p';
  key.append(4, '\0');
  const std::size_t begin = key.size();
  Kind kind = kind_of(name);
  if (kind == Kind::kWeighted) {
    WeightedList list;
    collect_weighted(request, name, list);
    if (list.overflow) {
      kind = Kind::kAccept;
    } else {
      append_weighted(list, key);
    }
  }
  if (kind != Kind::kWeighted) append_lines(request, name, kind, key);
  const std::size_t size = key.size() - begin;
  for (std::size_t i = 0; i < 4; ++i) {
    key[begin - 4 + i] = static_cast<char>(size >> (8 * i) & 0xffu);
  }
}

}  // namespace

bool has_unmatchable_vary(Fields response) noexcept {
  std::size_t names = 0;
  for (const FieldView& field : response) {
    if (field_id(field.name) != FieldId::kVary) continue;
    ListReader reader(field.value);
    for (std::string_view member; reader.next(member);) {
      if (member == "*" || !is_token(member) || ++names > kMaxVaryNames) return true;
    }
  }
  return false;
}

bool append_vary_spec(Fields response, std::string& spec) {
  if (has_unmatchable_vary(response)) return false;
  std::array<std::string_view, kMaxVaryNames> names;
  std::size_t count = 0;
  for (const FieldView& field : response) {
    if (field_id(field.name) != FieldId::kVary) continue;
    ListReader reader(field.value);
    for (std::string_view member; reader.next(member);) names[count++] = member;
  }
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(names.begin(), end, [](auto a, auto b) { return compare_ignore_case(a, b) < 0; });
  const auto unique_end = std::unique(names.begin(), end, equals_ignore_case);
  for (auto name = names.begin(); name != unique_end; ++name) {
    if (name != names.begin()) spec += ',';
    append_lower(*name, spec);
  }
  return true;
}

void append_variant_key(std::string_view spec, Fields request, std::string& key) {
  while (!spec.empty()) {
    const std::size_t comma = std::min(spec.find(','), spec.size());
    append_value(request, spec.substr(0, comma), key);
    spec.remove_prefix(std::min(comma + 1, spec.size()));
  }
}

bool append_preferred_language(Fields request, std::string& tag) {
  WeightedList list;
  collect_weighted(request, "accept-language", list);
  if (list.overflow) return false;
  const Weighted* best = nullptr;
  bool tie = false;
  for (const Weighted& member : list.view()) {
    if (best == nullptr || member.weight > best->weight) {
      best = &member;
      tie = false;
    } else if (member.weight == best->weight && !equals_ignore_case(member.name, best->name)) {
      tie = true;
    }
  }
  if (best == nullptr || tie || best->weight == 0 || best->name == "*") return false;
  append_lower(best->name, tag);
  return true;
}

bool prefers_stored_language(Fields request, std::string_view stored_language) {
  std::string preferred;
  return append_preferred_language(request, preferred) &&
         equals_ignore_case(preferred, trim(stored_language));
}

}  // namespace mcs::http
