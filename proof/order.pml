/* The order of a log on PostgreSQL: who has read up to a position never meets a lower one later.

   Writers draw positions side by side and commit in any order. A model of what the server and
   eventstore/engines/postgres/settled.py do, step by step: each `atomic` is what one statement, or
   the server itself, does at once. `make proof` searches all its states; docs/design.md tells why
   it is right.

   What may be defined:
     WRITERS, EVENTS     how many, and how many events each may write (in one flush or in several)
     BATCH               an exclusive transaction goes between them
     STANDBY             a replica that replays commits later, with a reader of its own
     NO_SUBTRANSACTION, DRAWN_FIRST, TRUSTS_SNAPSHOT, NO_CLOSER_LOOK     what must not be: mutants  */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef EVENTS
#define EVENTS 2
#endif
#ifdef BATCH
#define WRITING (WRITERS + 1)  /* the last one is the batch */
#else
#define WRITING WRITERS
#endif
#define FOREIGN WRITING       /* somebody else's transaction, in another database perhaps */
#define ALL (WRITING + 1)
#define LAST (WRITING * EVENTS)
#define PRIMARY 0
#define REPLICA 1

typedef Rows { bool at[LAST + 1] };
Rows shows[2];                /* the rows that are there for others: on the primary, on the replica */
#define committed shows[PRIMARY].at
#define there shows[REPLICA].at

byte next_xid = 1;            /* of transactions, and of subtransactions */
byte next_position = 1;       /* of the sequence */
byte started;                 /* writers are alike, so the first to begin may be the first one */
byte sharing;                 /* who holds the store's advisory lock, shared */
bool exclusive;               /* somebody holds it exclusively */
byte xid[ALL];                /* of a transaction in flight; 0: it has none (any more) */
byte owner[LAST + 1];         /* of a position: 1 + who has written the row there */
byte xmin[LAST + 1];          /* of that row */
byte passed[2];               /* up to where a reader has read, of the primary and of the replica */
bool stirred;                 /* somebody has begun to write since the reader took a closer look */

#ifdef STANDBY
byte top[ALL];                /* the ids that transactions have had */
byte log[ALL];                /* 1 + who ended, in that order */
byte logged;
bool kept[ALL];               /* whether it committed */
bool ended[ALL];              /* as far as the replica has replayed */
byte completed;               /* the highest id that it knows to have ended */
byte replayed;
#endif

inline begin(who) {
    xid[who] = next_xid;
    next_xid++;
    if
    :: who != FOREIGN -> stirred = true
    :: else
    fi
#ifdef STANDBY
    top[who] = xid[who]
#endif
}

inline finish(who, keeps) {      /* the one moment at which others see what it did */
    for (p : 1 .. LAST) {
        if
        :: owner[p] == who + 1 && !committed[p] ->
            if
            :: keeps ->
                assert(p > passed[PRIMARY]);  /* or a reader has skipped it */
                committed[p] = true
            :: else -> owner[p] = 0; xmin[p] = 0
            fi
        :: else
        fi
    }
    p = 0;
#ifdef STANDBY
    if
    :: xid[who] ->
        kept[who] = keeps;
        log[logged] = who + 1;
        logged++
    :: else
    fi;
#endif
    xid[who] = 0
}

/* --- those who write ------------------------------------------------------------------------ */

/* A transaction of several messages, or the function that one message calls (one_message.py): it takes
   the same steps in the same order, with one event, and others come in between as they do here. */

proctype Writer(byte me) {
    byte p, drawn, mine[EVENTS], flushed;
    atomic { started == me && !exclusive -> sharing++; started++ }
#ifdef DRAWN_FIRST
    atomic { mine[0] = next_position; next_position++; drawn = 1 }
#endif
    atomic { begin(me) }                        /* it locks its streams, which takes an id */
    do
    :: atomic { drawn < EVENTS -> mine[drawn] = next_position; next_position++; drawn++ }
    :: atomic {                                 /* a flush: rows under a subtransaction's id */
        drawn > flushed ->
        do
        :: flushed < drawn ->
            owner[mine[flushed]] = me + 1;
#ifdef NO_SUBTRANSACTION
            xmin[mine[flushed]] = xid[me];
#else
            xmin[mine[flushed]] = next_xid;
#endif
            mine[flushed] = 0;
            flushed++
        :: else -> break
        od;
        next_xid++;
        stirred = true
      }
    :: atomic {                                 /* nothing is drawn and not written: it commits, */
        drawn == flushed -> finish(me, true); sharing--; break  /* a message that is refused too */
      }
    :: atomic { finish(me, false); sharing--; break }  /* it rolls back, or dies, at any moment */
    od;
    atomic { drawn = 0; flushed = 0; for (p : 0 .. EVENTS - 1) { mine[p] = 0 } p = 0 }
}

#ifdef BATCH
proctype Batch(byte me) {
    byte p, at, written;
    atomic { !exclusive && sharing == 0 -> exclusive = true }
    atomic {
        begin(me);
        at = 0;
        for (p : 1 .. LAST) {
            if
            :: committed[p] -> at = p
            :: else
            fi
        }
        p = 0
    }
    do
    :: atomic {
        written < EVENTS && at < LAST ->
        at++;
        owner[at] = me + 1;
        xmin[at] = xid[me];
        written++
      }
    :: atomic { written > 0 || at == LAST -> next_position = at + 1; break }  /* setval: for good */
    :: atomic { finish(me, false); exclusive = false; goto over }
    od;
    if
    :: atomic { finish(me, true); exclusive = false }
    :: atomic { finish(me, false); exclusive = false }
    fi;
over:
    atomic { at = 0; written = 0 }
}
#endif

proctype Foreign() {
    byte p;
    atomic { begin(FOREIGN) }
    atomic { finish(FOREIGN, true) }
}

/* --- those who read ------------------------------------------------------------------------- */

inline oldest(bound, who_else) {                /* the oldest id in flight; else what comes next */
    bound = next_xid;
    for (w : 0 .. who_else) {
        if
        :: xid[w] && xid[w] < bound -> bound = xid[w]
        :: else
        fi
    }
    w = 0
}

inline look(reader, bound) {             /* HEAD of settled.py, in one snapshot */
    head = passed[reader];
    last = head;
    for (p : 1 .. LAST) {
        if
        :: shows[reader].at[p] && p > last -> last = p
        :: else
        fi;
        if
#ifdef TRUSTS_SNAPSHOT
        :: shows[reader].at[p] && p > head -> head = p
#else
        :: shows[reader].at[p] && p > head && xmin[p] < bound -> head = p
#endif
        :: else
        fi
    }
    p = 0;
    do
    :: head < LAST && shows[reader].at[head + 1] -> head++
    :: else -> break
    od;
    passed[reader] = head
}

proctype Reader() {
    byte p, w, head, last, bound, counted;
end_reader:
    do
    :: atomic {
        oldest(bound, FOREIGN);
        look(PRIMARY, bound);
        if
        :: last > head
        :: else -> head = 0; last = 0; bound = 0; goto end_reader
        fi
      }
#ifdef NO_CLOSER_LOOK
        atomic {
            oldest(bound, WRITING - 1);
            stirred = bound != next_xid;
            oldest(bound, FOREIGN)
        }
#else
        atomic { counted = next_xid; stirred = false }
        atomic {                                /* who of this store is writing: pg_locks */
            oldest(bound, WRITING - 1);
            if
            :: bound == next_xid -> bound = counted
            :: else -> stirred = true           /* there is somebody to wait for */
            fi
        }
#endif
        atomic {
            look(PRIMARY, bound);
            assert(stirred || head == last);    /* or it waits for nobody */
            head = 0; last = 0; bound = 0; counted = 0
        }
    od
}

#ifdef STANDBY
proctype Replay() {
    byte p, who;
end_replay:
    do
    :: atomic {
        replayed < logged ->
        who = log[replayed] - 1;
        replayed++;
        ended[who] = true;
        if
        :: top[who] > completed -> completed = top[who]
        :: else
        fi;
        for (p : 1 .. LAST) {
            if
            :: owner[p] == who + 1 && kept[who] ->
                assert(p > passed[REPLICA]);
                there[p] = true;
                if
                :: xmin[p] > completed -> completed = xmin[p]
                :: else
                fi
            :: else
            fi
        }
        p = 0; who = 0
      }
    od
}

proctype ReplicaReader() {                      /* its snapshot: what it knows not to have ended */
    byte p, w, head, last, bound;
end_reader:
    do
    :: atomic {
        bound = completed + 1;
        for (w : 0 .. ALL - 1) {
            if
            :: top[w] && !ended[w] && top[w] < bound -> bound = top[w]
            :: else
            fi
        }
        w = 0;
        look(REPLICA, bound);
        head = 0; last = 0; bound = 0
      }
    od
}
#endif

init {
    byte n;
    atomic {
        for (n : 0 .. WRITERS - 1) { run Writer(n) }
#ifdef BATCH
        run Batch(WRITERS);
#endif
        run Foreign();
        run Reader();
#ifdef STANDBY
        run Replay();
        run ReplicaReader();
#endif
        n = 0
    }
}
