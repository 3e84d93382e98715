// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <stdexcept>

#include "loadtest/sim/policy.h"

namespace mcs::loadtest {

namespace {

constexpr uint32_t kNone = ~0U;

// Doubly linked lists through one array of nodes: an object is in at most one list.
struct Links {
  explicit Links(size_t objects) : before(objects, kNone), after(objects, kNone) {}
  std::vector<uint32_t> before;
  std::vector<uint32_t> after;
};

class List {
 public:
  explicit List(Links& links) : links_(links) {}
  uint32_t first() const { return first_; }  // the newest
  uint32_t last() const { return last_; }
  uint32_t towards_first(uint32_t object) const { return links_.before[object]; }
  void push_first(uint32_t object) {
    links_.before[object] = kNone;
    links_.after[object] = first_;
    (first_ == kNone ? last_ : links_.before[first_]) = object;
    first_ = object;
  }
  void remove(uint32_t object) {
    const uint32_t before = links_.before[object];
    const uint32_t after = links_.after[object];
    (before == kNone ? first_ : links_.after[before]) = after;
    (after == kNone ? last_ : links_.before[after]) = before;
  }

 private:
  Links& links_;
  uint32_t first_ = kNone;
  uint32_t last_ = kNone;
};

class Reference : public Policy {
 public:
  explicit Reference(const PolicyOptions& options)
      : options_(options), links_(options.sizes.size()), where_(options.sizes.size(), 0) {}

 protected:
  uint64_t size(uint32_t object) const { return options_.sizes[object]; }
  bool too_large(uint32_t object) const { return size(object) > options_.largest; }

  PolicyOptions options_;
  Links links_;
  std::vector<uint8_t> where_;  // 0: not in the cache
};

class Lru final : public Reference {
 public:
  explicit Lru(const PolicyOptions& options) : Reference(options), list_(links_) {}
  bool access(uint32_t object) override {
    const bool hit = where_[object] != 0;
    if (hit) {
      list_.remove(object);
    } else {
      if (too_large(object)) return false;
      for (used_ += size(object); used_ > options_.capacity;) {
        const uint32_t victim = list_.last();
        list_.remove(victim);
        where_[victim] = 0;
        used_ -= size(victim);
      }
      where_[object] = 1;
    }
    list_.push_first(object);
    return hit;
  }

 private:
  List list_;
  uint64_t used_ = 0;
};

class Sieve final : public Reference {
 public:
  explicit Sieve(const PolicyOptions& options)
      : Reference(options), list_(links_), visited_(options.sizes.size(), 0) {}
  bool access(uint32_t object) override {
    if (where_[object] != 0) {
      visited_[object] = 1;
      return true;
    }
    if (too_large(object)) return false;
    for (used_ += size(object); used_ > options_.capacity;) evict();
    where_[object] = 1;
    visited_[object] = 0;
    list_.push_first(object);
    return false;
  }

 private:
  void evict() {
    uint32_t at = hand_ == kNone ? list_.last() : hand_;
    while (visited_[at] != 0) {
      visited_[at] = 0;
      at = list_.towards_first(at);
      if (at == kNone) at = list_.last();
    }
    hand_ = list_.towards_first(at);
    list_.remove(at);
    where_[at] = 0;
    used_ -= size(at);
  }

  List list_;
  std::vector<uint8_t> visited_;
  uint32_t hand_ = kNone;
  uint64_t used_ = 0;
};

class S3Fifo final : public Reference {
 public:
  explicit S3Fifo(const PolicyOptions& options)
      : Reference(options),
        small_(links_),
        main_(links_),
        ghost_links_(options.sizes.size()),
        ghosts_(ghost_links_),
        is_ghost_(options.sizes.size(), 0),
        uses_(options.sizes.size(), 0) {}
  bool access(uint32_t object) override {
    if (where_[object] != 0) {
      uses_[object] = std::min(3, uses_[object] + 1);
      return true;
    }
    if (too_large(object)) return false;
    while (small_used_ + main_used_ + size(object) > options_.capacity) {
      if (small_used_ * 10 >= options_.capacity || main_.last() == kNone) {
        evict_small();
      } else {
        evict_main();
      }
    }
    uses_[object] = 0;
    if (is_ghost_[object] != 0) {
      forget(object);
      insert_main(object);
    } else {
      where_[object] = 1;
      small_.push_first(object);
      small_used_ += size(object);
    }
    return false;
  }

 private:
  void insert_main(uint32_t object) {
    where_[object] = 2;
    main_.push_first(object);
    main_used_ += size(object);
  }
  void forget(uint32_t ghost) {
    ghosts_.remove(ghost);
    is_ghost_[ghost] = 0;
    ghosts_used_ -= size(ghost);
  }
  void evict_small() {
    bool evicted = false;
    while (!evicted && small_.last() != kNone) {
      const uint32_t object = small_.last();
      small_.remove(object);
      small_used_ -= size(object);
      if (uses_[object] > 1) {
        uses_[object] = 0;
        insert_main(object);
        while (main_used_ * 10 > options_.capacity * 9) evict_main();
        continue;
      }
      where_[object] = 0;
      is_ghost_[object] = 1;
      ghosts_.push_first(object);
      ghosts_used_ += size(object);
      while (ghosts_used_ * 10 > options_.capacity * 9) forget(ghosts_.last());
      evicted = true;
    }
  }
  void evict_main() {
    for (;;) {
      const uint32_t object = main_.last();
      if (object == kNone) return;
      main_.remove(object);
      if (uses_[object] > 0) {
        --uses_[object];
        main_.push_first(object);
        continue;
      }
      where_[object] = 0;
      main_used_ -= size(object);
      return;
    }
  }

  List small_;
  List main_;
  Links ghost_links_;
  List ghosts_;
  std::vector<uint8_t> is_ghost_;
  std::vector<int> uses_;
  uint64_t small_used_ = 0;
  uint64_t main_used_ = 0;
  uint64_t ghosts_used_ = 0;
};

// Four rows of 4-bit counters, halved after ten times as many samples as objects fit.
class Sketch {
 public:
  explicit Sketch(uint64_t objects) : limit_(10 * std::max<uint64_t>(objects, 64)) {
    while (rows_[0].size() < std::max<uint64_t>(objects, 64)) {
      for (auto& row : rows_) row.resize(std::max<size_t>(64, row.size() * 2), 0);
    }
  }
  void add(uint32_t object) {
    for (size_t i = 0; i < rows_.size(); ++i) {
      uint8_t& counter = rows_[i][place(object, i)];
      if (counter < 15) ++counter;
    }
    if (++samples_ < limit_) return;
    samples_ /= 2;
    for (auto& row : rows_) {
      for (uint8_t& counter : row) counter /= 2;
    }
  }
  int estimate(uint32_t object) const {
    int least = 15;
    for (size_t i = 0; i < rows_.size(); ++i) {
      least = std::min<int>(least, rows_[i][place(object, i)]);
    }
    return least;
  }

 private:
  size_t place(uint32_t object, size_t row) const {
    uint64_t z = (object + 1) * (0x9e3779b97f4a7c15ULL + 2 * row * 0x632be59bd9b4e019ULL);
    z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9ULL;
    return (z >> 20) & (rows_[row].size() - 1);
  }
  std::array<std::vector<uint8_t>, 4> rows_;
  uint64_t samples_ = 0;
  uint64_t limit_;
};

class WTinyLfu final : public Reference {
 public:
  explicit WTinyLfu(const PolicyOptions& options)
      : Reference(options),
        window_(links_),
        probation_(links_),
        protected_(links_),
        sketch_(options.capacity / std::max<uint64_t>(1, mean_size(options))),
        window_most_(std::max<uint64_t>(options.capacity / 100, options.largest)),
        main_most_(options.capacity - window_most_),
        protected_most_(main_most_ / 5 * 4) {}

  bool access(uint32_t object) override {
    sketch_.add(object);
    switch (where_[object]) {
      case kWindow:
        window_.remove(object);
        window_.push_first(object);
        return true;
      case kProbation:
        probation_.remove(object);
        where_[object] = kProtected;
        protected_.push_first(object);
        for (protected_used_ += size(object); protected_used_ > protected_most_;) {
          const uint32_t demoted = protected_.last();
          protected_.remove(demoted);
          protected_used_ -= size(demoted);
          where_[demoted] = kProbation;
          probation_.push_first(demoted);
        }
        return true;
      case kProtected:
        protected_.remove(object);
        protected_.push_first(object);
        return true;
      default:
        break;
    }
    if (too_large(object)) return false;
    where_[object] = kWindow;
    window_.push_first(object);
    for (window_used_ += size(object); window_used_ > window_most_;) {
      const uint32_t candidate = window_.last();
      window_.remove(candidate);
      window_used_ -= size(candidate);
      where_[candidate] = 0;
      if (!make_room_for(candidate)) continue;
      where_[candidate] = kProbation;
      probation_.push_first(candidate);
      main_used_ += size(candidate);
    }
    return false;
  }

 private:
  enum : uint8_t { kWindow = 1, kProbation, kProtected };

  static uint64_t mean_size(const PolicyOptions& options) {
    uint64_t sum = 0;
    for (const uint32_t size : options.sizes) sum += size;
    return sum / std::max<size_t>(1, options.sizes.size());
  }
  bool make_room_for(uint32_t candidate) {
    while (main_used_ + size(candidate) > main_most_) {
      const bool from_probation = probation_.last() != kNone;
      List& list = from_probation ? probation_ : protected_;
      const uint32_t victim = list.last();
      if (victim == kNone || sketch_.estimate(candidate) <= sketch_.estimate(victim)) return false;
      list.remove(victim);
      if (!from_probation) protected_used_ -= size(victim);
      where_[victim] = 0;
      main_used_ -= size(victim);
    }
    return true;
  }

  List window_;
  List probation_;
  List protected_;
  Sketch sketch_;
  uint64_t window_most_;
  uint64_t main_most_;  // probation and protected together
  uint64_t protected_most_;
  uint64_t window_used_ = 0;
  uint64_t main_used_ = 0;
  uint64_t protected_used_ = 0;
};

}  // namespace

std::vector<std::string> reference_names() { return {"lru", "sieve", "s3-fifo", "w-tinylfu"}; }

std::unique_ptr<Policy> make_reference(const std::string& name, const PolicyOptions& options) {
  if (name == "lru") return std::make_unique<Lru>(options);
  if (name == "sieve") return std::make_unique<Sieve>(options);
  if (name == "s3-fifo") return std::make_unique<S3Fifo>(options);
  if (name == "w-tinylfu") return std::make_unique<WTinyLfu>(options);
  throw std::invalid_argument("no policy is called " + name);
}

}  // namespace mcs::loadtest
