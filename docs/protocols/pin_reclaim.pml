/* SPDX-License-Identifier: Apache-2.0
 *
 * Pins (hazard pointers) against retiring, freeing and reusing an entry:
 * libglobalcache/cache/{pins.cc,global_cache.cc,space.cc,recovery.cc,follow.cc}.
 *
 *   pin       ledger_high = max; ledger word = link; full fence; state and version again: SEALED (or,
 *             for a follower, FILLING) of that version, or unpin and start again  [Pins::pin, load_hit]
 *   unpin     ledger word = 0
 *   retire    limbo[] = link; CAS SEALED -> RETIRED(me); unlink under the bucket's lock; unlinked flag;
 *             only then may reclaim look at it (keep_limbo)            [retire_as, retire_filling]
 *   orphan    limbo is full: record = link; CAS SEALED -> RETIRED(nobody); orphans += 1; record = 0;
 *             unlink                                                              [retire_as_orphan]
 *   adopt     seen = orphans; of each RETIRED(nobody): limbo[] = link; CAS owner -> me;
 *             CAS orphans seen -> 0                                                 [adopt_orphans]
 *   reclaim   what limbo[] names and is RETIRED, unlinked (unlink it if not); then fence and read
 *             every ledger; then free which of these no ledger names: space, state = FREE; limbo[] = 0
 *                                                         [reclaim, Pins::drop_pinned, Space::free_entry]
 *   recover   of a reader: its ledger words = 0, ledger_high = 0; of who retires: own limbo[] = link;
 *             CAS owner dead -> me; its limbo[] = 0; orphans += 1 if its record says so    [take_over]
 *
 * One entry, whose space somebody else writes to as soon as it is free, and whose descriptor is filled
 * again with the next version. Instances 1 and 2 read; 3 retires in one thread and reclaims in another
 * one; 4 recovers and reclaims. In SCENE 1 a reader may be killed between any two stores, and another
 * process takes its slot. In SCENE 2 there is one reader, instance 3 and the recoverer may be killed
 * (the next recoverer goes on in the same slot), and 3 may find its limbo full.
 * Bounds: `VERSIONS` versions; two pins of each reader; `KILLS` kills.
 *
 * Seeded mistakes:
 *   BUG_NO_REREAD     the reader believes the link that it pinned
 *   BUG_NO_FENCE      the second look overtakes the pin's store
 *   BUG_NO_VERSION    the second look compares the state only
 *   BUG_HIGH_LATE     ledger_high is raised after the pin: the scan ends before it
 *   BUG_SCAN_FIRST    whatever is in limbo after the scan is freed, also what another thread of the
 *                     process retired after the ledgers had been read
 *   BUG_LIMBO_LATE    limbo[] is written after the CAS: a kill in between loses the entry
 *   BUG_ORPHAN_FIRST  orphans += 1 before the CAS: an adopter that looks in between resets it
 */

#ifndef SCENE
#define SCENE 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef VERSIONS
#define VERSIONS 2
#endif

#define READERS 2
#define RETIRER 3
#define RECOVERER 4

mtype = { FREE, FILLING, SEALED, RETIRED };

/* Descriptor.state is changed as a whole. */
mtype state = FREE;
byte version;
byte owner;                  /* RETIRED: instance, 0 = nobody */
bool unlinked;
byte head;                   /* Bucket: version of the entry in the chain, 0 = none */
byte bytes;                  /* ghost: the version that wrote what lies in the entry's space */

byte ledger[READERS + 1];    /* one word each: version pinned, 0 = none */
bool high[READERS + 1];      /* ledger_high */
byte limbo[RECOVERER + 1];
byte record;                 /* of instance 3: what it makes an orphan */
byte orphans;                /* SegmentState.orphans */

bool alive[RECOVERER + 1] = true;
bool reading[READERS + 1];   /* the slot is not FREE */
byte kills = KILLS;
byte threads[RECOVERER + 1]; /* ghost: threads that have not ended */
byte dying;                  /* ghost: threads of who was killed that have not noticed; they go first */

#define runs(i) (alive[i] && dying == 0)
#define STEP(action) \
  if \
  :: d_step { runs(me) -> action } \
  :: !alive[me] -> goto died \
  fi

#define pinned_by_somebody(v) (ledger[1] == v || ledger[2] == v)

inline unlink(v) {
  STEP(if :: head == v -> head = 0 :: else fi);
  STEP(if :: state == RETIRED && version == v -> unlinked = true :: else fi)
}

/* GlobalCache::reclaim: `mine` is what limbo[] names. */
inline reclaim() {
  STEP(mine = limbo[me]; ok = (mine != 0 && state == RETIRED && version == mine && !unlinked));
  if :: ok -> unlink(mine) :: else fi;
  STEP(ok = (mine != 0 && state == RETIRED && version == mine && owner == me && unlinked));
#ifdef BUG_SCAN_FIRST
  ok = true;
#endif
  if
  :: ok ->
    k = 1; pinned = 0;
    do
    :: k <= READERS ->
      STEP(if :: reading[k] && high[k] -> ok = true :: else -> ok = false fi);
      if
      :: ok -> STEP(pinned = pinned | (1 << ledger[k]))
      :: else
      fi;
      k++
    :: else -> break
    od;
    k = 0;
    STEP(
#ifdef BUG_SCAN_FIRST
         mine = limbo[me];
#endif
         ok = (mine != 0 && limbo[me] == mine && state == RETIRED && version == mine &&
               owner == me && unlinked && (pinned & (1 << mine)) == 0);
         pinned = 0);
    if
    :: ok ->
      STEP(bytes = 0);          /* the space is in use by something else */
      STEP(state = FREE; owner = 0; unlinked = false);
      STEP(limbo[me] = 0)
    :: else
    fi
  :: else
  fi;
  STEP(mine = 0; ok = false)
}

proctype Reader(byte me) {
  byte link, pins;
  bool ok;
born:
  pins = 0;
  STEP(reading[me] = true);
  do
  :: pins < 2 ->
    STEP(link = head);          /* Index::walk */
    if
    :: link != 0 ->
#ifndef BUG_HIGH_LATE
      STEP(high[me] = true);
#endif
#ifdef BUG_NO_FENCE
      STEP(ok = ((state == SEALED || state == FILLING) && version == link));
      STEP(ledger[me] = link);
#else
      STEP(ledger[me] = link);
#ifdef BUG_HIGH_LATE
      STEP(ok = ((state == SEALED || state == FILLING) && version == link));
      STEP(high[me] = true);
#elif defined(BUG_NO_REREAD)
      ok = true;
#elif defined(BUG_NO_VERSION)
      STEP(ok = (state == SEALED || state == FILLING));
#else
      STEP(ok = ((state == SEALED || state == FILLING) && version == link));
#endif
#endif
      if
      :: ok -> STEP(assert(bytes == link))    /* a client gets what it asked for */
      :: else
      fi;
      STEP(ledger[me] = 0; ok = false; link = 0)
    :: else
    fi;
    pins++
  :: else -> break
  od;
  STEP(high[me] = false);
  STEP(reading[me] = false);
died:
  atomic {
    link = 0; pins = 0; ok = false;
    if :: !alive[me] -> dying-- :: else fi;
    threads[me]--
  }
  if
  :: !alive[me] ->
end_dead:
    atomic { !reading[me] -> alive[me] = true; threads[me]++ }
    goto born
  :: else
  fi
}

/* Instance 3: evicts, replaces or purges; then leaves the rest to its other thread's tick. */
proctype Retirer() {
  byte me = RETIRER, link, mine, k, pinned;
  bool ok;
  do
  :: d_step { runs(me) && state == SEALED && limbo[me] == 0 -> link = version }
#ifndef BUG_LIMBO_LATE
    STEP(limbo[me] = link);
#endif
    STEP(ok = (state == SEALED && version == link);
         if :: ok -> state = RETIRED; owner = me; unlinked = false :: else fi);
#ifdef BUG_LIMBO_LATE
    STEP(if :: ok -> limbo[me] = link :: else fi);
#endif
    if
    :: ok -> unlink(link)
    :: else -> STEP(limbo[me] = 0)
    fi
#if SCENE == 2
  :: d_step { runs(me) && state == SEALED -> link = version }
    STEP(record = link);
#ifdef BUG_ORPHAN_FIRST
    STEP(orphans++);
#endif
    STEP(ok = (state == SEALED && version == link);
         if :: ok -> state = RETIRED; owner = 0; unlinked = false :: else fi);
#ifndef BUG_ORPHAN_FIRST
    if :: ok -> STEP(orphans++) :: else fi;
#endif
    STEP(record = 0);
    if :: ok -> unlink(link) :: else fi
#endif
  :: runs(me) && version == VERSIONS && (state == RETIRED || state == FREE) -> break
  :: !alive[me] -> goto died
  od;
died:
  atomic {
    link = 0; ok = false;
    if :: !alive[me] -> dying-- :: else fi;
    threads[me]--
  }
}

/* The other thread of instance 3. */
proctype Ticker() {
  byte me = RETIRER, mine, k, pinned;
  bool ok;
end_wait:
  do
  :: d_step { runs(me) && limbo[me] != 0 && !pinned_by_somebody(limbo[me]) -> skip }
    reclaim()
  :: !alive[me] -> break
  od;
died:
  atomic { mine = 0; k = 0; pinned = 0; ok = false; dying--; threads[me]-- }
}

/* Instance 4. Whoever recovers it when it is killed goes on in its place. */
proctype Recoverer() {
  byte me = RECOVERER, mine, k, pinned, link;
  bool ok;
end_wait:
  do
  :: d_step { runs(me) && !alive[1] && reading[1] -> k = 1 }
    goto clear
  :: d_step { runs(me) && !alive[2] && reading[2] -> k = 2 }
    goto clear
  :: runs(me) && !alive[RETIRER] && (limbo[RETIRER] != 0 || record != 0) ->
    /* take_over */
    STEP(if
         :: record != 0 && state == RETIRED && version == record && owner == 0 -> orphans++
         :: else
         fi);
    STEP(record = 0);
    STEP(link = limbo[RETIRER];
         ok = (link != 0 && state == RETIRED && version == link && owner == RETIRER));
    if
    :: ok ->
      STEP(limbo[me] = link);
      STEP(if :: state == RETIRED && version == link && owner == RETIRER -> owner = me :: else fi)
    :: else
    fi;
    STEP(limbo[RETIRER] = 0; link = 0; ok = false)
  :: runs(me) && orphans != 0 && limbo[me] == 0 ->
    /* adopt_orphans */
    STEP(k = orphans);
    STEP(ok = (state == RETIRED && owner == 0); link = version);
    if
    :: ok ->
      STEP(limbo[me] = link);
      STEP(if :: state == RETIRED && version == link && owner == 0 -> owner = me
              :: else -> limbo[me] = 0
           fi)
    :: else
    fi;
    STEP(if :: orphans == k -> orphans = 0 :: else fi);
    STEP(k = 0; link = 0; ok = false)
  :: d_step { runs(me) && limbo[me] != 0 && !pinned_by_somebody(limbo[me]) -> skip }
    reclaim()
  :: !alive[me] -> goto died
  od;
clear:
  STEP(ledger[k] = 0);
  STEP(high[k] = false);
  STEP(reading[k] = false; k = 0);
  goto end_wait;
died:
  /* Whoever recovers it finds what limbo[] names, or nothing. */
  atomic {
    mine = 0; k = 0; pinned = 0; link = 0; ok = false; dying--; alive[me] = true;
    if :: !(version == limbo[me] && state == RETIRED && owner == me) -> limbo[me] = 0 :: else fi
  }
  goto end_wait
}

/* Somebody's fills of the descriptor, one after the other; may be given up. */
proctype Filler() {
end_wait:
  do
  :: atomic { state == FREE && version < VERSIONS && dying == 0 ->
              version++; state = FILLING; bytes = version }
    head = version;
    atomic { dying == 0 -> state = SEALED }
  :: version == VERSIONS -> break
  od
}

#define may_die(i) (kills > 0 && dying == 0 && alive[i] && threads[i] > 0)
#define kill(i) alive[i] = false; dying = threads[i]; kills--

init {
  atomic {
    threads[1] = 1; threads[RETIRER] = 2; threads[RECOVERER] = 1;
    run Reader(1);
#if SCENE == 1
    threads[2] = 1;
    run Reader(2);
#endif
    run Retirer(); run Ticker(); run Recoverer(); run Filler()
  }
  do
#if SCENE == 1
  :: d_step { may_die(1) -> kill(1) }
#else
  :: d_step { may_die(RETIRER) -> kill(RETIRER) }
  :: d_step { may_die(RECOVERER) && !alive[RETIRER] -> kill(RECOVERER) }
#endif
  :: timeout -> break
  od;
  /* Nothing leaks: no pin, no retired entry, no record. */
  assert(state == FREE || (state == SEALED && !alive[RETIRER]));
  assert(ledger[1] == 0 && ledger[2] == 0);
  assert(limbo[RETIRER] == 0 && limbo[RECOVERER] == 0 && record == 0)
}
