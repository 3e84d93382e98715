// SPDX-License-Identifier: Apache-2.0
// What is tried: operations, each from the classes of starting states it makes sense in.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/killpoints/world.h"

namespace mcs::killpoints {

// Who is who in every world.
inline constexpr unsigned kVictim = 0;
inline constexpr unsigned kFirstSurvivor = 1;
inline constexpr unsigned kSecondSurvivor = 2;
inline constexpr unsigned kThirdSurvivor = 3;
inline constexpr unsigned kOther = 4;    // held up, or dead already
inline constexpr unsigned kAnother = 5;  // likewise
inline constexpr unsigned kJoiner = 6;   // not a member yet

// What kFirstSurvivor fills beside operations; theirs are below.
inline constexpr unsigned kOtherVersion = 9;
// … and what kOther fills, which is expelled.
inline constexpr unsigned kExpelledVersion = 11;

/// A class of starting states.
struct StartState {
  std::string name;
  WorldOptions options;
  std::function<void(World&)> build;
  bool busy = false;        // somebody alive holds locks: operations may answer "busy"
  bool evicts = false;      // what is stored may go at any time to make room
  bool suspended = false;   // kOther is held up in the middle and goes on later
  bool lossy = false;       // node 1's segment is lost, or about to be: only operations made for that
};
const std::vector<StartState>& start_states();

struct Operation {
  std::string name;
  unsigned victim = kVictim;
  /// Bring the world to where process `m` starts the operation; false: makes no sense in this class.
  std::function<bool(World&, const StartState&, unsigned m)> prepare;
  std::function<void(World&, const StartState&, unsigned m)> run;
  bool lossy = false;  // also, or only, where memory is lost
};
inline bool applies(const Operation& operation, const StartState& start) {
  return operation.lossy || !start.lossy;
}
const std::vector<Operation>& operations();

/// Run process `m` until just before its n-th store to a word of this kind (1: the first), and leave
/// it there: suspended, or dead. False: it finished.
bool stop_before(World& world, unsigned m, WordKind kind, unsigned n, bool suspend,
                 const std::function<void()>& body);

}  // namespace mcs::killpoints
