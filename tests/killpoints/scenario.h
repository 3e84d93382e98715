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
inline constexpr unsigned kReturned = 7;  // the first of a node that has crashed

// What kFirstSurvivor fills beside operations; theirs are below.
inline constexpr unsigned kOtherVersion = 9;
// … and what kOther fills, which is expelled.
inline constexpr unsigned kExpelledVersion = 11;

/// What becomes of whoever is stopped in the middle of an operation.
enum class Ending {
  kAlone,       // it dies
  kEverybody,   // and with it all others
  kExpelled,    // it stands still, may not be killed, and is expelled; then it goes on
  kNodeCrash,   // its node has a kernel of its own, which crashes; then the node comes back
  kNodeFreeze,  // … and stands still until the node was expelled; then it goes on
};
inline bool goes_on(Ending ending) {
  return ending == Ending::kExpelled || ending == Ending::kNodeFreeze;
}
inline bool concerns_node(Ending ending) {
  return ending == Ending::kNodeCrash || ending == Ending::kNodeFreeze;
}

/// A class of starting states.
struct StartState {
  std::string name;
  WorldOptions options;
  std::function<void(World&)> build;
  bool busy = false;        // somebody alive holds locks: operations may answer "busy"
  bool evicts = false;      // what is stored may go at any time to make room
  bool suspended = false;   // kOther is held up in the middle and goes on later
  bool lossy = false;       // a segment is lost, or about to be: only operations made for that
  Ending ending = Ending::kAlone;
  std::string only = {};    // operation; empty: all
};
const std::vector<StartState>& start_states();

struct Operation {
  std::string name;
  unsigned victim = kVictim;
  /// Bring the world to where process `m` starts the operation; false: makes no sense in this class.
  std::function<bool(World&, const StartState&, unsigned m)> prepare;
  std::function<void(World&, const StartState&, unsigned m)> run;
  bool lossy = false;  // also, or only, where memory is lost
  bool of_the_expelled = false;  // about somebody who is expelled already
};
inline bool applies(const Operation& operation, const StartState& start) {
  if (!start.only.empty() && operation.name != start.only) return false;
  if (goes_on(start.ending) && operation.of_the_expelled) return false;
  return operation.lossy || !start.lossy;
}
const std::vector<Operation>& operations();

/// Run process `m` until just before its n-th store to a word of this kind (1: the first), and leave
/// it there: suspended, or dead. False: it finished.
bool stop_before(World& world, unsigned m, WordKind kind, unsigned n, bool suspend,
                 const std::function<void()>& body);

}  // namespace mcs::killpoints
