/* SPDX-License-Identifier: Apache-2.0
 *
 * SlotControl and StatTotals: libglobalcache/runtime/{layout.h,instance.cc,agent.cc}.
 *
 *   join      liveness byte; CAS state (FREE, n) -> (JOINING, n + 1)
 *   inherit   no slot is FREE: byte of a dead one; CAS recoverer 0 or dead -> the dead one's own id;
 *             look again; state = (DEAD, n); repair its locks; fold, all under the dead one's name;
 *             if the totals' lock was not to be had: cells = 0 if they were folded already (the active
 *             copy's last_folded, then `folded`), or else they count on as mine;
 *             CAS state -> (JOINING, n + 1); CAS recoverer -> 0
 *   activate  CAS (JOINING, n) -> (ACTIVE, n)
 *   leave     CAS (ACTIVE, n) -> (LEAVING, n); fold; CAS -> (FREE, n); drop the byte
 *   recover   not FREE and byte not held, or the exit of exactly this incarnation seen;
 *             CAS recoverer 0 or dead -> me; look again (state, then byte or incarnation);
 *             CAS state -> (DEAD, n); repair its locks; fold; CAS -> (FREE, n); CAS recoverer -> 0
 *   fold      once `folded` is not n: lock the totals; look again; passive copy = active copy + cells,
 *             its last_folded; active = the other; folded = n; unlock. Then cells = 0.
 *   repair    of a totals lock the dead held: folded of the active copy's last_folded; unlock; record
 *
 * Instances are written slot + 2 * incarnation (0 = nobody; incarnations start at 1). Two slots, three
 * processes that come and go or are killed between any two stores, and a last one that comes when
 * the others are gone, recovers everybody and leaves. Bound: `KILLS` kills.
 *
 * Seeded mistakes:
 *   BUG_LATE_BYTE     the liveness byte is taken after FREE -> JOINING: a newborn is taken for dead
 *   BUG_NO_SECOND_LOOK  who becomes the recoverer does not look again: the slot was recovered and
 *                     given to the next process meanwhile
 *   BUG_ANY_EXIT      an exit that was seen is believed of whoever has the slot now
 *   BUG_FOLD_TWICE    who repairs the totals lock only unlocks it: a fold that had become active, but
 *                     was not noted in `folded`, is done again
 *   BUG_COUNT_ON      the heir of a slot that could not fold its cells does not ask whether somebody
 *                     had folded them
 *   BUG_FREE_ONLY     join takes FREE slots only: if all were left by processes that died together,
 *                     nobody can ever join, and so nobody recovers them
 */

#ifndef KILLS
#define KILLS 2
#endif

#define SLOTS 2
#define LAST 4               /* the process that is never killed */

mtype = { FREE, JOINING, ACTIVE, LEAVING, DEAD };

/* SlotControl, per slot. state and incarnation are one word. */
mtype state[SLOTS] = FREE;
byte incarnation[SLOTS];
byte recoverer[SLOTS];
byte folded[SLOTS];
/* Slot: one OpRecord that names the totals' lock, and one statistics cell. */
bool op[SLOTS];
byte cell[SLOTS];
/* StatTotals */
byte word;                   /* OwnerLock */
bit counts;                  /* `active`: the copy that counts */
byte last_folded[2];
byte sum[2];

byte byte_held[SLOTS];       /* liveness byte: process that holds it; the kernel frees it at death */
byte exited[SLOTS];          /* what a pidfd tells: this incarnation of the slot has exited */

bool alive[LAST + 1] = true;
byte kills = KILLS;
byte ended;                  /* ghost: processes that have left or died */
byte born[SLOTS];            /* ghost: process that is (slot, incarnation), 0 = none */
byte added;                  /* ghost: everything that was counted */
bool dying;                  /* ghost: somebody was killed and has not noticed; goes first */

#define id(s, n) (2 * (n) + (s))
#define slot_of(i) ((i) & 1)
#define incarnation_of(i) ((i) >> 1)

/* Instance::is_dead */
#define is_dead(i) (incarnation[slot_of(i)] != incarnation_of(i) || state[slot_of(i)] == FREE || \
                    byte_held[slot_of(i)] == 0)
/* A recoverer word that names the slot itself is its next owner, alive while it has the byte. */
#define recoverer_gone(s, i) \
  ((i) == 0 || (slot_of(i) == s && byte_held[s] == 0) || (slot_of(i) != s && is_dead(i)))

#define STEP(action) \
  if \
  :: d_step { alive[me] && !dying -> action } \
  :: !alive[me] -> goto died \
  fi

/* Repairs what the dead (d, dn) did under the totals' lock, unlocks it, clears the record. */
inline repair_locks() {
  if
  :: op[d] && word == id(d, dn) ->
#ifndef BUG_FOLD_TWICE
    STEP(if
         :: last_folded[counts] != 0 ->
           folded[slot_of(last_folded[counts])] = incarnation_of(last_folded[counts])
         :: else
         fi);
#endif
    STEP(word = 0)
  :: else
  fi;
  STEP(op[d] = false)
}

/* Instance::fold_statistics of (d, dn); done = false if a dead process holds the lock. */
inline fold() {
  STEP(done = true; k = folded[d]);
  if
  :: k != dn ->
    STEP(op[s] = true);
    if
    :: d_step { alive[me] && !dying && word == 0 -> word = id(s, mine) }
      STEP(k = folded[d]);
      if
      :: k != dn ->
        STEP(sum[1 - counts] = sum[counts] + cell[d]);
        STEP(last_folded[1 - counts] = id(d, dn));
        STEP(counts = 1 - counts);
        STEP(folded[d] = dn)
      :: else
      fi;
      STEP(word = 0);
      STEP(op[s] = false)
    :: d_step { alive[me] && !dying && word != 0 && is_dead(word) -> done = false }
      STEP(op[s] = false)
    :: !alive[me] -> goto died
    fi
  :: else
  fi;
  if :: done -> STEP(cell[d] = 0) :: else fi
}

/* (slot, incarnation) has one owner: nobody alive is it, or was it and has not given it up. */
#define BORN(s) assert(born[s] == 0 || !alive[born[s]]); born[s] = me

proctype Process(byte me) {
  byte s = SLOTS, mine;      /* my slot and incarnation */
  byte d, dn;                /* whom I recover */
  byte k, seen;
  bool exit_seen, done, leaving;
  if :: me == LAST -> ended == LAST - 1 :: else fi;

  /* Instance::join: a free slot. */
  d = 0;
  do
  :: d < SLOTS ->
    STEP(k = (state[d] == FREE -> incarnation[d] : 255));
#ifndef BUG_LATE_BYTE
    STEP(if :: k != 255 && byte_held[d] == 0 -> byte_held[d] = me :: else -> k = 255 fi);
#endif
    if
    :: k != 255 ->
      STEP(if
           :: state[d] == FREE && incarnation[d] == k ->
             BORN(d); state[d] = JOINING; incarnation[d] = k + 1; mine = k + 1; s = d
           :: else
           fi);
#ifdef BUG_LATE_BYTE
      if
      :: s != SLOTS -> STEP(byte_held[d] = me)
      :: else
      fi;
#endif
      if
      :: s != SLOTS -> goto joined
      :: else -> STEP(if :: byte_held[d] == me -> byte_held[d] = 0 :: else fi)
      fi
    :: else
    fi;
    d++
  :: else -> break
  od;

#ifndef BUG_FREE_ONLY
  /* A dead one's. */
  d = 0;
  do
  :: d < SLOTS ->
    STEP(done = (state[d] != FREE && byte_held[d] == 0); if :: done -> byte_held[d] = me :: else fi);
    if
    :: done ->
      STEP(dn = incarnation[d]; seen = recoverer[d]; done = recoverer_gone(d, seen) || seen == id(d, dn));
      if
      :: done ->
        STEP(done = (recoverer[d] == seen); if :: done -> recoverer[d] = id(d, dn) :: else fi)
      :: else
      fi;
      if
      :: done ->
        STEP(done = (state[d] != FREE && incarnation[d] == dn);
             if :: done -> assert(!alive[born[d]]); state[d] = DEAD :: else fi);
        if
        :: done ->
          repair_locks();
          s = d;
          mine = dn;
          fold();
#ifndef BUG_COUNT_ON
          STEP(if :: folded[d] == dn || last_folded[counts] == id(d, dn) -> cell[d] = 0 :: else fi);
#endif
          STEP(assert(state[d] == DEAD && incarnation[d] == dn);
               BORN(d); state[d] = JOINING; incarnation[d] = dn + 1; mine = dn + 1)
        :: else
        fi;
        STEP(if :: recoverer[d] == id(d, dn) -> recoverer[d] = 0 :: else fi)
      :: else
      fi;
      if
      :: s != SLOTS -> goto joined
      :: else -> STEP(byte_held[d] = 0)
      fi
    :: else
    fi;
    d++
  :: else -> break
  od;
#endif
  /* kNoSpace: serves without the cache. Not for want of somebody who recovers. */
  assert(me != LAST);
  goto died;

joined:
  STEP(state[s] = ACTIVE);
  STEP(cell[s]++; added++);

member:
  do
  :: d_step { alive[me] && !dying && s != 0 && state[0] != FREE && byte_held[0] == 0 ->
              d = 0; exit_seen = false }
    goto recovery
  :: d_step { alive[me] && !dying && s != 1 && state[1] != FREE && byte_held[1] == 0 ->
              d = 1; exit_seen = false }
    goto recovery
  /* The agent: a pidfd, and the incarnation it was sent with. */
  :: d_step { alive[me] && !dying && s != 0 && exited[0] != 0 && exited[0] == incarnation[0] && state[0] != FREE ->
              d = 0; exit_seen = true; dn = exited[0] }
    goto recovery
  :: d_step { alive[me] && !dying && s != 1 && exited[1] != 0 && exited[1] == incarnation[1] && state[1] != FREE ->
              d = 1; exit_seen = true; dn = exited[1] }
    goto recovery
  :: (me != LAST || (state[1 - s] == FREE)) && alive[me] && !dying -> break
  :: !alive[me] -> goto died
  od;
  STEP(state[s] = LEAVING);
leave:
  leaving = true;
  d = s;
  dn = mine;
  fold();
  if
  :: !done ->
    /* The holder of the totals' lock is dead: recover it, then again. Or, while somebody stopped
     * recovers it: leave; the next one in this slot counts on. */
    if
    :: d_step { alive[me] && !dying && word != 0 && is_dead(word) && slot_of(word) != s ->
                d = slot_of(word); exit_seen = false }
      goto recovery
    :: d_step { alive[me] && !dying && !(word != 0 && is_dead(word)) -> skip }
      goto leave
    :: me != LAST && alive[me] && !dying -> skip
    :: !alive[me] -> goto died
    fi
  :: else
  fi;
  STEP(state[s] = FREE; born[s] = 0);
  STEP(byte_held[s] = 0);
  goto died;

  /* Instance::recover of d. */
recovery:
  STEP(seen = recoverer[d];
       done = (state[d] != FREE && (exit_seen || byte_held[d] == 0) &&
               (recoverer_gone(d, seen) || seen == id(s, mine))));
  if
  :: done ->
    STEP(done = (recoverer[d] == seen); if :: done -> recoverer[d] = id(s, mine) :: else fi)
  :: else
  fi;
  if
  :: done ->
#ifdef BUG_NO_SECOND_LOOK
    STEP(dn = incarnation[d]);
#else
    STEP(k = incarnation[d]; seen = state[d]);
    STEP(if
#ifdef BUG_ANY_EXIT
         :: exit_seen -> done = (seen != FREE)
#else
         :: exit_seen -> done = (seen != FREE && k == dn)
#endif
         :: else -> done = (seen != FREE && byte_held[d] == 0)
         fi;
         dn = k);
#endif
    if
    :: done ->
      STEP(done = (incarnation[d] == dn && state[d] != FREE);
           if :: done -> assert(!alive[born[d]]); state[d] = DEAD :: else fi);
      if
      :: done ->
        repair_locks();
        fold();
        if
        :: done -> STEP(assert(state[d] == DEAD && incarnation[d] == dn); state[d] = FREE; born[d] = 0)
        :: else
        fi
      :: else
      fi
    :: else
    fi;
    STEP(if :: recoverer[d] == id(s, mine) -> recoverer[d] = 0 :: else fi)
  :: else
  fi;
  if
  :: leaving -> goto leave
  :: else -> goto member
  fi;

died:
  atomic {
    if
    :: !alive[me] -> dying = false
    :: else -> alive[me] = false; if :: s != SLOTS -> exited[s] = mine :: else fi
    fi;
    ended++;
    s = 0; mine = 0; d = 0; dn = 0; k = 0; seen = 0; exit_seen = false; done = false; leaving = false
  }
}

inline kill(p) {
  alive[p] = false;
  dying = true;
  kills--;
  k = 0;
  do
  :: k < SLOTS && byte_held[k] == p ->
    byte_held[k] = 0;
    if :: born[k] == p -> exited[k] = incarnation[k] :: else fi;
    k++
  :: k < SLOTS && byte_held[k] != p -> k++
  :: else -> break
  od;
  k = 0
}

init {
  byte k;
  atomic {
    run Process(1); run Process(2); run Process(3); run Process(LAST)
  }
  do
  :: d_step { kills > 0 && !dying && alive[1] -> kill(1) }
  :: d_step { kills > 0 && !dying && alive[2] -> kill(2) }
  :: d_step { kills > 0 && !dying && alive[3] -> kill(3) }
  :: timeout -> break
  od;
  assert(ended == LAST);
  assert(state[0] == FREE && state[1] == FREE && word == 0 && !op[0] && !op[1]);
  assert(sum[counts] + cell[0] + cell[1] == added)
}
