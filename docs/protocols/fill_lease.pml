/* SPDX-License-Identifier: Apache-2.0
 *
 * Filling, waiting, replacing and purging the entries of one key:
 * libglobalcache/cache/{layout.h,global_cache.cc,fill.cc,purge.cc,recovery.cc,index.h}, api/waiting.cc.
 *
 *   begin     fills[] = link; CAS FREE -> FILLING; clock byte; progress = 0; checked = next sequence
 *             of the purge log; bucket lock; is there another fill, or a sealed entry not seen
 *             before? next = head; head = link; unlock; only then ask the origin
 *   commit    sealed fields; CAS FILLING -> SEALED, which fails if a purge has counted up in the word
 *             since the last look: read the log from `checked` on (a record that matches, that is
 *             being written or was overwritten: abort) and try again from the word seen before that.
 *             Then settle; wake; fills[] = 0
 *   settle    of all sealed entries of the key keep the one linked last; the word says so
 *   abort     CAS FILLING -> RETIRED; unlink; wake; fills[] = 0; free
 *   retire    if the word says that it is not settled, settle it first; limbo[] = link; CAS SEALED ->
 *             RETIRED; bucket lock; unlink; unlock; unlinked flag; free
 *   wait      waiting += 1; progress |= my bit; still FILLING? then sleep until woken; or pass the
 *             fill over, so that it does not count as one any more
 *   wake      bits = progress; if the descriptor has another version by now: everybody; wake those
 *             whose bit is set and who wait
 *   purge     log on every segment; count up in what is FILLING, retire what is SEALED; acknowledge
 *   recover   release the dead's bucket lock; its fills[]: FILLING -> RETIRED, unlink; SEALED: settle;
 *             in any case wake; fills[] = 0; complete what it retired
 *
 * SCENE 1  two servers want the key, whose old entry is stale; either may pass over the other's fill
 * SCENE 2  one fills, the other one waits; an evictor frees what was filled, for another key
 * SCENE 3  one replaces an entry while three purges run (another key, this key, another key); when
 *          they are over, the second one asks
 * SCENE 4  one fills while everything is purged; an evictor and somebody who frees an entry store
 *          their hints late; then the second one asks
 * SCENE 5  one replaces an entry while an evictor frees what is sealed; the other one never sees the
 *          old entry again once the new one was there, also if the first one was killed
 * A server may be killed between any two stores, in 2 who recovers it too; nobody in 4.
 * Bounds: 3 descriptors, a log of one record, `KILLS` deaths of servers, one of a recoverer. Walks
 * read one descriptor at a time, with its version, and start again when it has changed. Pins, limbo
 * and the space are other models' matter.
 *
 * Seeded mistakes:
 *   BUG_FLAG_STAYS    purges set a flag instead of counting: one that comes after the log was read
 *                     cannot make itself felt, since the flag is there already
 *   BUG_RING_FORGETS  the fill reads what the log holds now: the record that matched is overwritten
 *   BUG_LOG_LAST      a purge counts up in the fill before it logs
 *   BUG_WALK_GIVES_UP a purge by key takes a walk that met a change for a whole one
 *   BUG_SCAN_BY_HINT  a purge skips descriptors whose clock byte is 0, which is only a hint
 *   BUG_KEEP_OWN      who seals retires only what is behind its own entry: of two fills both remain,
 *                     if the one that was linked first is sealed last
 *   BUG_WAKE_LAST     fills[] is cleared before the waiters are woken: a kill in between loses them
 *   BUG_WAKE_FOUND    a recoverer wakes only for a fill that it finds FILLING or SEALED, not for one
 *                     that a dead recoverer, or the dead itself, has already retired
 *   BUG_LOST_BITS     the waiters' bits are believed though the descriptor was reused meanwhile
 *   BUG_UNSETTLED     an evictor frees an entry whose filler has not come to retire what it replaced
 *   BUG_NO_RECHECK    the waiter sleeps without looking at the entry again
 */

#ifndef SCENE
#define SCENE 1
#endif
#ifndef KILLS
#if SCENE == 4
#define KILLS 0
#else
#define KILLS 1
#endif
#endif

#define D 3                   /* descriptors */
#define RING 1                /* records in the purge log */

/* A chain link or a record: descriptor and version; 0 = end or nothing. */
#define link(d, v) (1 + (d) + D * (v))
#define at(l) (((l) - 1) % D)
#define version_of(l) (((l) - 1) / D)

mtype = { FREE, FILLING, SEALED, RETIRED, other_key, this_key };

typedef Descriptor {
  /* The state word, changed as a whole. */
  mtype state; byte version; byte owner; byte purges; bool passed_over; bool unlinked;
  bool settled;
  byte next;
  byte progress;              /* waiters: bit per process */
  byte checked;               /* FILLING: sequence of the first purge that may concern it */
  bool clock;                 /* the clock byte is not 0 */
  bit content;                /* ghost: what the origin answered */
}
Descriptor d[D];
byte head;                    /* Bucket */
byte word;                    /* its OwnerLock: 0 = free, or the holder */
byte fills[3];                /* CacheArea.fills, one per process; 1 and 2 are servers */
bool waiting[3];              /* CacheArea.waiting */
bool signal[3];               /* a datagram in the wake socket */
byte log_next = 1;            /* PurgeLog */
byte log_sequence;            /* of its only record; 0 = being written */
mtype log_kind;

#define EVICTOR 3
#define PURGER 4
#define RECOVERER 5

bool alive[6] = true;
bool recovered[3];
byte kills = KILLS;
bool recoverer_dies = (SCENE == 2);
bool dying;                   /* ghost: who was killed has not noticed yet; goes first */
byte ended;                   /* ghost: servers that are done or dead */
bit origin = (SCENE <= 2 || SCENE == 5);    /* ghost: what the origin answers now; 1 after what purges are for */
bool acknowledged;            /* ghost: the purge of this key was acknowledged */
bool purged;                  /* ghost: all purges are over */
bool published;               /* ghost: what replaces the old entry was sealed */

#define holds(l) (d[at(l)].version == version_of(l))
#define fresh(e) (SCENE == 3 || SCENE == 4 -> me == 2 : d[e].content == 1)
#define runs(p) (alive[p] && !dying)

#define STEP(action) \
  if \
  :: d_step { runs(me) -> action } \
  :: !alive[me] -> goto died \
  fi

/* Only SCENE 4 looks at the hint. */
#if SCENE == 4
#define CLOCK(l, value) STEP(d[at(l)].clock = value)
#else
#define CLOCK(l, value) skip
#endif

inline lock_bucket() {
  if
  :: d_step { runs(me) && word == 0 -> word = me }
  :: !alive[me] -> goto died
  fi
}

/* Index::Locked::unlink: one store, wherever in the chain. */
#define TAKE_OUT(l) \
  if \
  :: head == l -> head = d[at(l)].next \
  :: else -> \
    if \
    :: head == 0 -> skip \
    :: head != 0 && d[at(head)].next == l -> d[at(head)].next = d[at(l)].next \
    :: head != 0 && d[at(head)].next != l -> \
      if \
      :: d[at(head)].next != 0 && d[at(d[at(head)].next)].next == l -> \
        d[at(d[at(head)].next)].next = d[at(l)].next \
      :: else \
      fi \
    fi \
  fi

/* GlobalCache::unlink of an entry that we have retired. */
inline unlink(l) {
  if
  :: !d[at(l)].unlinked ->
    lock_bucket();
    STEP(TAKE_OUT(l));
    STEP(word = 0);
    STEP(d[at(l)].unlinked = true)
  :: else
  fi
}

inline free(l) {
  STEP(d[at(l)].state = FREE);
  CLOCK(l, false)
}

/* retire_as, if it is still the sealed entry. */
inline retire(l) {
  STEP(won = (d[at(l)].state == SEALED && holds(l));
       if
       :: won -> d[at(l)].state = RETIRED; d[at(l)].owner = me; d[at(l)].unlinked = false
       :: else
       fi);
  if :: won -> unlink(l); free(l) :: else fi
}

inline wake(l) {
  STEP(bits = d[at(l)].progress);
#ifndef BUG_LOST_BITS
  STEP(if :: !holds(l) -> bits = 6 :: else fi);
#endif
  STEP(if :: (bits & 2) && waiting[1] -> signal[1] = true :: else fi;
       if :: (bits & 4) && waiting[2] -> signal[2] = true :: else fi;
       bits = 0)
}

/* retire_duplicates: of the sealed entries of the key keep the first one. One that is in front may
 * be sealed later, but then its filler comes and looks too. keep = 255: c is to be retired, or the
 * walk has met a change (c = 0). */
inline remove_duplicates(own) {
  do
  :: true ->
    STEP(c = head; keep = 0);
    do
    :: c != 0 ->
      STEP(if
           :: !holds(c) || d[at(c)].state == FREE -> c = 0; keep = 255
           :: holds(c) && d[at(c)].state == SEALED && keep != 0 -> keep = 255
#ifdef BUG_KEEP_OWN
           :: holds(c) && d[at(c)].state == SEALED && keep == 0 ->
             if :: c == own -> keep = c :: else fi; c = d[at(c)].next
#else
           :: holds(c) && d[at(c)].state == SEALED && keep == 0 -> keep = c; c = d[at(c)].next
#endif
           :: holds(c) && (d[at(c)].state == FILLING || d[at(c)].state == RETIRED) -> c = d[at(c)].next
           fi);
      if :: keep == 255 -> break :: else fi
    :: else -> break
    od;
    if
    :: keep == 255 && c != 0 -> retire(c)
    :: keep == 255 && c == 0 -> skip
    :: else -> break
    fi
  od;
  keep = 0;
  c = 0
}

inline settle(l) {
  remove_duplicates(l);
#if SCENE == 5
  STEP(if :: holds(l) && d[at(l)].state == SEALED -> d[at(l)].settled = true :: else fi)
#endif
}

/* A request to one of two servers. */
proctype Server(byte me) {
  byte c, l, seen, keep, bits, round, purges;
  bool won, acknowledged_before, published_before;

#if SCENE == 3 || SCENE == 4
  /* The second request comes when the purges are over. */
  if :: me == 2 -> purged :: else fi;
#endif

  /* GlobalCache::find: newest first, up to the first sealed entry. */
find:
  STEP(acknowledged_before = acknowledged; published_before = published;
       c = head; l = 0; seen = 0; won = false);
  do
  :: c != 0 ->
    STEP(if
         :: !holds(c) || d[at(c)].state == FREE -> c = 255
         :: holds(c) && d[at(c)].state == FILLING ->
           if :: !d[at(c)].passed_over -> l = c :: else fi;
           c = d[at(c)].next
         :: holds(c) && d[at(c)].state == SEALED ->
           assert(!acknowledged_before || d[at(c)].content == 1);
           assert(!published_before || d[at(c)].content == 1);
           won = fresh(at(c));
           seen = c; c = 0
         :: holds(c) && d[at(c)].state == RETIRED -> c = d[at(c)].next
         fi);
    if :: c == 255 -> goto find :: else fi
  :: else -> break
  od;
  if
  :: won -> goto done
  :: !won && l == 0 ->
    if :: (SCENE == 2 || SCENE == 5) && me == 2 -> goto done :: else -> goto begin fi
  :: else
  fi;

  /* register_waiter */
  STEP(waiting[me] = true);
  STEP(d[at(l)].progress = d[at(l)].progress | (1 << me));
#ifdef BUG_NO_RECHECK
  won = true;
#else
  STEP(won = (holds(l) && d[at(l)].state == FILLING));
#endif
  do
  :: won ->
    if
    :: d_step { runs(me) && signal[me] -> signal[me] = false }
#if SCENE == 1
    /* pass_over: it has been silent for too long. */
    :: d_step { runs(me) && d[at(l)].state == FILLING && holds(l) -> d[at(l)].passed_over = true }
      break
#endif
    :: !alive[me] -> goto died
    fi;
    STEP(won = (holds(l) && d[at(l)].state == FILLING))
  :: else -> break
  od;
  STEP(waiting[me] = false);
  goto find;

begin:
  /* Space::claim_descriptor */
  STEP(if
       :: d[0].state == FREE && !d[0].clock -> l = link(0, d[0].version + 1)
       :: else ->
         if
         :: d[1].state == FREE && !d[1].clock -> l = link(1, d[1].version + 1)
         :: else ->
           if
           :: d[2].state == FREE && !d[2].clock -> l = link(2, d[2].version + 1)
           :: else -> l = 0
           fi
         fi
       fi;
       fills[me] = l);
  if :: l == 0 -> goto done :: else fi;    /* kNoSpace: served from the disk */
  STEP(won = (d[at(l)].state == FREE && d[at(l)].version + 1 == version_of(l));
       if
       :: won ->
         d[at(l)].state = FILLING; d[at(l)].version = version_of(l); d[at(l)].owner = me;
         d[at(l)].purges = 0; d[at(l)].passed_over = false; d[at(l)].unlinked = false
       :: else
       fi);
  if
  :: !won -> STEP(fills[me] = 0); goto begin
  :: else
  fi;
  CLOCK(l, true);
  STEP(d[at(l)].progress = 0);
  STEP(d[at(l)].checked = log_next);
  lock_bucket();
  STEP(c = head; won = true);
  do
  :: c != 0 && won ->
    STEP(if
         :: (d[at(c)].state == FILLING && !d[at(c)].passed_over) ||
            (d[at(c)].state == SEALED && round < 2 && c != seen) -> won = false
         :: else -> c = d[at(c)].next
         fi)
  :: else -> break
  od;
  c = 0;
  if
  :: !won ->
    /* kOther: never linked, so FREE at once; look again. */
    STEP(word = 0);
    STEP(d[at(l)].state = FREE);
    CLOCK(l, false);
    STEP(fills[me] = 0);
    round = (round < 2 -> round + 1 : 2);
    goto find
  :: else
  fi;
  STEP(d[at(l)].next = head);
  STEP(head = l);
  STEP(word = 0);
  seen = 0;

  /* The fill. */
  STEP(d[at(l)].content = origin);
#if SCENE <= 3 || SCENE == 5
  if
  :: goto abort
  :: skip
  fi;
#endif

  /* Fill::commit */
  do
  :: d_step { runs(me) && d[at(l)].purges == purges ->
              d[at(l)].state = SEALED; d[at(l)].owner = 0; d[at(l)].settled = false;
              published = (SCENE == 5) }
    break
  :: d_step { runs(me) && d[at(l)].purges != purges -> purges = d[at(l)].purges }
    /* purged_since */
    STEP(c = log_next);
#ifdef BUG_RING_FORGETS
    STEP(won = (log_sequence == 0 || log_kind == this_key); c = 0);
#else
    STEP(won = (c - d[at(l)].checked > RING ||
                (c != d[at(l)].checked && (log_sequence + 1 != c || log_kind == this_key)));
         c = 0);
#endif
    if :: won -> goto abort :: else fi
  :: !alive[me] -> goto died
  od;
  settle(l);
#ifdef BUG_WAKE_LAST
  STEP(fills[me] = 0);
#endif
  wake(l);
  STEP(fills[me] = 0);
  goto done;

abort:
  STEP(d[at(l)].state = RETIRED; d[at(l)].unlinked = false);
  unlink(l);
  wake(l);
  STEP(fills[me] = 0);
  free(l);
done:
died:
  atomic {
    if :: !alive[me] -> dying = false :: else -> alive[me] = false; recovered[me] = true fi;
    ended++;
    c = 0; l = 0; seen = 0; keep = 0; bits = 0; round = 0; purges = 0;
    won = false; acknowledged_before = false; published_before = false
  }
}

/* GlobalCache::evict_some */
proctype Evictor() {
  byte me = EVICTOR, n, l, c, keep;
  bool won;
#if SCENE == 4
  if
  :: d[0].state == FREE && d[0].clock -> d[0].clock = false   /* without looking again */
  :: else
  fi;
#else
  do
  :: n < D && d[n].state == SEALED ->
    l = link(n, d[n].version);
#if SCENE == 5
#ifndef BUG_UNSETTLED
    if :: holds(l) && d[n].state == SEALED && !d[n].settled -> settle(l) :: else fi;
#endif
    /* The CAS compares the whole word, with its flags. */
    retire(l);
    break;
#endif
    retire(l);
    if
    :: won ->
      /* Another key's fill, which is not in this bucket. */
      STEP(won = (d[at(l)].state == FREE && holds(l));
           if
           :: won ->
             d[at(l)].state = FILLING; d[at(l)].version = version_of(l) + 1;
             d[at(l)].owner = EVICTOR; d[at(l)].unlinked = true
           :: else
           fi);
      if :: won -> d[at(l)].progress = 0 :: else fi
    :: else
    fi;
    break
  :: n < D -> n++
  :: n == D -> break
  od;
#endif
died:
  atomic { n = 0; l = 0; c = 0; keep = 0; won = false }
}

#define this_purge (SCENE == 4 || n == 1)

inline write_log() {
  c = log_next;
  log_next++;
  log_sequence = 0;
  log_kind = (this_purge -> this_key : other_key);
  log_sequence = c
}

/* GlobalCache::purge: of another key with a wildcard, of this key, of another key with a wildcard;
 * or of everything. */
proctype Purger() {
  byte me = PURGER, n, c, l;
  bool won;
  bool chosen[D];
  do
  :: n < (SCENE == 3 -> 3 : 1) ->
    if :: this_purge -> origin = 1 :: else fi;    /* what is purged has changed before */
#ifndef BUG_LOG_LAST
    write_log();
#endif
    c = 255;
    if
    :: SCENE == 3 && n == 1 ->
      /* By key: what its chain holds. */
      c = head;
      do
      :: d_step { c != 0 && c != 255 && holds(c) && d[at(c)].state != FREE ->
                  chosen[at(c)] = true; c = d[at(c)].next }
      :: d_step { c != 0 && c != 255 && !(holds(c) && d[at(c)].state != FREE) -> c = 255 }
      :: c == 0 || c == 255 -> break
      od;
#ifdef BUG_WALK_GIVES_UP
      c = 0
#endif
    :: else
    fi;
    if
    :: c == 255 -> d_step { chosen[0] = true; chosen[1] = true; chosen[2] = true }
    :: else
    fi;
    c = 0;
    do
    :: c < D && chosen[c] ->
      l = link(c, d[c].version);
      if
#ifdef BUG_SCAN_BY_HINT
      :: !d[c].clock -> goto next
#endif
      :: else
      fi;
      if
#ifdef BUG_FLAG_STAYS
      :: d_step { d[c].state == FILLING && holds(l) -> d[c].purges = 1 }
#else
      :: d_step { d[c].state == FILLING && holds(l) -> d[c].purges++ }
#endif
      :: d[c].state == SEALED && this_purge -> retire(l)
      :: else
      fi;
next:
      chosen[c] = false;
      c++
    :: c < D && !chosen[c] -> c++
    :: c == D -> break
    od;
#ifdef BUG_LOG_LAST
    write_log();
#endif
    if :: this_purge -> acknowledged = true :: else fi;
    n++
  :: else -> break
  od;
  purged = true;
died:
  atomic { n = 0; c = 0; l = 0; won = false }
}

/* Instance::recover and GlobalCache::take_over of a server that died; may die too, then the next one
 * does it again. */
proctype Recoverer() {
  byte me = RECOVERER, dead, l, c, keep, bits;
  bool won;
again:
  /* What a dead recoverer held. */
  atomic { if :: word == me -> word = 0 :: else fi };
end_wait:
  do
  :: d_step { runs(me) && d[0].state == RETIRED && d[0].owner == me -> l = link(0, d[0].version) }
    goto complete
  :: d_step { runs(me) && d[1].state == RETIRED && d[1].owner == me -> l = link(1, d[1].version) }
    goto complete
  :: d_step { runs(me) && d[2].state == RETIRED && d[2].owner == me -> l = link(2, d[2].version) }
    goto complete
  :: d_step { runs(me) && !alive[1] && !recovered[1] -> dead = 1 } goto recover
  :: d_step { runs(me) && !alive[2] && !recovered[2] -> dead = 2 } goto recover
  :: !alive[me] -> goto died
  od;
complete:
  unlink(l);
  free(l);
  l = 0;
  goto end_wait;
recover:
  STEP(if :: word == dead -> word = 0 :: else fi);
  STEP(waiting[dead] = false; l = fills[dead]);
  if
  :: l != 0 ->
    STEP(won = (holds(l) && d[at(l)].state == FILLING && d[at(l)].owner == dead);
         if
         :: won -> d[at(l)].state = RETIRED; d[at(l)].owner = me; d[at(l)].unlinked = false
         :: else
         fi);
    if
    :: won -> unlink(l); won = true
    :: !won && holds(l) && d[at(l)].state == SEALED -> settle(l); won = true
    :: else
    fi;
#ifdef BUG_WAKE_FOUND
    if :: !won -> goto woken :: else fi;
#endif
    wake(l);
woken:
    STEP(fills[dead] = 0)
  :: else
  fi;
  do
  :: STEP(if
          :: d[0].state == RETIRED && d[0].owner == dead -> l = link(0, d[0].version)
          :: else ->
            if
            :: d[1].state == RETIRED && d[1].owner == dead -> l = link(1, d[1].version)
            :: else ->
              if
              :: d[2].state == RETIRED && d[2].owner == dead -> l = link(2, d[2].version)
              :: else -> l = 0
              fi
            fi
          fi;
          if :: l != 0 -> d[at(l)].owner = me :: else fi);
    if
    :: l != 0 -> unlink(l); free(l)
    :: else -> break
    fi
  od;
  STEP(recovered[dead] = true);
died:
  atomic {
    dead = 0; l = 0; c = 0; keep = 0; bits = 0; won = false;
    if :: !alive[me] -> alive[me] = true; dying = false :: else fi
  }
  goto again
}

init {
  atomic {
    d[0].state = FREE; d[1].state = FREE; d[2].state = FREE;
#if SCENE == 1 || SCENE == 3 || SCENE == 5
    d[0].settled = true;
    d[0].state = SEALED; d[0].version = 1; head = link(0, 1);
#endif
    run Server(1);
    run Server(2);
#if SCENE == 2 || SCENE == 5
    run Evictor();
#elif SCENE == 3
    run Purger();
#elif SCENE == 4
    d[0].clock = true;
    run Purger();
    run Evictor();
#endif
    run Recoverer()
  }
  do
#if SCENE == 4
  :: d[0].state == FREE && d[0].version == 0 && d[0].clock -> d[0].clock = false
#endif
  :: d_step { kills > 0 && runs(1) -> alive[1] = false; dying = true; kills-- }
  :: d_step { kills > 0 && runs(2) && SCENE <= 2 -> alive[2] = false; dying = true; kills-- }
  :: d_step { recoverer_dies && !dying && ((!alive[1] && !recovered[1]) || (!alive[2] && !recovered[2])) ->
              alive[RECOVERER] = false; dying = true; recoverer_dies = false }
  :: timeout -> break
  od;
  assert(ended == 2);
  assert(word == 0 && fills[1] == 0 && fills[2] == 0);
#define over(e) (d[e].state == FREE || d[e].owner == EVICTOR || d[e].state == SEALED)
  assert(over(0) && over(1) && over(2));
  assert((d[0].state == SEALED) + (d[1].state == SEALED) + (d[2].state == SEALED) <= 1);
  assert(head == 0 || (holds(head) && d[at(head)].state == SEALED && d[at(head)].next == 0))
}
