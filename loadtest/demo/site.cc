// SPDX-License-Identifier: Apache-2.0
#include "loadtest/demo/site.h"

#include "loadtest/harness/process.h"

namespace mcs::loadtest {

namespace fs = std::filesystem;

namespace {

constexpr const char* kManual = "/usr/share/doc/apache2-doc/manual";
// Share of the requests that go to the manual; the others follow SPECweb99.
constexpr double kManualShare = .25;

}  // namespace

Result<std::unique_ptr<DemoSite>> DemoSite::make(double specweb_load, uint64_t seed) {
  if (!fs::exists(fs::path(kManual) / "index.html")) {
    return fail(
        "the Apache manual is not in {}: apt-get install apache2-doc (where dpkg leaves "
        "out documentation, remove its path-exclude in /etc/dpkg/dpkg.cfg.d first)",
        kManual);
  }
  std::unique_ptr<DemoSite> site(new DemoSite(specweb_load, seed));
  const uint64_t needed = site->specweb_.total_bytes() + (uint64_t{64} << 20);
  std::error_code error;
  const fs::space_info space = fs::space(site->root(), error);
  if (!error && space.available < needed) {
    return fail(
        "{} has {} MB of room, the files need {}: give a smaller --load, or another $TMPDIR",
        site->root().parent_path().string(), space.available >> 20, needed >> 20);
  }
  const auto copied = run_process({"cp", "-a", kManual, (site->root() / "manual").string()});
  if (!copied) {
    return tl::unexpected(copied.error());
  }
  if (!copied->ok()) {
    return fail("cannot copy the manual: {}", copied->describe());
  }
  if (auto written = site->specweb_.write_to(site->root() / "specweb"); !written) {
    return tl::unexpected(written.error());
  }

  if (auto added = site->files_.add_directory(site->root() / "manual", "/manual/"); !added) {
    return tl::unexpected(added.error());
  }
  site->manual_files_ = site->files_.size();
  std::string list;
  for (size_t file = 0; file < site->manual_files_; ++file) {
    list += site->files_[file].url_path + "\n";
  }
  if (auto written = write_file(site->manual_list(), list); !written) {
    return tl::unexpected(written.error());
  }
  site->files_.add_specweb(site->specweb_, "/specweb/");
  std::vector<WeightedStream> parts;
  parts.push_back({kManualShare, zipf_stream(0, site->manual_files_, 1, seed)});
  parts.push_back(
      {1 - kManualShare, specweb_stream(site->manual_files_, site->specweb_.directories())});
  site->stream_ = mixed_stream(std::move(parts));
  return site;
}

}  // namespace mcs::loadtest
