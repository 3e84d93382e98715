// SPDX-License-Identifier: Apache-2.0
// LMDB where it is fastest: a writable map, no syncing, one read transaction that is renewed for
// each get (a get must see what was committed before it).
#include <lmdb.h>

#include <stdexcept>

#include "loadtest/bench/core_worker/store.h"

namespace mcs::loadtest::core {
namespace {

void check(int status) {
  if (status != MDB_SUCCESS) throw std::runtime_error(mdb_strerror(status));
}

MDB_val val(const void* data, std::size_t size) { return {size, const_cast<void*>(data)}; }

class LmdbStore final : public Store {
 public:
  explicit LmdbStore(const StoreOptions& options) {
    check(mdb_env_create(&env_));
    check(mdb_env_set_mapsize(env_, (64ULL << 20) + options.entries * 600));
    check(mdb_env_open(
        env_, (options.directory + "/lmdb").c_str(),
        MDB_NOSUBDIR | MDB_WRITEMAP | MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS | MDB_NORDAHEAD,
        0600));
    MDB_txn* begin = nullptr;
    check(mdb_txn_begin(env_, nullptr, 0, &begin));
    check(mdb_dbi_open(begin, nullptr, 0, &db_));
    check(mdb_txn_commit(begin));
    check(mdb_txn_begin(env_, nullptr, MDB_RDONLY, &reader_));
    mdb_txn_reset(reader_);
  }
  ~LmdbStore() override {
    mdb_txn_abort(reader_);
    mdb_env_close(env_);
  }

  bool get(std::uint64_t number, Value& to) override {
    const KeyText text(number);
    MDB_val key = val(text.view().data(), kKeyBytes);
    MDB_val value{};
    if (mdb_txn_renew(reader_) != MDB_SUCCESS) return false;
    const bool found =
        mdb_get(reader_, db_, &key, &value) == MDB_SUCCESS && value.mv_size == sizeof to;
    if (found) std::memcpy(&to, value.mv_data, sizeof to);
    mdb_txn_reset(reader_);
    return found;
  }

  bool put(std::uint64_t number) override { return write(number, ~0ULL); }
  bool displace(std::uint64_t number, std::uint64_t oldest) override {
    return write(number, oldest);
  }

 private:
  bool write(std::uint64_t number, std::uint64_t oldest) {
    const KeyText text(number);
    const KeyText old_text(oldest);
    const Value bytes = value_of(number);
    MDB_val key = val(text.view().data(), kKeyBytes);
    MDB_val old_key = val(old_text.view().data(), kKeyBytes);
    MDB_val value = val(&bytes, sizeof bytes);
    MDB_txn* txn = nullptr;
    if (mdb_txn_begin(env_, nullptr, 0, &txn) != MDB_SUCCESS) return false;
    if ((oldest == ~0ULL || mdb_del(txn, db_, &old_key, nullptr) == MDB_SUCCESS) &&
        mdb_put(txn, db_, &key, &value, 0) == MDB_SUCCESS) {
      return mdb_txn_commit(txn) == MDB_SUCCESS;
    }
    mdb_txn_abort(txn);
    return false;
  }

  MDB_env* env_ = nullptr;
  MDB_dbi db_ = 0;
  MDB_txn* reader_ = nullptr;
};

}  // namespace

std::unique_ptr<Store> make_lmdb_store(const StoreOptions& options) {
  return std::make_unique<LmdbStore>(options);
}

}  // namespace mcs::loadtest::core
