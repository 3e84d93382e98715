// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/date.h"

#include <algorithm>

#include "libglobalcache/http/field.h"

namespace mcs::http {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                   "Thursday", "Friday", "Saturday"};
constexpr std::int64_t kSecondsPerDay = 86400;

// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (H. Hinnant's algorithm).
constexpr std::int64_t days_from_civil(std::int64_t year, int month, int day) {
  year -= month <= 2 ? 1 : 0;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const std::int64_t day_of_era =
      year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + day_of_era - 719468;
}
static_assert(days_from_civil(1970, 1, 1) == 0 && days_from_civil(2000, 3, 1) == 11017);

struct Civil {
  std::int64_t year;
  int month;
  int day;
};

constexpr Civil civil_from_days(std::int64_t days) {
  days += 719468;
  const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const std::int64_t day_of_era = days - era * 146097;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const std::int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t shifted = (5 * day_of_year + 2) / 153;
  const int day = static_cast<int>(day_of_year - (153 * shifted + 2) / 5 + 1);
  const int month = static_cast<int>(shifted < 10 ? shifted + 3 : shifted - 9);
  return {year_of_era + era * 400 + (month <= 2 ? 1 : 0), month, day};
}

int days_in_month(std::int64_t year, int month) {
  constexpr std::array<int, 12> kLengths = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return month == 2 && leap ? 29 : kLengths[static_cast<std::size_t>(month - 1)];
}

// Takes characters off the front; a failure sticks.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  void literal(std::string_view expected) {
    if (starts_with_ignore_case(rest_, expected)) {
      rest_.remove_prefix(expected.size());
    } else {
      ok_ = false;
    }
  }

  int digits(std::size_t count) {
    if (rest_.size() < count) {
      ok_ = false;
      return 0;
    }
    int value = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!is_digit(rest_[i])) ok_ = false;
      value = value * 10 + (rest_[i] - '0');
    }
    rest_.remove_prefix(count);
    return ok_ ? value : 0;
  }

  // asctime pads the day of the month with a space.
  int padded_day() {
    if (!rest_.empty() && rest_.front() == ' ') {
      rest_.remove_prefix(1);
      return digits(1);
    }
    return digits(2);
  }

  int month() {
    for (std::size_t i = 0; i < kMonths.size(); ++i) {
      if (starts_with_ignore_case(rest_, kMonths[i])) {
        rest_.remove_prefix(3);
        return static_cast<int>(i) + 1;
      }
    }
    ok_ = false;
    return 1;
  }

  bool done() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

struct Clock {
  int hour = 0;
  int minute = 0;
  int second = 0;
};

Clock read_clock(Cursor& cursor) {
  Clock clock;
  clock.hour = cursor.digits(2);
  cursor.literal(":");
  clock.minute = cursor.digits(2);
  cursor.literal(":");
  clock.second = cursor.digits(2);
  return clock;
}

std::optional<std::int64_t> to_instant(std::int64_t year, int month, int day, const Clock& clock) {
  // Second 60 is a leap second.
  if (day < 1 || day > days_in_month(year, month) || clock.hour > 23 || clock.minute > 59 ||
      clock.second > 60) {
    return std::nullopt;
  }
  const std::int64_t seconds = days_from_civil(year, month, day) * kSecondsPerDay +
                               clock.hour * 3600 + clock.minute * 60 + clock.second;
  return seconds * 1000;
}

std::optional<std::int64_t> parse_imf(std::string_view rest) {
  Cursor cursor(rest);
  cursor.literal(", ");
  const int day = cursor.digits(2);
  cursor.literal(" ");
  const int month = cursor.month();
  cursor.literal(" ");
  const int year = cursor.digits(4);
  cursor.literal(" ");
  const Clock clock = read_clock(cursor);
  cursor.literal(" GMT");
  if (!cursor.done()) return std::nullopt;
  return to_instant(year, month, day, clock);
}

std::optional<std::int64_t> parse_rfc850(std::string_view rest, std::int64_t now_ms) {
  Cursor cursor(rest);
  cursor.literal(", ");
  const int day = cursor.digits(2);
  cursor.literal("-");
  const int month = cursor.month();
  cursor.literal("-");
  const int two_digits = cursor.digits(2);
  cursor.literal(" ");
  const Clock clock = read_clock(cursor);
  cursor.literal(" GMT");
  if (!cursor.done()) return std::nullopt;
  // RFC 9110 5.6.7: more than 50 years in the future means the most recent past year that ends so.
  const std::int64_t now = std::clamp<std::int64_t>(now_ms, 0, kMaxDeltaSeconds * 100000);
  const std::int64_t this_year = civil_from_days(now / 1000 / kSecondsPerDay).year;
  std::int64_t year = this_year / 100 * 100 + two_digits;
  if (year < this_year - 49) year += 100;
  if (year > this_year + 50) year -= 100;
  return to_instant(year, month, day, clock);
}

std::optional<std::int64_t> parse_asctime(std::string_view rest) {
  Cursor cursor(rest);
  cursor.literal(" ");
  const int month = cursor.month();
  cursor.literal(" ");
  const int day = cursor.padded_day();
  cursor.literal(" ");
  const Clock clock = read_clock(cursor);
  cursor.literal(" ");
  const int year = cursor.digits(4);
  if (!cursor.done()) return std::nullopt;
  return to_instant(year, month, day, clock);
}

}  // namespace

std::optional<std::int64_t> parse_http_date(std::string_view text, std::int64_t now_ms) noexcept {
  text = trim(text);
  for (const std::string_view day : kDays) {
    if (!starts_with_ignore_case(text, day.substr(0, 3))) continue;
    if (starts_with_ignore_case(text, day)) return parse_rfc850(text.substr(day.size()), now_ms);
    if (text.size() < 4) return std::nullopt;
    return text[3] == ',' ? parse_imf(text.substr(3)) : parse_asctime(text.substr(3));
  }
  return std::nullopt;
}

std::array<char, 29> format_http_date(std::int64_t instant_ms) noexcept {
  constexpr std::int64_t kFirst = days_from_civil(0, 1, 1) * kSecondsPerDay;
  constexpr std::int64_t kLast = days_from_civil(10000, 1, 1) * kSecondsPerDay - 1;
  std::int64_t seconds = instant_ms / 1000 - (instant_ms % 1000 < 0 ? 1 : 0);
  seconds = std::clamp(seconds, kFirst, kLast);
  std::int64_t days = seconds / kSecondsPerDay;
  std::int64_t second_of_day = seconds % kSecondsPerDay;
  if (second_of_day < 0) {
    second_of_day += kSecondsPerDay;
    --days;
  }
  const Civil civil = civil_from_days(days);
  const std::int64_t weekday = ((days + 4) % 7 + 7) % 7;

  std::array<char, 29> out{};
  char* at = out.data();
  const auto put = [&at](std::string_view text) { at = std::copy(text.begin(), text.end(), at); };
  const auto number = [&at](std::int64_t value, int width) {
    for (int i = width - 1; i >= 0; --i, value /= 10) at[i] = static_cast<char>('0' + value % 10);
    at += width;
  };
  put(kDays[static_cast<std::size_t>(weekday)].substr(0, 3));
  put(", ");
  number(civil.day, 2);
  put(" ");
  put(kMonths[static_cast<std::size_t>(civil.month - 1)]);
  put(" ");
  number(civil.year, 4);
  put(" ");
  number(second_of_day / 3600, 2);
  put(":");
  number(second_of_day / 60 % 60, 2);
  put(":");
  number(second_of_day % 60, 2);
  put(" GMT");
  return out;
}

std::optional<std::int64_t> parse_delta_seconds(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  std::int64_t value = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    value = std::min(value * 10 + (c - '0'), kMaxDeltaSeconds);
  }
  return value;
}

std::optional<std::uint64_t> parse_decimal(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (!is_digit(c) || __builtin_mul_overflow(value, 10u, &value) ||
        __builtin_add_overflow(value, static_cast<std::uint64_t>(c - '0'), &value)) {
      return std::nullopt;
    }
  }
  return value;
}

}  // namespace mcs::http
