/* SPDX-License-Identifier: Apache-2.0
 *
 * Rebuilding the index after a segment was lost, beside fills and evictions:
 * libglobalcache/cache/{rebuild.cc,memory.cc,fill.cc,global_cache.cc}.
 *
 *   propose    the view without the lost segment is in all segments (Memory::look_after)
 *   sweep      an entry is SEALED: lock its new home's bucket; SEALED still, and in no chain? link it; unlock
 *              (GlobalCache::sweep_entry, link_again); when all was swept the index is whole
 *   retire     CAS SEALED -> RETIRED; lock the home's bucket, unlink, unlock; another view now? again;
 *              only then is it unlinked and may be freed (unlink)
 *   fill       link in the home of my view; seal, unsettled; retire what it replaces: what its chain has if
 *              the index is whole, else every entry of the key; settled, unless that chain was lost; another
 *              view now? link and retire again (commit)
 *   settle     when the index is whole what is still unsettled is settled (settle_space)
 *
 * One key. Entry 0 is there from the beginning, in a chain on the segment that is lost; 1 is filled. The
 * loss may come at any step, and somebody who has not noticed may still link into the lost chain. The
 * first sweeper may die at every step; the second does it all again. One evicts entry 0. Links and
 * states change in single steps; the bucket's lock excludes, states change without it.
 *
 * Seeded mistakes:
 *   BUG_NO_LOOK      who retires an entry does not look at the view afterwards
 *   BUG_LOOK_FIRST   who fills looks at the view, then seals
 *   BUG_CHAIN_ONLY   who fills trusts a chain although the index is not whole
 *   BUG_NO_RECHECK   the sweep links what was SEALED before it had the lock
 *   BUG_SWEEP_FIRST  somebody sweeps before the view is in force
 */

mtype = { FREE, FILLING, SEALED, RETIRED };

#define NOWHERE 2             /* in no chain; 0: of the lost home, 1: of the new one */
mtype entry[2];
byte chain[2];
bit view;                     /* in the segments */
bool lost, whole;
bool unsettled;               /* entry 1: what it replaces may be left */
bit lock;                     /* of the new home's bucket; the lost one's changes nothing any more */
byte ended;

#define LOCK(home) if :: home == 1 -> atomic { lock == 0 -> lock = 1 } :: else fi
#define UNLOCK(home) if :: home == 1 -> lock = 0 :: else fi
/* Where a walk from a home of mine finds an entry. */
#define found(e, home) (chain[e] == home && !(home == 0 && lost))

inline take_out(e, mine) {
  do
  :: LOCK(mine);
     if :: chain[e] == mine -> chain[e] = NOWHERE :: else fi;
     UNLOCK(mine);
#ifdef BUG_NO_LOOK
     break
#else
     if :: view != mine -> mine = view :: else -> break fi
#endif
  od;
  /* Freed, and its descriptor in use for something else. */
  assert(chain[e] != 1);
  entry[e] = FREE
}

inline retire(e, mine) {
  if
  :: atomic { entry[e] == SEALED -> entry[e] = RETIRED }; take_out(e, mine)
  :: entry[e] != SEALED
  fi
}

inline sweep(e) {
  if
  :: entry[e] == SEALED ->
     LOCK(1);
#ifndef BUG_NO_RECHECK
     if
     :: entry[e] == SEALED && chain[e] != 1 ->
#else
     if
     :: chain[e] != 1 ->
#endif
        chain[e] = 1
     :: else
     fi;
     UNLOCK(1)
  :: entry[e] != SEALED
  fi
}

active proctype Loss() { lost = true }

proctype Sweeper(bool mortal) {
  bit mine;
  lost;
#ifdef BUG_SWEEP_FIRST
  sweep(0); sweep(1);
  view = 1;
#else
  view = 1;
  /* Killed with the lock held it is recovered, which frees the lock and changes nothing. */
  if :: mortal -> goto died :: true fi;
  sweep(0);
  if :: mortal -> goto died :: true fi;
  sweep(1);
#endif
  if :: mortal -> goto died :: true fi;
  whole = true;
  /* settle_space: what a filler could not know, or has not come to. */
  if :: mortal -> goto died :: true fi;
  if :: entry[1] == SEALED && unsettled -> mine = 1; retire(0, mine); unsettled = false :: else fi;
died:
  ended++
}

proctype Evictor() {
  bit mine;
  mine = view;
  if :: true -> retire(0, mine) :: true fi;
  ended++
}

inline replace(mine) {
  /* What it replaces: by the chain, or all there is. */
#ifndef BUG_CHAIN_ONLY
  if
  :: mine == 1 && !whole -> retire(0, mine); unsettled = false
  :: else ->
#endif
     if
     :: found(0, mine) -> retire(0, mine); unsettled = false
     :: mine == 0 && lost
     :: else -> unsettled = false
     fi
#ifndef BUG_CHAIN_ONLY
  fi
#endif
}

proctype Filler() {
  bit mine, linked;
  mine = view;
  linked = mine;
  entry[1] = FILLING;
  LOCK(mine);
  chain[1] = mine;
  UNLOCK(mine);
#ifdef BUG_LOOK_FIRST
  linked = view;
  mine = view;
  if :: chain[1] != mine -> chain[1] = mine :: else fi;
  atomic { entry[1] = SEALED; unsettled = true };
  replace(mine);
#else
  atomic { entry[1] = SEALED; unsettled = true };
  replace(mine);
  do
  :: view != linked ->
     mine = view;
     linked = mine;
     sweep(1);
     replace(mine)
  :: else -> break
  od;
#endif
  ended++
}

init {
  atomic {
    entry[0] = SEALED; chain[0] = 0;
    entry[1] = FREE; chain[1] = NOWHERE;
    run Sweeper(true); run Sweeper(false); run Evictor(); run Filler()
  }
  ended == 4;
  assert(whole && view == 1);
  /* The new entry is found, what it replaces never again. */
  assert(entry[1] == SEALED && chain[1] == 1);
  assert(entry[0] == FREE && chain[0] != 1)
}
