// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "loadtest/client/file_set.h"
#include "loadtest/harness/temp_dir.h"
#include "loadtest/specweb/specweb.h"

namespace mcs::loadtest {

// What the demo's servers serve: a copy of the Apache HTTP Server manual in /manual/ and a
// generated SPECweb99 set in /specweb/, and a request stream over both.
class DemoSite {
 public:
  static Result<std::unique_ptr<DemoSite>> make(double specweb_load, uint64_t seed);

  const std::filesystem::path& root() const { return directory_.path(); }
  const FileSet& files() const { return files_; }
  const RequestStream& stream() const { return *stream_; }
  size_t manual_files() const { return manual_files_; }
  const SpecwebSet& specweb() const { return specweb_; }
  // The manual's URL paths, one a line.
  std::filesystem::path manual_list() const { return lists_.path() / "manual.txt"; }
  // Leaves the files behind.
  void keep() { directory_.keep(); }

 private:
  DemoSite(double specweb_load, uint64_t seed) : specweb_(specweb_load, seed) {}

  TempDir directory_{"mcs-demo-site"};
  TempDir lists_{"mcs-demo-lists"};
  SpecwebSet specweb_;
  FileSet files_;
  size_t manual_files_ = 0;
  std::unique_ptr<RequestStream> stream_;
};

}  // namespace mcs::loadtest
