/* SPDX-License-Identifier: Apache-2.0
 *
 * OwnerLock, OpRecord and the bits of one Group: libglobalcache/runtime/{layout.h,instance.cc},
 * libglobalcache/cache/space.cc.
 *
 *   lock       record.lock = ref; CAS word free -> held(me)
 *   grow_in    lock; a, b; phase = Marking; bits; extent, count; phase = Done; unlock
 *   free_entry a, b; lock; phase = Clearing; bits; cursor; phase = Done; unlock
 *   unlock     CAS word held(me) -> free; record.lock = 0
 *   recover    CAS recoverer 0 or dead -> me; look again; state = DEAD;
 *              pass 1: finish or undo what each record says whose lock the dead still holds
 *              pass 2: unlock in the dead's name, clear the record
 *              take over the dead's entries, free what can be freed; state = FREE; recoverer = 0
 *
 * Instances 1 to 3 may be killed between any two stores, recoverers too, but not all of those that
 * recover; 2 may be stopped for ever (SIGSTOP). The agent kills a stopped process only if somebody
 * waits for what it has to do.
 *
 * SCENE 1  two threads of instance 1 want the lock, one of 2 too; 2 (waiting) and 3 recover
 * SCENE 2  one thread of 1 and one of 2 want it; two threads of 2 and one of 3 recover
 * SCENE 3  one thread of 1 and one of 3 want it; 2 and 3 recover; 2 may be stopped
 * Bounds: `KILLS` kills, one stop in SCENE 3, two extents that lie in two bitmap words each, each
 * thread fills one entry, the first thread of 1 also frees it.
 *
 * Seeded mistakes:
 *   BUG_ONE_PASS      each record is repaired and unlocked before the next one is looked at: the
 *                     record of a thread that only waited frees the lock before the holder's is read
 *   BUG_RECORD_LATE   the record names the lock only after it was taken
 *   BUG_TWO_THREADS   "recoverer == me" lets a second thread of the recoverer's process in: it
 *                     repairs again after the first one has given the lock to somebody else
 *   BUG_BLAME_HOLDER  who waits too long reports the (dead) holder, not the stopped process that
 *                     has the duty to recover it, so the agent never ends the wait
 */

#ifndef SCENE
#define SCENE 1
#endif
#ifndef KILLS
#define KILLS 2
#endif

#define ENTRIES 4
#define NO_EXTENT 2

mtype = { Done, Marking, Clearing, ACTIVE, DEAD, FREE };

bool alive[4] = true;     /* false: killed, so its liveness lock reads as free; index 0 unused */
bool stopped[4];          /* SIGSTOP: alive, but takes no step */
bool blamed[4];           /* SlotControl.blocked went up */
byte kills = KILLS;
bool may_stop = (SCENE == 3);

mtype state[4] = ACTIVE;  /* SlotControl.state */
byte recoverer[4];        /* SlotControl.recoverer; 0 = nobody */
bool recovering[16];      /* private to a process, [4 * instance + slot]: one thread at a time */
bool reclaiming[4];       /* reclaim_mutex_, private to a process */

byte word;                /* OwnerLock.word of the group: 0 = free, else the holder */
bool low[2], high[2];     /* Group.bits: each extent lies in two words, stored one by one */

typedef Record { bool lock; mtype phase; byte a; byte b }
Record record[5];         /* 0, 1: of instance 1; 2, 3: of 2; 4: of 3. Locking and kChain count as
                             Done: recoverers do nothing about them */
typedef Entry { byte owner; bool retired; byte extent; bool count; bool cursor }
Entry entry[ENTRIES];     /* FILLING, or RETIRED by `owner` */

bool waits[5];            /* ghost: by record, waits for the lock */
byte ended;               /* ghost: bit per record of a thread that worked */
byte threads[4];          /* ghost: threads of an instance that have not ended */
byte dying;               /* ghost: those of a killed instance that have not noticed; they go first,
                             so that a kill is one event */

#define runs(i) (alive[i] && !stopped[i] && dying == 0)

#define attached(e, x) (entry[e].count && !entry[e].cursor && entry[e].extent == x)
#define somewhere(x) (attached(0, x) || attached(1, x) || attached(2, x) || attached(3, x))
#define sound(x) (low[x] == somewhere(x) && high[x] == somewhere(x))
#define to_free(e, i) (entry[e].owner == i && entry[e].retired && entry[e].count && !entry[e].cursor)

#define first_record(d) (d == 1 -> 0 : (d == 2 -> 2 : 4))
#define last_record(d) (d == 1 -> 1 : (d == 2 -> 3 : 4))

/* Whether a thread of `i` could become the recoverer of `d` now. */
#define can_recover(i, d) (!alive[d] && state[d] != FREE && !recovering[4 * i + d] && \
                           (recoverer[d] == 0 || recoverer[d] == i || !alive[recoverer[d]]))
#ifdef BUG_TWO_THREADS
#define enter_recovery(i, d) dead = d; seen = recoverer[d]
#else
#define enter_recovery(i, d) dead = d; seen = recoverer[d]; recovering[4 * i + d] = true
#endif

#ifdef BUG_BLAME_HOLDER
#define culprit(d) (d)
#else
#define culprit(d) (alive[d] -> d : recoverer[d])
#endif

/* One store (or a load that decides) of instance i, unless it is dead. */
#define STEP(action) \
  if \
  :: d_step { runs(i) -> action } \
  :: !alive[i] -> goto died \
  fi

inline name_lock() {
#ifdef BUG_RECORD_LATE
  skip
#else
  STEP(record[r].lock = true)
#endif
}

/* Whoever gets the lock finds the group whole. */
#define TAKE word = i; waits[r] = false; assert(sound(0) && sound(1))

inline after_take() {
#ifdef BUG_RECORD_LATE
  STEP(record[r].lock = true)
#else
  skip
#endif
}

inline unlock() {
  STEP(assert(word == i); word = 0);
  STEP(record[r].lock = false; record[r].a = 0; record[r].b = 0)
}

/* Space::grow_in, once the lock is held. */
inline grow() {
  STEP(if
       :: !low[0] && !high[0] -> n = 0
       :: (low[0] || high[0]) && !low[1] && !high[1] -> n = 1
       :: else -> n = NO_EXTENT
       fi;
       record[r].a = n; record[r].b = mine);
  if
  :: n != NO_EXTENT ->
    STEP(record[r].phase = Marking);
    STEP(low[n] = true);
    STEP(high[n] = true);
    STEP(entry[mine].extent = n);
    STEP(assert(!somewhere(n)); entry[mine].count = true);
    STEP(record[r].phase = Done)
  :: else
  fi;
  unlock()
}

/* GlobalCache::reclaim and Space::free_entry: free what we retired or took over, unless another
 * thread of ours is at it, or the lock is busy. */
inline reclaim() {
  STEP(if :: !reclaiming[i] -> reclaiming[i] = true; n = 0 :: else -> n = NO_EXTENT + ENTRIES fi);
  if
  :: n == 0 ->
    do
    :: n < ENTRIES ->
      STEP(do :: n < ENTRIES && !to_free(n, i) -> n++ :: else -> break od;
           if :: n < ENTRIES -> record[r].a = entry[n].extent; record[r].b = n :: else fi);
      if :: n == ENTRIES -> break :: else fi;
      name_lock();
      if
      :: d_step { runs(i) && word == 0 -> TAKE }
        after_take();
        STEP(record[r].phase = Clearing);
        STEP(low[entry[n].extent] = false);
        STEP(high[entry[n].extent] = false);
        STEP(entry[n].cursor = true);
        STEP(record[r].phase = Done);
        unlock()
      :: runs(i) && word != 0 -> STEP(record[r].lock = false)
      :: !alive[i] -> goto died
      fi;
      n++
    :: else -> break
    od;
    STEP(reclaiming[i] = false)
  :: else
  fi
}

/* What one record of the dead says. A store here is right only while the dead holds the lock. */
#define REPAIR(action) STEP(assert(word == dead); action)
inline repair() {
  if
  :: record[n].phase == Marking &&
     !(entry[record[n].b].count && entry[record[n].b].extent == record[n].a) ->
    REPAIR(low[record[n].a] = false);
    REPAIR(high[record[n].a] = false)
  :: record[n].phase == Clearing ->
    REPAIR(low[record[n].a] = false);
    REPAIR(high[record[n].a] = false);
    REPAIR(entry[record[n].b].cursor = true)
  :: else
  fi
}

inline release_for_dead() {
  STEP(if :: record[n].lock && word == dead -> word = 0 :: else fi);
  STEP(record[n].lock = false; record[n].a = 0; record[n].b = 0; record[n].phase = Done)
}

/* Instance::recover of `dead`, whose recoverer word was `seen`. */
inline recover() {
  STEP(if :: recoverer[dead] == seen -> recoverer[dead] = i :: else -> seen = 255 fi);
  /* Look again: it may have been recovered meanwhile. */
  STEP(if :: seen != 255 && state[dead] != FREE -> state[dead] = DEAD :: else -> seen = 255 fi);
  if
  :: seen != 255 ->
    n = first_record(dead);
    do
    :: n <= last_record(dead) ->
      STEP(hit = (record[n].lock && word == dead));
      if :: hit -> repair() :: else fi;
#ifdef BUG_ONE_PASS
      release_for_dead();
#endif
      n++
    :: else -> break
    od;
    n = first_record(dead);
    do
    :: n <= last_record(dead) -> release_for_dead(); n++
    :: else -> break
    od;
    /* take_over: one CAS moves an entry; from then on it is ours, also if we die. */
    n = 0;
    do
    :: n < ENTRIES ->
      STEP(do :: n < ENTRIES && entry[n].owner != dead -> n++ :: else -> break od;
           if :: n < ENTRIES -> entry[n].owner = i; entry[n].retired = true :: else fi)
    :: else -> break
    od;
    reclaim();
    STEP(state[dead] = FREE)
  :: else
  fi;
  /* Resign. */
  STEP(if :: recoverer[dead] == i -> recoverer[dead] = 0 :: else fi;
       recovering[4 * i + dead] = false; dead = 0; seen = 0; n = 0; hit = false)
}

/* A thread of instance i with record r: gets an extent for the entry `mine` (if it works) and frees
 * it (if it frees); recovers a dead holder it waits for (if it helps); at last recovers whoever it
 * finds dead (if it ticks). */
proctype Thread(byte i; byte r; byte mine; bool works; bool frees; bool helps; bool ticks) {
  byte n, seen, dead;
  bool hit;
  if :: !works -> goto end_tick :: else fi;
wait:
  name_lock();
  do
  :: d_step { runs(i) && word == 0 -> TAKE } break
  :: d_step { runs(i) && word != 0 && !waits[r] -> waits[r] = true }
  :: d_step { runs(i) && word != 0 && stopped[culprit(word)] && !blamed[culprit(word)] ->
              blamed[culprit(word)] = true }
  :: d_step { runs(i) && helps && word != 0 && can_recover(i, word) -> enter_recovery(i, word) }
    STEP(record[r].lock = false; waits[r] = false);
    goto recovery
  :: !alive[i] -> goto died
  od;
  after_take();
  grow();
  if
  :: frees -> STEP(entry[mine].retired = true); reclaim()
  :: else
  fi;
  atomic { ended = ended | (1 << r); works = false; n = 0 };
  if :: !ticks -> goto died :: else fi;
end_tick:
  if
  :: d_step { runs(i) && i != 1 && can_recover(i, 1) -> enter_recovery(i, 1) }
  :: d_step { runs(i) && i != 2 && can_recover(i, 2) -> enter_recovery(i, 2) }
  :: d_step { runs(i) && i != 3 && can_recover(i, 3) -> enter_recovery(i, 3) }
  :: !alive[i] -> goto died
  fi;
recovery:
  recover();
  if
  :: works -> goto wait
  :: else -> goto end_tick
  fi;
died:
  atomic {
    if :: works -> ended = ended | (1 << r); waits[r] = false :: else fi;
    if :: !alive[i] -> dying-- :: else fi;
    threads[i]--; n = 0; seen = 0; dead = 0; hit = false
  }
}

#define may_die(i) (kills > 0 && alive[i] && dying == 0 && !stopped[i])
#define kill(i) alive[i] = false; dying = threads[i]

/* Kills, stops, the agent's judgement of who hangs, and the verdict when nothing moves any more. */
init {
  d_step {
    record[0].phase = Done; record[1].phase = Done; record[2].phase = Done;
    record[3].phase = Done; record[4].phase = Done;
    entry[0].owner = 1; entry[1].owner = 1; entry[2].owner = 2; entry[3].owner = 3;
    threads[1] = (SCENE == 1 -> 2 : 1); threads[2] = (SCENE == 2 -> 2 : 1); threads[3] = 1;
    ended = (SCENE == 1 -> 24 : (SCENE == 2 -> 26 : 14))
  }
  atomic {
    run Thread(1, 0, 0, true, true, false, false);
#if SCENE == 1
    run Thread(1, 1, 1, true, false, false, false);
    run Thread(2, 2, 2, true, false, true, true);
    run Thread(3, 4, 3, false, false, false, true)
#elif SCENE == 2
    run Thread(2, 2, 2, true, false, true, false);
    run Thread(2, 3, 3, false, false, false, true);
    run Thread(3, 4, 3, false, false, false, true)
#else
    run Thread(2, 2, 2, false, false, false, true);
    run Thread(3, 4, 3, true, false, true, true)
#endif
  }
  do
  :: d_step { may_die(1) -> kill(1); kills-- }
  :: d_step { may_die(2) && alive[3] -> kill(2); kills-- }
  :: d_step { may_die(3) && alive[2] && !stopped[2] -> kill(3); kills-- }
  :: d_step { may_stop && runs(2) && alive[3] -> stopped[2] = true; may_stop = false }
  :: d_step { stopped[2] && blamed[2] && alive[2] && dying == 0 -> kill(2) }
  :: timeout -> break
  od;
  /* Nobody waits for a stopped process that the agent does not know of. It may go on now. */
  assert(!(waits[0] && alive[1]) && !(waits[1] && alive[1]) && !(waits[4] && alive[3]));
  stopped[2] = false;
  timeout;
  assert(word == 0 && sound(0) && sound(1));
  assert(ended == 31);
  assert((alive[1] || state[1] == FREE) && (alive[2] || state[2] == FREE) &&
         (alive[3] || state[3] == FREE))
}
