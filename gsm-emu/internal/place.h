// SPDX-License-Identifier: Apache-2.0
// A segment that lies on a device: in the place of the segment's file is a small file of text that
// says where. What a guest sees of GSM over ivshmem is one PCI BAR for the segments of all nodes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "gsm-emu/result.h"

namespace mcs::gsm {

struct Place {
  std::string device;  // file that is mapped, such as /sys/bus/pci/devices/ADDRESS/resource2
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// `path` must not exist.
Result<void> write_place(const std::string& path, const Place& place, unsigned mode);
/// What an open file says; nothing: it is no such file.
std::optional<Place> read_place(int fd);

}  // namespace mcs::gsm
