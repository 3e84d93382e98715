// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/cache/loans.h"

#include <algorithm>

namespace mcs::cache {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// Counts that deaths or damage have left below zero are zero.
std::uint64_t at_least_zero(const Word& count) {
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, static_cast<std::int64_t>(count.load(kRelaxed))));
}

}  // namespace

std::span<const std::uint32_t> Loans::lenders(std::uint32_t node, std::uint64_t units,
                                              std::array<std::uint32_t, gsm::kMaxNodes>& out) const {
  std::array<std::uint64_t, gsm::kMaxNodes> free{};
  std::size_t n = 0;
  for (std::uint32_t i = 1; i < memory_.nodes(); ++i) {
    const std::uint32_t other = (node + i) % memory_.nodes();
    free[other] = free_units(other);
    // Who has lost its own memory has no other.
    if (free[other] >= (memory_.lost(node) ? 0 : reserve()) + units) out[n++] = other;
  }
  std::stable_sort(out.begin(), out.begin() + n,
                   [&](std::uint32_t a, std::uint32_t b) { return free[a] > free[b]; });
  return std::span(out).first(n);
}

bool Loans::take(std::uint32_t segment, std::uint32_t node, std::uint32_t home,
                 std::uint64_t units) const {
  if (memory_.nodes() == 1) return true;
  LoanTable& counts = table(segment);
  const std::uint64_t used = counts.used.fetch_add(units, kRelaxed) + units;
  if (segment != node && !memory_.lost(node) && static_cast<std::int64_t>(used) >
                             static_cast<std::int64_t>(capacity() - reserve())) {
    counts.used.fetch_sub(units, kRelaxed);
    return false;
  }
  if (segment != home) counts.lent[home].fetch_add(units, kRelaxed);
  return true;
}

void Loans::give_back(std::uint32_t segment, std::uint32_t home, std::uint64_t units) const {
  if (memory_.nodes() == 1) return;
  LoanTable& counts = table(segment);
  counts.used.fetch_sub(units, kRelaxed);
  if (segment != home) counts.lent[home].fetch_sub(units, kRelaxed);
}

std::uint64_t Loans::used(std::uint32_t segment) const {
  return at_least_zero(table(segment).used);
}

std::uint64_t Loans::free_units(std::uint32_t segment) const {
  return memory_.lost(segment) ? 0 : capacity() - std::min(capacity(), used(segment));
}

std::uint64_t Loans::lent(std::uint32_t lender, std::uint32_t borrower) const {
  return at_least_zero(table(lender).lent[borrower]);
}

std::uint64_t Loans::lent(std::uint32_t lender) const {
  std::uint64_t units = 0;
  for (std::uint32_t n = 0; n < memory_.nodes(); ++n) units += lent(lender, n);
  return units;
}

void Loans::correct(Word& count, std::uint64_t before, std::uint64_t counted) {
  const std::uint64_t now = at_least_zero(count);
  const auto [least, most] = std::minmax(before, now);
  if (counted >= least && counted <= most) return;
  // Half of what changed meanwhile was counted already.
  const auto change = static_cast<std::int64_t>(now - before) / 2;
  const auto right = std::max<std::int64_t>(0, static_cast<std::int64_t>(counted) + change);
  count.fetch_add(static_cast<std::uint64_t>(right) - count.load(kRelaxed), kRelaxed);
}

}  // namespace mcs::cache
