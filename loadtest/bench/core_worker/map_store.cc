// SPDX-License-Identifier: Apache-2.0
// A boost::unordered_map in shared memory behind one interprocess mutex, keys and values inside its
// nodes: the usual quick way to share a map between processes. A process that dies inside leaves it
// locked for ever.
#include <xxhash.h>

#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/unordered_map.hpp>

#include "loadtest/bench/core_worker/store.h"

namespace mcs::loadtest::core {
namespace {

namespace bip = boost::interprocess;

using MapKey = std::array<char, kKeyBytes>;
struct MapHash {
  std::size_t operator()(const MapKey& key) const { return XXH3_64bits(key.data(), key.size()); }
};
using Allocator =
    bip::allocator<std::pair<const MapKey, Value>, bip::managed_mapped_file::segment_manager>;
using Map = boost::unordered_map<MapKey, Value, MapHash, std::equal_to<MapKey>, Allocator>;

class MapStore final : public Store {
 public:
  explicit MapStore(const StoreOptions& options) {
    const std::string file = options.directory + "/map";
    const std::size_t size = (2ULL << 20) + options.entries * 260;
    file_ = options.create ? bip::managed_mapped_file(bip::create_only, file.c_str(), size)
                           : bip::managed_mapped_file(bip::open_only, file.c_str());
    mutex_ = file_.find_or_construct<bip::interprocess_mutex>("mutex")();
    map_ = file_.find_or_construct<Map>("map")(options.entries + options.entries / 8, MapHash(),
                                               std::equal_to<MapKey>(),
                                               Allocator(file_.get_segment_manager()));
  }

  bool get(std::uint64_t number, Value& to) override {
    const MapKey key = key_of(number);
    const bip::scoped_lock<bip::interprocess_mutex> lock(*mutex_);
    const auto found = map_->find(key);
    if (found == map_->end()) return false;
    to = found->second;
    return true;
  }

  bool put(std::uint64_t number) override {
    const MapKey key = key_of(number);
    const Value value = value_of(number);
    const bip::scoped_lock<bip::interprocess_mutex> lock(*mutex_);
    map_->insert_or_assign(key, value);
    return true;
  }

  bool displace(std::uint64_t number, std::uint64_t oldest) override {
    const MapKey key = key_of(number);
    const MapKey old = key_of(oldest);
    const Value value = value_of(number);
    const bip::scoped_lock<bip::interprocess_mutex> lock(*mutex_);
    map_->erase(old);
    map_->emplace(key, value);
    return true;
  }

 private:
  static MapKey key_of(std::uint64_t number) {
    MapKey key;
    std::memcpy(key.data(), KeyText(number).view().data(), key.size());
    return key;
  }

  bip::managed_mapped_file file_;
  bip::interprocess_mutex* mutex_ = nullptr;
  Map* map_ = nullptr;
};

}  // namespace

std::unique_ptr<Store> make_map_store(const StoreOptions& options) {
  return std::make_unique<MapStore>(options);
}

}  // namespace mcs::loadtest::core
