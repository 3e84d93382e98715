/* SPDX-License-Identifier: Apache-2.0
 *
 * Expelling a process that others wait for and that may not be killed:
 * libglobalcache/runtime/{agent.cc,instance.cc}, libglobalcache/cache/{recovery.cc,global_cache.cc,fill.cc}.
 *
 *   expel      CAS state ACTIVE -> EXPELLED; then of each entry that its fills[] name: CAS FILLING(it) ->
 *              RETIRED(it), wake. Whoever is the agent does the second part again and again
 *   wait       whoever waits for a lock reports the holder; if that one is EXPELLED, it goes without
 *   lock       CAS free -> held(me); am I EXPELLED? then unlock, and do nothing
 *   seal       CAS FILLING(me) -> SEALED: fails once the lease was passed on
 *   come back  what is RETIRED(me) and named by my fills[] is mine to unlink and free, and to wake for;
 *              my tick: CAS state EXPELLED -> ACTIVE, if no thread of mine holds a lock (there is one here)
 *   recover    only when its exit is certain: release its lock, free what it owns, state = FREE
 *
 * So nothing that it writes to is given to anybody else while it may still write: neither the space of
 * its fills, nor a lock that it holds, nor what a lock of it protects. What it may still decide is one
 * word, the entry's, and there expelling it and its sealing exclude each other.
 *
 * Instance 1 fills, may be stopped once, at any step, and may go on, or be killed, at any time after.
 * Instance 2 wants the same key; it is never stopped. The agent may die once, between any two steps.
 * Bounds: two descriptors, one bucket, bodies of two words, 1 tries twice.
 *
 * Seeded mistakes:
 *   BUG_LOOK_THEN_STORE  who seals looks whether it was expelled, then stores
 *   BUG_FREE_AT_ONCE     who expels takes the entry, too, and frees it
 *   BUG_STEAL_LOCK       the lock of an expelled holder is taken over
 *   BUG_MARK_ONCE        who dies between the mark and passing the leases on is not followed by another
 *   BUG_FORGET           who comes back clears its record of the fill that was passed on
 *   BUG_WAIT_ON          who waits for a lock goes on waiting for an expelled holder
 */

#define D 2
#define NONE 2

mtype = { FREE, FILLING, SEALED, RETIRED, ACTIVE, EXPELLED };

mtype entry[D] = FREE;
byte owner[D];                /* of a FILLING or RETIRED one */
bool linked[D];
byte version[D];
byte next[D] = NONE;
byte head = NONE;
byte low[D + 1], high[D + 1];         /* the body: who wrote each half */
byte word;                    /* the bucket's OwnerLock */
byte fill = NONE;             /* fills[] of 1 */
mtype state = ACTIVE;         /* of 1 */
bool recovered;
bool signal;                  /* to 2 */
bool blamed;

bool alive = true, stopped, may_stop = true, may_die = true;
bool agent_alive = true, agent_may_die = true;
bool ended;                   /* ghost: 2 has its answer */

#define runs (alive && !stopped)
#define STEP(action) \
  if \
  :: d_step { runs -> action } \
  :: !alive -> goto died \
  fi

#define UNLINK(d) \
  if \
  :: head == d -> head = next[d] \
  :: head != d && head != NONE && next[head] == d -> next[head] = next[d] \
  :: else \
  fi; \
  next[d] = NONE

/* Somebody fills the key, or it is there. */
#define is_taken(d) (d != NONE && (entry[d] == SEALED || entry[d] == FILLING))
#define taken (is_taken(head) || (head != NONE && is_taken(next[head])))

#define in_work \
  ((head != NONE && entry[head] == FILLING) || \
   (head != NONE && next[head] != NONE && entry[next[head]] == FILLING))

/* Instance 1. */
proctype Filler() {
  byte d, round, seen;
  bool won;
again: skip;
  /* A look, and Space::claim_descriptor */
  STEP(won = (head == NONE || (entry[head] != SEALED && entry[head] != FILLING)) && round < 2;
       round = (round < 2 -> round + 1 : round);
       d = (entry[0] == FREE -> 0 : (entry[1] == FREE -> 1 : NONE));
       fill = (won -> d : NONE));
  if :: !won || d == NONE -> STEP(fill = NONE); goto done :: else fi;
  STEP(won = (entry[d] == FREE);
       if :: won -> entry[d] = FILLING; owner[d] = 1; version[d]++ :: else -> fill = NONE fi);
  if :: !won -> goto done :: else fi;
  /* Index::Locked: the lock, and then the look at the own state */
  do
  :: d_step { runs && word == 0 -> word = 1 } break
  :: !alive -> goto died
  od;
  STEP(won = (state == ACTIVE));
  if :: won -> STEP(won = !taken; seen = (taken -> 1 : 0)) :: else fi;
  if
  :: !won && seen == 1 ->
    /* kOther */
    STEP(word = 0);
    STEP(entry[d] = (entry[d] == FILLING -> FREE : entry[d]); won = (entry[d] == FREE));
    if :: won -> STEP(owner[d] = 0; fill = NONE); goto tick :: else -> goto abort fi
  :: else
  fi;
  if
  :: won ->
    STEP(seen = head);
    STEP(next[d] = seen);
    STEP(head = d);
    STEP(word = 0)
  :: else ->
    STEP(word = 0);
    goto abort
  fi;
  /* The body, by system calls. */
  STEP(assert(owner[d] == 1); low[d] = 1);
  STEP(assert(owner[d] == 1); high[d] = 1);
#ifdef BUG_LOOK_THEN_STORE
  STEP(won = (state == ACTIVE && entry[d] == FILLING && owner[d] == 1));
  STEP(if :: won -> entry[d] = SEALED; owner[d] = 0 :: else fi);
#else
  STEP(won = (entry[d] == FILLING && owner[d] == 1);
       if :: won -> entry[d] = SEALED; owner[d] = 0 :: else fi);
#endif
  if :: won -> STEP(signal = true); STEP(fill = NONE); goto done :: else fi;
abort: skip;
  /* Fill::abort: what was passed on is still ours to free. */
  STEP(signal = true);
#ifdef BUG_FORGET
  STEP(won = (entry[d] == FILLING && owner[d] == 1);
       if :: won -> entry[d] = RETIRED :: else -> fill = NONE fi);
  if :: !won -> goto tick :: else fi;
#else
  STEP(if :: entry[d] == FILLING && owner[d] == 1 -> entry[d] = RETIRED :: else fi);
#endif
  /* It frees nothing before it is a member again. */
  STEP(if :: state == EXPELLED -> state = ACTIVE :: else fi);
  do
  :: d_step { runs && word == 0 -> word = 1 } break
  :: !alive -> goto died
  od;
  STEP(won = (state == ACTIVE));
  if
  :: won -> STEP(UNLINK(d)); STEP(word = 0)
  :: else -> STEP(word = 0); goto abort
  fi;
  STEP(entry[d] = FREE; owner[d] = 0);
  STEP(fill = NONE);
tick: skip;
  STEP(if :: state == EXPELLED -> state = ACTIVE :: else fi);
  goto again;
done: skip;
  STEP(if :: state == EXPELLED -> state = ACTIVE :: else fi);
  /* It leaves as the agent sees it: its exit is certain now. */
  STEP(alive = false);
died: skip;
  d_step { d = 0; round = 0; seen = 0; won = false }
}

/* Instance 2: wants the key. */
proctype Wanter() {
  byte d, c;
  bool other;
look: skip;
  d_step {
    c = head; other = false; d = NONE;
    do
    :: c != NONE && entry[c] == SEALED -> assert(low[c] == high[c] && low[c] != 0); d = c; break
    :: c != NONE && entry[c] == FILLING -> other = true; c = next[c]
    :: c != NONE && (entry[c] == RETIRED || entry[c] == FREE) -> c = next[c]
    :: c == NONE -> break
    od;
    c = 0
  }
  if
  :: d != NONE -> goto answered
  :: d == NONE && other ->
    /* announce_wait, report_filler; woken */
    blamed = true;
    if
    :: in_work -> d_step { signal -> signal = false }
    :: else
    fi;
    goto look
  :: else
  fi;
  if
  :: d_step { entry[0] == FREE -> d = 0; entry[0] = FILLING; owner[0] = 2; version[0]++ }
  :: d_step { entry[0] != FREE && entry[1] == FREE ->
              d = 1; entry[1] = FILLING; owner[1] = 2; version[1]++ }
  :: d_step { entry[0] != FREE && entry[1] != FREE -> skip }
    goto answered                             /* no space: without the cache */
  fi;
  if
  :: d_step { word == 0 -> word = 2 }
#ifdef BUG_STEAL_LOCK
  :: d_step { word == 1 && state == EXPELLED -> word = 2 }
#endif
  :: word == 1 && state == ACTIVE ->
    blamed = true;
    if
    :: d_step { word == 0 -> word = 2 }
#ifdef BUG_STEAL_LOCK
    :: d_step { word == 1 && state == EXPELLED -> word = 2 }
#elif !defined(BUG_WAIT_ON)
    :: d_step { word == 1 && state == EXPELLED -> entry[d] = FREE; owner[d] = 0 }
      goto answered                           /* kBusy: without the cache */
#endif
    fi
#if !defined(BUG_STEAL_LOCK) && !defined(BUG_WAIT_ON)
  :: d_step { word == 1 && state == EXPELLED -> entry[d] = FREE; owner[d] = 0 }
    goto answered
#endif
  fi;
  d_step {
    other = taken;
    if
    :: other -> entry[d] = FREE; owner[d] = 0; word = 0
    :: else -> skip
    fi
  }
  if :: other -> goto look :: else fi;
  next[d] = head;
  head = d;
  d_step { assert(word == 2); word = 0 }
  low[d] = 2;
  high[d] = 2;
  d_step { entry[d] = SEALED; owner[d] = 0 }
answered: skip;
  d_step { ended = true; d = 0; c = 0; other = false }
}

#ifdef BUG_MARK_ONCE
#define DUE due
#else
#define DUE true
#endif
#ifdef BUG_FREE_AT_ONCE
#define PASSED_TO 3
#else
#define PASSED_TO 1
#endif

/* Agent::judge_hung, GlobalCache::pass_on; and Instance::recover when the exit is certain. */
proctype TheAgent() {
  byte d;
  bool due;
end_look: skip;
  do
  :: d_step { agent_alive && alive && stopped && blamed && state == ACTIVE -> state = EXPELLED }
#ifdef BUG_MARK_ONCE
    due = agent_alive
#endif
  :: d_step { agent_alive && alive && state == EXPELLED && DUE && fill != NONE &&
              entry[fill] == FILLING && owner[fill] == 1 ->
              entry[fill] = RETIRED; owner[fill] = PASSED_TO }
  /* In a step of its own, for which another agent may have to come. */
  :: d_step { agent_alive && alive && state == EXPELLED && DUE && fill != NONE && !signal &&
              entry[fill] != FILLING -> signal = true }
#ifdef BUG_FREE_AT_ONCE
  :: d_step { entry[0] == RETIRED && owner[0] == 3 && word == 0 ->
              UNLINK(0); entry[0] = FREE; owner[0] = 0 }
  :: d_step { entry[1] == RETIRED && owner[1] == 3 && word == 0 ->
              UNLINK(1); entry[1] = FREE; owner[1] = 0 }
#endif
  :: d_step { !agent_alive -> agent_alive = true; due = false }
  :: !alive && !recovered -> break
  od;
#ifdef BUG_FREE_AT_ONCE
  do
  :: d_step { entry[0] == RETIRED && owner[0] == 3 && word != 2 ->
              UNLINK(0); entry[0] = FREE; owner[0] = 0 }
  :: d_step { entry[1] == RETIRED && owner[1] == 3 && word != 2 ->
              UNLINK(1); entry[1] = FREE; owner[1] = 0 }
  :: !(entry[0] == RETIRED && owner[0] == 3) && !(entry[1] == RETIRED && owner[1] == 3) -> break
  od;
#endif
  /* Recovery. */
  skip;
  d_step { if :: word == 1 -> word = 0 :: else fi };
  if
  :: fill != NONE && owner[fill] == 1 && (entry[fill] == FILLING || entry[fill] == RETIRED) ->
    d = fill;
    entry[d] = RETIRED;
    d_step { word == 0 -> UNLINK(d); entry[d] = FREE; owner[d] = 0 }
  :: else
  fi;
  fill = NONE;
  signal = true;
  recovered = true;
  d = 0
}

init {
  atomic {
    run Filler();
    run Wanter();
    run TheAgent()
  }
  do
  :: d_step { may_stop && runs -> stopped = true; may_stop = false }
  :: d_step { stopped && alive -> stopped = false }
  :: d_step { may_die && alive -> alive = false; stopped = false; may_die = false }
  :: d_step { agent_alive && agent_may_die -> agent_alive = false; agent_may_die = false }
  :: timeout -> break
  :: !may_stop && stopped -> break           /* it never goes on by itself */
  od;
  /* Whoever waits need not wait for it to go on. */
  timeout;
  assert(ended);
  d_step { stopped = false };
  timeout;
  assert(recovered && word == 0 && fill == NONE);
  assert((entry[0] == FREE || entry[0] == SEALED) && (entry[1] == FREE || entry[1] == SEALED));
  /* One of the key, and it can be found. */
  assert(!(entry[0] == SEALED && entry[1] == SEALED));
  assert(entry[0] != SEALED || (head == 0 && next[0] == NONE));
  assert(entry[1] != SEALED || (head == 1 && next[1] == NONE));
  assert(head == NONE || entry[head] == SEALED)
}
