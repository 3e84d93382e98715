// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <string>

#include "libglobalcache/http/interim.h"

// What is passed on is a whole interim response again, and does not change a second time.
extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace mcs::http;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  const Interim found = find_interim(bytes);
  if (found.kind == Interim::Kind::kWhole && found.size > size) std::abort();
  const std::size_t kept = clean_interim(bytes.data(), found);
  if (kept > size) std::abort();
  if (kept == 0) return 0;
  std::string once = bytes.substr(0, kept);
  const Interim again = find_interim(once);
  if (again.kind != Interim::Kind::kWhole || again.size != kept) std::abort();
  std::string twice = once;
  if (clean_interim(twice.data(), again) != kept || twice != once) std::abort();
  return 0;
}
