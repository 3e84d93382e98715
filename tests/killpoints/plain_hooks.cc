// SPDX-License-Identifier: Apache-2.0
// For code that is not instrumented: nothing is counted, stopped or undone.
#include "tests/killpoints/hooks.h"

namespace mcs::killpoints {

Hooks hooks;

void begin_undo() {}
std::size_t undo_mark() { return 0; }
void rewind(std::size_t) {}
void flush_delayed() {}
void drop_delayed() {}

}  // namespace mcs::killpoints
