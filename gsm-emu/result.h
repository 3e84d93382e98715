// SPDX-License-Identifier: Apache-2.0
// Typed results: what every room returns when something can fail on bad input or bad luck.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace mcs {

enum class ErrorCode {
  kInvalidArgument,  // what the caller gave cannot be used
  kNotFound,         // no such domain, node, file
  kExists,
  kPermission,
  kNoSpace,      // memory file system full, or no free slot
  kIncompatible,  // another layout, version or size
  kDamaged,       // shared state that fails its checks
  kLost,          // memory that no longer answers
  kBusy,          // held by somebody else for longer than we wait
  kSystem         // any other error of the operating system
};

/// An error for people: the message is one sentence that names the thing and the remedy.
struct Error {
  ErrorCode code;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;

/// What to do about an error of a system call, to be put behind its text; empty: nothing general.
std::string remedy_for(int error);

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

}  // namespace mcs
