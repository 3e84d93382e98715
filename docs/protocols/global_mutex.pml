/* SPDX-License-Identifier: Apache-2.0
 *
 * GlobalMutex: libglobalcache/runtime/global_mutex.cc.
 *
 *   lock       identity in use, of my generation, or "invalid id"; record = ref; CAS owner free ->
 *              held(me), flag kept; look at the identity again: changed, so unlock, "invalid id"
 *   unlock     CAS owner held(me) -> free, flag kept; record = 0
 *   repair     "acquired, abandoned" if the flag is set: repair; mark_consistent: CAS flag away
 *   abandon    whoever recovers the holder, or waits for it and finds it dead: CAS owner
 *              held(dead) -> free | inconsistent
 *   destroy    with the mutex held: CAS identity (generation, in use) -> (generation, free); unlock
 *   create     CAS identity (generation, free) -> (generation + 1, in use)
 *
 * Instances 1 to 3 lock, change two words, unlock; 3 may destroy the mutex instead and make another
 * one in its place. 1 and 2 may be killed between any two stores; a killed one is recovered by 3,
 * and whoever waits for it may be faster.
 *
 * Seeded mistakes:
 *   BUG_PLAIN_FREE    the mutex of the dead is freed without the flag
 *   BUG_DUTY_LOST     unlocking clears the flag, also when nobody has repaired
 *   BUG_ANY_HOLDER    who frees the mutex of a dead holder does not compare who holds it now
 *   BUG_LOOK_ONCE     lock does not look at the identity again: it gets a mutex that was destroyed
 */

#ifndef KILLS
#define KILLS 2
#endif

byte owner;                  /* 0 = free; with `inconsistent` one word */
bool inconsistent;
byte generation = 1;         /* with `in_use` one word */
bool in_use = true;
bool record[4];              /* Slot.mutexes */

bit low, high;               /* what the mutex protects: both are the same whenever it is free */

bool alive[4] = true;
byte kills = KILLS;
byte inside;                 /* ghost: living instances that believe they hold it */
bool dying;                  /* ghost: who was killed has not noticed; goes first */

#define STEP(action) \
  if \
  :: d_step { alive[me] && !dying -> action } \
  :: !alive[me] -> goto died \
  fi

#ifdef BUG_PLAIN_FREE
#define ABANDON(i) if :: owner == i -> owner = 0 :: else fi
#elif defined(BUG_ANY_HOLDER)
#define ABANDON(i) owner = 0; inconsistent = true
#else
#define ABANDON(i) if :: owner == i -> owner = 0; inconsistent = true :: else fi
#endif

proctype Locker(byte me) {
  byte mine, seen;
  bool mending, holds;

  /* A handle to what exists when it is made. */
  STEP(mine = generation);
  STEP(record[me] = true);
wait:
  do
  :: d_step { alive[me] && !dying && !(in_use && generation == mine) -> skip }
    goto invalid
  :: d_step { alive[me] && !dying && owner == 0 && in_use && generation == mine -> skip }
    break
  :: d_step { alive[me] && !dying && owner != 0 && !alive[owner] -> seen = owner }
    /* free_if_holder_is_dead */
    STEP(ABANDON(seen); seen = 0)
  :: !alive[me] -> goto died
  od;
  if
  :: d_step { alive[me] && !dying && owner == 0 -> owner = me }
  :: d_step { alive[me] && !dying && owner != 0 -> skip }
    goto wait
  :: !alive[me] -> goto died
  fi;
#ifndef BUG_LOOK_ONCE
  STEP(seen = (in_use && generation == mine -> 0 : 1));
  if
  :: seen == 1 -> seen = 0;
    STEP(owner = 0);
    goto invalid
  :: else
  fi;
#endif
  STEP(assert(in_use && generation == mine);
       holds = true; inside++; assert(inside == 1); mending = inconsistent);
  if
  :: mending ->
    /* Without it the duty passes on. */
    if
    :: STEP(low = 0);
      STEP(high = 0);
      STEP(inconsistent = false)
    :: STEP(skip); goto unlock
    fi
  :: else
  fi;
  STEP(assert(low == high); low = 1 - low);
  STEP(high = 1 - high);
  if
  :: me == 3 ->
    STEP(in_use = false)     /* destroy */
  :: true
  fi;
unlock:
  STEP(assert(owner == me); holds = false; inside--; owner = 0;
#ifdef BUG_DUTY_LOST
       inconsistent = false
#endif
       );
  if
  :: d_step { alive[me] && !dying && !in_use -> generation++; in_use = true }   /* create */
  :: d_step { alive[me] && !dying && in_use -> skip }
  :: !alive[me] -> goto died
  fi;
invalid:
  STEP(record[me] = false);
died:
  atomic {
    if :: !alive[me] -> dying = false :: else fi;
    if :: holds -> inside-- :: else fi;
    mine = 0; seen = 0; mending = false; holds = false
  }
}

/* Instance::repair_locks of a dead instance; the waiters may be faster. */
proctype Recoverer() {
end_wait:
  do
  :: d_step { !alive[1] && !dying && record[1] -> skip }
    d_step { !dying -> ABANDON(1) };
    d_step { !dying -> record[1] = false }
  :: d_step { !alive[2] && !dying && record[2] -> skip }
    d_step { !dying -> ABANDON(2) };
    d_step { !dying -> record[2] = false }
  od
}

init {
  atomic { run Locker(1); run Locker(2); run Locker(3); run Recoverer() }
  do
  :: d_step { kills > 0 && !dying && alive[1] && record[1] -> alive[1] = false; dying = true; kills-- }
  :: d_step { kills > 0 && !dying && alive[2] && record[2] -> alive[2] = false; dying = true; kills-- }
  :: timeout -> break
  od;
  assert(owner == 0 && !record[1] && !record[2] && !record[3] && in_use);
  assert(low == high || inconsistent)
}
