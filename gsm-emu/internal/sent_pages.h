// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace mcs::gsm {

/// Whether pages of this file that were given to the kernel to send keep their bytes when their place
/// in the file is punched out and written again. Tried on a nameless file of the same file system.
bool keeps_sent_pages(int fd);

}  // namespace mcs::gsm
