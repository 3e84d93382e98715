/* SPDX-License-Identifier: Apache-2.0
 *
 * OwnerLock, OpRecord and the bits of one Group: libglobalcache/runtime/{layout.h,instance.cc},
 * libglobalcache/cache/space.cc.
 *
 *   lock       record.lock = ref; CAS word free -> held(me)
 *   grow_in    phase = Locking; lock; a, b; phase = Marking; bits; extent, count; phase = Done; unlock
 *   free_entry phase = Locking, a, b; lock; phase = Clearing; bits; cursor; phase = Done; unlock
 *   unlock     CAS word held(me) -> free; record.lock = 0
 *   recover    CAS recoverer 0 or dead -> me; look again; state = DEAD;
 *              pass 1: finish or undo what each record whose lock is still held by the dead says
 *              pass 2: unlock in the dead's name, clear the record
 *              free the dead's entries; state = FREE; recoverer = 0
 *
 * Instance 1 has two threads that work; 2 has one that works and, when it waits for a dead holder,
 * recovers it, and one that recovers (its tick); 3 works, then recovers. Any of them may be killed
 * between two stores, recoverers too; 2 may be stopped for ever (SIGSTOP). Bounds: `kills`, `stops`,
 * two extents of two bitmap words, one operation per thread (two for the first).
 *
 * Seeded mistakes:
 *   BUG_ONE_PASS      each record is repaired and unlocked before the next one is looked at: the
 *                     record of a thread that only waited frees the lock before the holder's is read
 *   BUG_TWO_THREADS   "recoverer == me" lets a second thread of the recoverer's process in: it
 *                     repairs again after the first one has given the lock to somebody else
 *   BUG_RECORD_LATE   the record names the lock only after it was taken
 *   BUG_BLAME_HOLDER  who waits too long reports the (dead) holder, not the stopped process that
 *                     has the duty to recover it, so the agent never ends the wait
 */

#ifndef KILLS
#define KILLS 2
#endif
#ifndef STOPS
#define STOPS 1
#endif

#define INSTANCES 3
#define EXTENTS 2
#define NONE 7

mtype = { Locking, Marking, Clearing, Done, ACTIVE, DEAD, FREE };

bool alive[4] = true;    /* false: killed, so its liveness lock reads as free; index 0 unused */
bool stopped[4];         /* SIGSTOP: alive, but takes no step */
bool blamed[4];          /* SlotControl.blocked went up */
byte kills = KILLS;
byte stops = STOPS;

mtype state[4] = ACTIVE;  /* SlotControl.state */
byte recoverer[4];        /* SlotControl.recoverer; 0 = nobody */
bool recovering[16];      /* private to a process: [4 * instance + slot]; one thread at a time */

byte word;                /* OwnerLock.word of the group: 0 = free, or the holder */
bool low[EXTENTS];        /* Group.bits: an extent lies in two words, set and cleared one by one */
bool high[EXTENTS];

typedef Record { bool ref; mtype phase; byte a; byte b }
Record record[5];         /* 0, 1: instance 1; 2, 3: instance 2; 4: instance 3 */

typedef Entry { byte extent; bool count; bool cursor }
Entry entry[4];           /* 0, 1: of instance 1; 2: of 2; 3: of 3 */

bool waits[5];            /* ghost: this thread waits for the lock */
byte ended;               /* ghost: bit per working thread */

#define runs(i) (alive[i] && !stopped[i])
#define attached(e, x) (entry[e].count && !entry[e].cursor && entry[e].extent == x)
#define somewhere(x) (attached(0, x) || attached(1, x) || attached(2, x) || attached(3, x))
#define sound(x) (low[x] == somewhere(x) && high[x] == somewhere(x))

/* One store (or load that decides) of instance i, unless it is dead. */
#define STEP(i, action) \
  if \
  :: atomic { runs(i) -> action } \
  :: !alive[i] -> goto died \
  fi

#define first_record(d) (d == 1 -> 0 : (d == 2 -> 2 : 4))
#define last_record(d) (d == 1 -> 1 : (d == 2 -> 3 : 4))
#define first_entry(d) (d == 1 -> 0 : d)
#define last_entry(d) d

/* Could `i` become the recoverer of the dead `d`? */
#define can_recover(i, d) (!alive[d] && state[d] != FREE && !recovering[4 * i + d] && \
                           (recoverer[d] == 0 || recoverer[d] == i || !alive[recoverer[d]]))

#ifdef BUG_BLAME_HOLDER
#define culprit(d) (d)
#else
#define culprit(d) (alive[d] -> d : recoverer[d])
#endif

inline name_lock(i, r) {
#ifdef BUG_RECORD_LATE
  skip
#else
  STEP(i, record[r].ref = true)
#endif
}

/* The group is whole whenever somebody gets its lock. */
inline take(i, r) {
  word = i;
  waits[r] = false;
  assert(sound(0) && sound(1))
}

inline after_take(i, r) {
#ifdef BUG_RECORD_LATE
  STEP(i, record[r].ref = true)
#else
  skip
#endif
}

inline unlock(i, r) {
  STEP(i, assert(word == i); word = 0);
  STEP(i, record[r].ref = false)
}

inline set_bits(i, x, value) {
  STEP(i, low[x] = value);
  STEP(i, high[x] = value)
}

/* With the lock held: find_run, mark, attach. */
inline grow(i, r, e) {
  if
  :: runs(i) && !low[0] && !high[0] -> x = 0
  :: runs(i) && (low[0] || high[0]) && !low[1] && !high[1] -> x = 1
  :: runs(i) && (low[0] || high[0]) && (low[1] || high[1]) -> x = NONE
  :: !alive[i] -> goto died
  fi;
  if
  :: x != NONE ->
    STEP(i, record[r].a = x; record[r].b = e);
    STEP(i, record[r].phase = Marking);
    set_bits(i, x, true);
    STEP(i, entry[e].extent = x);
    STEP(i, assert(!somewhere(x)); entry[e].count = true);
    STEP(i, record[r].phase = Done)
  :: else
  fi;
  unlock(i, r)
}

/* Space::clear, by the owner and by a recoverer. */
inline clear_entry(i, e) {
  set_bits(i, entry[e].extent, false);
  STEP(i, entry[e].cursor = true)
}

/* Pass 1: what one record of the dead `d` says. Each store here is right only while the dead still
 * holds the lock. */
#define REPAIR(i, d, action) STEP(i, assert(word == d); action)
inline repair(i, d, r) {
  if
  :: record[r].phase == Marking && !(entry[record[r].b].count && entry[record[r].b].extent == record[r].a) ->
    REPAIR(i, d, low[record[r].a] = false);
    REPAIR(i, d, high[record[r].a] = false)
  :: record[r].phase == Clearing ->
    REPAIR(i, d, low[record[r].a] = false);
    REPAIR(i, d, high[record[r].a] = false);
    REPAIR(i, d, entry[record[r].b].cursor = true)
  :: else
  fi
}

inline release_for_dead(i, d, r) {
  STEP(i, if :: record[r].ref && word == d -> word = 0 :: else fi);
  STEP(i, record[r].ref = false)
}

/* Instance::recover. `q`: this thread's own record, for the locks it takes. */
inline recover(i, d, q) {
  seen = NONE;
  STEP(i, if
          :: can_recover(i, d) ->
            seen = recoverer[d];
#ifndef BUG_TWO_THREADS
            recovering[4 * i + d] = true
#endif
          :: else fi);
  if
  :: seen == NONE
  :: else ->
    /* The CAS that elects. */
    STEP(i, if :: recoverer[d] == seen -> recoverer[d] = i; won = true :: else -> won = false fi);
    /* Look again: it may have been recovered meanwhile. */
    STEP(i, if :: won && state[d] != FREE -> state[d] = DEAD :: else -> won = false fi);
    if
    :: won ->
      n = first_record(d);
      do
      :: n > last_record(d) -> break
      :: else ->
        STEP(i, hit = (record[n].ref && word == d));
        if
        :: hit -> repair(i, d, n)
        :: else
        fi;
#ifdef BUG_ONE_PASS
        release_for_dead(i, d, n);
#endif
        n++
      od;
      n = first_record(d);
      do
      :: n > last_record(d) -> break
      :: else ->
        release_for_dead(i, d, n);
        n++
      od;
      /* take_over: free what its entries have, under our own record. */
      n = first_entry(d);
      do
      :: n > last_entry(d) -> break
      :: else ->
        if
        :: entry[n].count && !entry[n].cursor ->
          STEP(i, record[q].phase = Locking; record[q].a = entry[n].extent; record[q].b = n);
          name_lock(i, q);
          if
          :: atomic { runs(i) && word == 0 -> take(i, q) }
            after_take(i, q);
            STEP(i, record[q].phase = Clearing);
            clear_entry(i, n);
            STEP(i, record[q].phase = Done);
            unlock(i, q)
          :: runs(i) && word != 0 ->
            /* Busy: the recovery stays pending and is tried again. */
            won = false;
            STEP(i, record[q].ref = false);
            break
          :: !alive[i] -> goto died
          fi
        :: else
        fi;
        n++
      od;
      if
      :: won -> STEP(i, state[d] = FREE)
      :: else
      fi
    :: else
    fi;
    /* Resign. */
    STEP(i, if :: recoverer[d] == i -> recoverer[d] = 0 :: else fi; recovering[4 * i + d] = false)
  fi;
  d_step { won = false; hit = false; seen = 0; n = 0 }
}

/* Op::lock; a dead holder is recovered on the way. */
inline lock_group(i, r, helps) {
  name_lock(i, r);
  waits[r] = true;
  do
  :: atomic { runs(i) && word == 0 -> take(i, r) }
    break
  :: atomic { runs(i) && helps && word != 0 && can_recover(i, word) -> holder = word }
    STEP(i, record[r].ref = false; waits[r] = false);
    recover(i, holder, r);
    STEP(i, record[r].phase = Locking);
    name_lock(i, r);
    waits[r] = true
  :: atomic { runs(i) && word != 0 && culprit(word) != 0 && !blamed[culprit(word)] ->
      blamed[culprit(word)] = true }
  :: !alive[i] -> goto died
  od;
  after_take(i, r)
}

proctype Worker(byte i; byte r; byte e; bool frees; bool helps; bool ticks) {
  byte x = NONE, n, seen, holder;
  bool won, hit;
  STEP(i, record[r].phase = Locking);
  lock_group(i, r, helps);
  grow(i, r, e);
  if
  :: frees && entry[e].count ->
    STEP(i, record[r].phase = Locking; record[r].a = entry[e].extent; record[r].b = e);
    lock_group(i, r, helps);
    STEP(i, record[r].phase = Clearing);
    clear_entry(i, e);
    STEP(i, record[r].phase = Done);
    unlock(i, r)
  :: else
  fi;
died: skip;
  d_step { x = NONE; n = 0; seen = 0; holder = 0; won = false; hit = false; waits[r] = false;
           ended = ended | (1 << r) };
  if
  :: ticks && alive[i] -> goto tick
  :: else -> goto gone
  fi;
tick:
end_tick:
  do
  :: runs(i) && can_recover(i, 1) -> recover(i, 1, r)
  :: i != 2 && runs(i) && can_recover(i, 2) -> recover(i, 2, r)
  :: i != 3 && runs(i) && can_recover(i, 3) -> recover(i, 3, r)
  :: !alive[i] -> goto gone
  od;
gone:
  skip
}

/* A process's tick: recovers whoever it finds dead. */
proctype Ticker(byte i; byte r) {
  byte n, seen;
  bool won, hit;
end_tick:
  do
  :: runs(i) && can_recover(i, 1) -> recover(i, 1, r)
  :: runs(i) && can_recover(i, 3) -> recover(i, 3, r)
  :: !alive[i] -> break
  od;
died: skip;
  skip
}

/* Kills, stops, the agent's judgement of hung processes, and the final verdict. */
init {
  atomic {
    run Worker(1, 0, 0, true, false, false);
    run Worker(1, 1, 1, false, false, false);
    run Worker(2, 2, 2, false, true, false);
    run Ticker(2, 3);
    run Worker(3, 4, 3, false, true, true)
  }
  do
  :: atomic { kills > 0 && alive[1] -> alive[1] = false; kills-- }
  :: atomic { kills > 0 && alive[2] && alive[3] -> alive[2] = false; kills-- }
  :: atomic { kills > 0 && alive[3] && alive[2] && !stopped[2] -> alive[3] = false; kills-- }
  :: atomic { stops > 0 && runs(2) && alive[3] -> stopped[2] = true; stops-- }
  :: atomic { stopped[2] && blamed[2] && alive[2] -> alive[2] = false }
  :: timeout -> break
  od;
  /* Nobody waits while only an idle stopped process is left, which then goes on or not. */
  assert(!(waits[0] && runs(1)) && !(waits[1] && runs(1)) && !(waits[2] && runs(2)) &&
         !(waits[4] && runs(3)));
  if
  :: atomic { stopped[2] && alive[2] -> stopped[2] = false }
    timeout
  :: !(stopped[2] && alive[2])
  fi;
  assert(word == 0 && sound(0) && sound(1));
  assert((ended & 23) == 23);
  assert((alive[1] || state[1] == FREE) && (alive[2] || state[2] == FREE) &&
         (alive[3] || state[3] == FREE))
}
