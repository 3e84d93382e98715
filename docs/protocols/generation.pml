/* SPDX-License-Identifier: Apache-2.0
 *
 * The generation of a component: libglobalcache/runtime/component.cc.
 *
 *   initiate     steps_done = 0; CAS generation (g, running) -> (g + 1, recovering)
 *   elect        CAS coordinator 0 or dead -> me
 *   acknowledge  acknowledged = generation, when no thread of the instance is inside with_lock
 *   handle       a step with a barrier waits until every living member has acknowledged; run it;
 *                steps_done += 1
 *   resume       CAS (g + 1, recovering) -> (g + 1, running); coordinator = 0
 *   with_lock    recovering, or another generation than acknowledged: acknowledge, again; CAS mutex
 *                word free -> me; look again (as before; if so, unlock); work; unlock
 *
 * Three members; 2 has two threads. Each thread works once and then ticks. Member 1 may be killed at
 * any step, the coordinator in the middle of its steps; somebody initiates twice.
 *
 * Seeded mistakes:
 *   BUG_ACK_INSIDE   one thread acknowledges while another one of its process is inside
 *   BUG_TWO_THREADS  "coordinator == me" lets two threads of one process handle an event: the slower
 *                    one counts a step that belongs to the next generation
 *   BUG_NO_ELECTION  whoever sees that a recovery runs becomes the coordinator
 *   BUG_LOOK_ONCE    with_lock does not look again once it has the mutex
 *   BUG_KEEP_STEPS   steps_done is not reset: the next event runs no step
 */

#ifndef KILLS
#define KILLS 1
#endif
#ifndef EVENTS
#define EVENTS 2
#endif
#define STEPS 2              /* the second one has a barrier */
#define MEMBERS 3

byte generation = 1;         /* one word with `recovering` */
bool recovering;
byte coordinator;            /* member, 0 = nobody */
byte steps_done;
byte acknowledged[MEMBERS + 1] = 1;
byte mutex;                  /* member that holds it; abandoned ones are global_mutex.pml's matter */

bool coordinating[MEMBERS + 1];  /* private to a process: one thread at a time */
byte inside[MEMBERS + 1];    /* private to a process: its threads between lock and unlock */

bool alive[MEMBERS + 1] = true;
byte kills = KILLS;
byte events = EVENTS;
byte ran[EVENTS + 2];        /* ghost: bit per step that was run for a generation */
byte holder_of;              /* ghost: generation in which whoever is inside works; 0 = nobody */

#define STEP(action) \
  if \
  :: d_step { alive[me] -> action } \
  :: !alive[me] -> goto died \
  fi

#define all_acknowledged(g) ((acknowledged[1] == g || !alive[1]) && \
                             (acknowledged[2] == g || !alive[2]) && (acknowledged[3] == g || !alive[3]))

#ifdef BUG_ACK_INSIDE
#define may_acknowledge (acknowledged[me] != generation)
#else
#define may_acknowledge (acknowledged[me] != generation && inside[me] == 0)
#endif
#ifdef BUG_TWO_THREADS
#define not_at_it true
#else
#define not_at_it !coordinating[me]
#endif
#ifdef BUG_NO_ELECTION
#define may_coordinate (recovering && not_at_it)
#else
#define may_coordinate \
  (recovering && not_at_it && (steps_done != 1 || all_acknowledged(generation)) && \
   (coordinator == 0 || coordinator == me || !alive[coordinator]))
#endif

/* A thread of a member. */
proctype Thread(byte me; bool works) {
  byte g, done;
end_tick:
  do
  :: d_step { alive[me] && may_acknowledge -> acknowledged[me] = generation }
  :: d_step { alive[me] && events > 0 && !recovering && me == 3 ->
              events--; recovering = true; generation++;
#ifndef BUG_KEEP_STEPS
              steps_done = 0
#endif
            }
  :: d_step { alive[me] && may_coordinate -> coordinating[me] = true; done = coordinator }
    goto coordinate
  /* with_lock: Component::with_lock and GlobalMutex::obstacle. */
  :: d_step { alive[me] && works && !recovering && acknowledged[me] == generation && mutex == 0 ->
              g = generation; inside[me]++ }
    goto lock
  :: !alive[me] -> goto died
  od;

lock:
  if
  :: d_step { alive[me] && mutex == 0 -> mutex = me }
  :: d_step { alive[me] && mutex != 0 -> inside[me]--; g = 0 }
    goto end_tick
  :: !alive[me] -> goto died
  fi;
#ifndef BUG_LOOK_ONCE
  STEP(if
       :: recovering || generation != g -> mutex = 0; inside[me]--; g = 0
       :: else -> holder_of = g
       fi);
  if :: g == 0 -> goto end_tick :: else fi;
#else
  STEP(assert(generation == g); holder_of = g);
#endif
  /* work */
  STEP(holder_of = 0; works = false; g = 0);
  STEP(mutex = 0);
  STEP(inside[me]--);
  goto end_tick;

coordinate:
  STEP(if
       :: coordinator == done -> coordinator = me; g = generation
       :: else -> coordinating[me] = false; g = 0
       fi;
       done = 0);
  if :: g == 0 -> goto end_tick :: else fi;
  STEP(if
       :: !recovering ->
         /* It was over before we were elected. */
         coordinator = 0; coordinating[me] = false; g = 0
       :: else -> g = generation
       fi);
  if :: g == 0 -> goto end_tick :: else fi;
  do
  :: true ->
    STEP(done = steps_done);
    if :: done >= STEPS -> break :: else fi;
    if
    :: d_step { alive[me] && (done != 1 || all_acknowledged(g)) ->
                /* Behind the barrier nobody is inside who came before. */
                assert(done != 1 || holder_of == 0 || holder_of == g);
                ran[g] = ran[g] | (1 << done) }
    :: d_step { alive[me] && done == 1 && !all_acknowledged(g) ->
                /* At the next tick. */
                coordinating[me] = false; g = 0; done = 0 }
      goto end_tick
    :: !alive[me] -> goto died
    fi;
    STEP(steps_done = done + 1)
  :: else -> break
  od;
  STEP(if
       :: generation == g && recovering ->
         recovering = false;
         assert(ran[g] == 3)      /* all steps, before anybody works in it */
       :: else
       fi);
  STEP(if :: coordinator == me -> coordinator = 0 :: else fi; coordinating[me] = false; g = 0; done = 0);
  goto end_tick;

died:
  atomic { g = 0; done = 0; works = false }
}

init {
  atomic {
    run Thread(1, true);
    run Thread(2, true);
    run Thread(2, false);
    run Thread(3, false)
  }
  do
  /* Its mutex is freed by who recovers it. */
  :: d_step { kills > 0 && alive[1] ->
              alive[1] = false; kills--;
              if :: mutex == 1 -> mutex = 0; holder_of = 0 :: else fi }
  :: timeout -> break
  od;
  assert(!recovering && generation == EVENTS + 1 && ran[generation] == 3);
  assert(acknowledged[2] == generation && acknowledged[3] == generation)
}
