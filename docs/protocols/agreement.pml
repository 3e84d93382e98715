/* SPDX-License-Identifier: Apache-2.0
 *
 * Agreement between nodes on who belongs to the domain; the protocol in words: agreement.md. In
 * the code: runtime/view.cc (ballot, mend), runtime/node_watch.cc (suspect, second), agent.cc (the rest).
 *
 *   suspect   a heartbeat has stalled, by my own clock: accuse
 *   second    three nodes or more: somebody else accuses too. Whoever suspects all others challenges
 *             them and waits for an answer, which withdraws the accusation
 *   ballot    want = generation + 1, members without the accused; for each segment that answers, in
 *             one order for all: CAS word -> want; another view of that generation is there already:
 *             want = that one; a later one: start again with it
 *   decide    only when every segment that answers has it. Not a member? Leave
 *   revoke    every word that the expelled could still publish with: CAS it away
 *   resume    the view is in force
 *   reuse     the expelled's space, when it has noticed or its end is certain
 *   publish   CAS my word, if nobody took it away
 *   mend      a damaged copy of the view: CAS it to my view, if I see a good copy beside it; an older
 *             view than mine, or another one of its generation: ballot for the same nodes once more
 *
 * A process that is not scheduled is a frozen node, so any node may freeze at any step and wake up
 * later. A node may crash, a segment may be lost at any step. Who lives may be accused all the same,
 * `ALARMS` times.
 *
 * SCENE 1  two nodes: one CAS picks the winner
 * SCENE 2  three nodes: two voices
 * SCENE 3  three nodes that answer in time, of which one accuses others all the time
 * SCENE 4  two nodes, of which one cannot reach the first, or the last, segment
 * SCENE 5  two nodes; a copy of the view is damaged
 * Bounds: `CRASHES` crashes, `LOSSES` losses of a segment, one publication per node.
 *
 * Seeded mistakes:
 *   BUG_ACT_EARLY     the view counts as decided when one segment has it
 *   BUG_STORE         the other segments are written whether or not they have a view of this generation
 *   BUG_LOCAL_FIRST   each node begins with its own segment
 *   BUG_RESUME_FIRST  the view is in force before the expelled's words are taken away
 *   BUG_NO_QUARANTINE the expelled's space is used again as soon as it is expelled
 *   BUG_ONE_VOICE     one accuser is enough, also where there are others to ask
 *   BUG_NO_HELP       who finds a view acts upon it without completing it
 */

#ifndef SCENE
#define SCENE 1
#endif
#if SCENE == 1 || SCENE == 4 || SCENE == 5
#define N 2
#else
#define N 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LOSSES
#define LOSSES (SCENE == 4 || SCENE == 5 -> 0 : 1)
#endif
#ifndef DAMAGES
#define DAMAGES (SCENE == 5 -> 1 : 0)
#endif
#ifndef ALARMS
#define ALARMS (SCENE == 2 -> 1 : 2)
#endif
#define GENERATIONS 6        /* from 1: each view but the first one expels somebody, or mends */

/* A view: generation and a bit per member, one word with its checksum in every segment. */
#define view_of(g, m) ((g) * 8 + (m))
#define generation(v) ((v) >> 3)
#define members(v) ((v) & 7)
#define bit_of(n) (1 << (n))
#define is_member(v, n) ((members(v) >> (n)) & 1)
#define FIRST view_of(1, (N == 2 -> 3 : 7))

byte word[N] = FIRST;        /* of each segment; 0: damaged */
bool lost[N];

byte accused[N];             /* by node: whom it accuses; one word in every segment, a hint only */
byte challenged;             /* bit per node that was asked for a sign of life */

mtype = { HELD, PUBLISHED, REVOKED };
mtype fill[N] = HELD;        /* what a node is about to publish: an entry that it fills */

bool alive[N] = true;
byte crashes = CRASHES;
byte losses = LOSSES;
byte damages = DAMAGES;
byte alarms = ALARMS;
byte cut_node, cut_segment;
byte decided[GENERATIONS + 1];  /* ghost: the view of each generation that somebody acted upon */
byte in_force = FIRST;       /* ghost: the latest view that somebody resumed with */
byte gone;                   /* bit per node that has noticed its expulsion */
byte reused;                 /* ghost: bit per node whose space is used by others */

#define STEP(action) \
  if \
  :: d_step { alive[me] -> action } \
  :: !alive[me] -> goto died \
  fi

/* Everybody else in my view. */
#define others (members(view) & ~bit_of(me))
#define may_accuse(n) (is_member(view, n) && n != me && !((accused[me] >> (n)) & 1) && \
                       (!alive[n] || (alarms > 0 && (SCENE != 3 || me == 0))))
#define accuse(n) accused[me] = accused[me] | bit_of(n); if :: alive[n] -> alarms-- :: else fi
#define somebody_else_accuses(n) \
  ((n != 0 && me != 0 && is_member(view, 0) && ((accused[0] >> (n)) & 1)) || \
   (n != 1 && me != 1 && is_member(view, 1) && ((accused[1] >> (n)) & 1)) || \
   (N == 3 && n != 2 && me != 2 && is_member(view, 2) && ((accused[N - 1] >> (n)) & 1)))
#ifdef BUG_ONE_VOICE
#define may_expel(n) (is_member(view, n) && n != me && ((accused[me] >> (n)) & 1))
#else
#define may_expel(n) (is_member(view, n) && n != me && ((accused[me] >> (n)) & 1) && \
                      somebody_else_accuses(n))
#endif
#define expel(m) want = view_of(generation(view) + 1, members(view) & ~(m))

/* An answer comes in time, if at all, only in SCENE 3. */
#if SCENE == 3
#define no_answer ((!alive[0] || !(others & 1)) && (!alive[1] || !(others & 2)) && \
                   (!alive[N - 1] || !(others & 4)))
#else
#define no_answer true
#endif

#ifdef BUG_NO_HELP
#define ADOPT decide
#else
#define ADOPT ballot
#endif

#ifdef BUG_LOCAL_FIRST
#define at(s) ((me + (s)) % N)
#else
#define at(s) (s)
#endif

/* In SCENE 4 one node alone fails to reach a segment. */
#define silent(s) (lost[s] || (SCENE == 4 && me == cut_node && (s) == cut_segment))
#define no_view(s) (silent(s) || word[s] == 0)
#define beside(s) (!silent(s) && word[s] == view)
#define odd(s) (!no_view(s) && generation(word[s]) <= generation(view) && word[s] != view)

proctype Node(byte me) {
  byte view = FIRST, want, s;
  bool asked, tried;

end_member:
  do
  /* What fills do: write bytes, at last publish. */
  :: d_step { alive[me] && !tried -> assert(!((reused >> me) & 1)) }
  :: d_step { alive[me] && !tried ->
              tried = true;
              if
              :: fill[me] == HELD -> fill[me] = PUBLISHED; assert(is_member(in_force, me))
              :: else
              fi }

  :: d_step { may_accuse(0) && alive[me] -> accuse(0) }
  :: d_step { may_accuse(1) && alive[me] -> accuse(1) }
#if N == 3
  :: d_step { may_accuse(2) && alive[me] -> accuse(2) }
  :: d_step { alive[me] && may_expel(0) -> expel(1) } goto ballot
  :: d_step { alive[me] && may_expel(1) -> expel(2) } goto ballot
  :: d_step { alive[me] && may_expel(2) -> expel(4) } goto ballot
#endif
  :: d_step { alive[me] && others != 0 && (accused[me] & others) == others && !asked ->
              challenged = challenged | others; asked = true }
  :: d_step { alive[me] && asked && (challenged & others) == others && no_answer -> expel(others) }
    goto ballot
  :: d_step { alive[me] && asked && (challenged & others) != others ->
              accused[me] = accused[me] & (challenged | ~others); asked = false }
  :: d_step { alive[me] && ((challenged >> me) & 1) -> challenged = challenged & ~bit_of(me) }

  /* Look at the view, in the first segment that answers. */
  :: d_step { alive[me] && !silent(0) && generation(word[0]) > generation(view) -> want = word[0] }
    goto ADOPT
  :: d_step { alive[me] && no_view(0) && !silent(1) && generation(word[1]) > generation(view) ->
              want = word[1] }
    goto ADOPT
#if N == 3
  :: d_step { alive[me] && silent(0) && silent(1) && generation(word[2]) > generation(view) ->
              want = word[2] }
    goto ADOPT
#endif

#if SCENE == 5
  :: d_step { alive[me] && word[0] == 0 && beside(1) -> s = 0 } goto mend
  :: d_step { alive[me] && word[1] == 0 && beside(0) -> s = 1 } goto mend
  :: d_step { alive[me] && ((odd(0) && beside(1)) || (odd(1) && beside(0))) ->
              want = view_of(generation(view) + 1, members(view)) } goto ballot
#endif

  /* Once the expelled has noticed or has certainly ended, its space is free. */
  :: d_step { alive[me] && !is_member(view, 0) && (gone & 1 || !alive[0]) && !(reused & 1) ->
              reused = reused | 1 }
  :: d_step { alive[me] && !is_member(view, 1) && (gone & 2 || !alive[1]) && !(reused & 2) ->
              reused = reused | 2 }
#if N == 3
  :: d_step { alive[me] && !is_member(view, 2) && (gone & 4 || !alive[2]) && !(reused & 4) ->
              reused = reused | 4 }
#endif
  :: !alive[me] -> goto died
  od;

#if SCENE == 5
mend:
  STEP(if :: word[s] == 0 -> word[s] = view :: else fi; s = 0);
  goto end_member;
#endif

ballot:
  s = 0;
  asked = false;
  do
  :: s < N ->
    STEP(if
         :: no_view(at(s)) -> s++
         :: !no_view(at(s)) && (generation(word[at(s)]) + 1 == generation(want) ||
                                (SCENE == 5 && generation(word[at(s)]) < generation(want))) ->
           word[at(s)] = want; s++
#ifdef BUG_STORE
         :: !silent(at(s)) && generation(word[at(s)]) == generation(want) && s > 0 ->
           word[at(s)] = want; s++
         :: !silent(at(s)) && generation(word[at(s)]) == generation(want) && s == 0 ->
           want = word[at(s)]; s++
#else
         :: !silent(at(s)) && generation(word[at(s)]) == generation(want) -> want = word[at(s)]; s++
#endif
         :: !silent(at(s)) && generation(word[at(s)]) > generation(want) -> want = word[at(s)]; s = 0
         /* No segment that answers is left behind by a decided view. */
         :: !no_view(at(s)) && SCENE != 5 &&
            generation(word[at(s)]) + 1 < generation(want) -> assert(false)
         fi)
#ifdef BUG_ACT_EARLY
    STEP(if
         :: s > 0 && !silent(s - 1) ->
           assert(decided[generation(want)] == 0 || decided[generation(want)] == want);
           decided[generation(want)] = want
         :: else
         fi)
#endif
  :: else -> break
  od;
decide:
  STEP(s = generation(want);
       assert(decided[s] == 0 || decided[s] == want);
       decided[s] = want; view = want; want = 0; s = 0; accused[me] = 0);
  if
  :: !is_member(view, me) ->
    STEP(gone = gone | bit_of(me); tried = true);
    goto died
  :: else
  fi;
#ifdef BUG_RESUME_FIRST
  STEP(if :: generation(view) > generation(in_force) -> in_force = view :: else fi);
#endif
  do
  :: s < N ->
    STEP(if :: !is_member(view, s) && fill[s] == HELD -> fill[s] = REVOKED :: else fi;
#ifdef BUG_NO_QUARANTINE
         if :: !is_member(view, s) -> reused = reused | bit_of(s) :: else fi;
#endif
         s++)
  :: else -> break
  od;
  STEP(s = 0; if :: generation(view) > generation(in_force) -> in_force = view :: else fi);
  goto end_member;

died:
  atomic { want = 0; s = 0; asked = false; tried = true }
}

#define left(n) (!alive[n] || ((gone >> (n)) & 1))
/* A segment that answers has the view in force, in which there is nobody who is gone. */
#define whole(s) (lost[s] || word[s] == in_force)
#define right(n) (left(n) == !is_member(in_force, n))

init {
  atomic {
#if SCENE == 4
    if :: cut_node = 0 :: cut_node = 1 fi;
    if :: cut_segment = 0 :: cut_segment = 1 fi;
#endif
    run Node(0); run Node(1);
#if N == 3
    run Node(2)
#endif
  }
  do
  :: d_step { crashes > 0 && alive[0] -> alive[0] = false; crashes-- }
  :: d_step { crashes > 0 && alive[1] -> alive[1] = false; crashes-- }
#if N == 3
  :: d_step { crashes > 0 && alive[2] && SCENE != 3 -> alive[2] = false; crashes-- }
#endif
  :: d_step { losses > 0 && !lost[0] -> lost[0] = true; losses-- }
  :: d_step { losses > 0 && !lost[1] -> lost[1] = true; losses-- }
#if SCENE == 5
  :: d_step { damages > 0 && word[0] != 0 -> word[0] = 0; damages-- }
  :: d_step { damages > 0 && word[1] != 0 -> word[1] = 0; damages-- }
#endif
#if SCENE == 3
  /* Whoever answers is not expelled. */
  :: gone != 0 -> assert(false)
#endif
  :: timeout -> break
  od;
#if SCENE == 4
  /* A segment that one does not reach may keep another view of a generation, but nobody acted upon
   * that one, and the next ballot overwrites it. */
#else
  /* If anybody is left, all agree, and the dead were expelled. */
  assert((left(0) && left(1) && (N == 2 || left(N - 1))) ||
         (whole(0) && whole(1) && whole(N - 1) && right(0) && right(1) && right(N - 1)))
#endif
}
