/* One message a command: it is carried out once, and on nothing that has moved.

   A client decides on a row that it remembers, and sends one message: the function of
   eventstore/engines/postgres/one_message.py carries it out. The line may break at any moment; what
   was sent may arrive late, or never. Then the client clears up (EventStore._clear_up), while others
   write to the same stream. Each `atomic` is what one statement, or the server itself, does at once.

   What may be defined:
     OTHERS              how many others write, each something else, or the very same
     NO_CHECK, NO_LOCK, NO_LOOK, NO_MORE     what must not be: mutants  */

#ifndef OTHERS
#define OTHERS 2
#endif

byte row = 1;                 /* the position of the event that changed it last */
byte next_position = 2;
bool locked;                  /* the stream, and with it the row */
byte said;                    /* the position of the last event that says what the client's does */
byte decided = 1;             /* the position of the row that the client remembers: it may have moved */
byte ours;                    /* how often the client's event was written */
bool called, ended, refused;  /* what has become of the message, as far as the server knows */
bool held;                    /* since the call there was a moment at which the row said so */

inline change(saying) {
    row = next_position;
    next_position++;
    if
    :: saying -> said = row; held = held || called
    :: else
    fi
}

proctype Message() {
    if
    :: atomic { !locked -> locked = true }
    :: goto over                                /* it never arrives */
    fi;
    if
#ifndef NO_CHECK
    :: row != decided -> refused = true
    :: row == decided ->
#else
    :: true ->
#endif
        if
        :: atomic { change(true); ours++ }        /* it commits */
        :: true                                 /* it fails, or the server dies */
        fi
    fi;
    locked = false;
over:
    ended = true
}

proctype Client() {
    byte found;
    atomic { called = true; held = said == row; run Message() }
    if
    :: atomic { ended && ours > 0 -> goto over }
    :: ended && refused                         /* it has heard so: it does it in a transaction */
    :: true                                     /* the line has broken, at any moment */
    fi;
#ifdef NO_LOCK
    found = said;
#endif
    atomic { !locked -> locked = true }
#ifndef NO_LOCK
#ifndef NO_LOOK
    found = said;
#endif
#endif
    if
    :: found <= decided -> atomic { change(true); ours++ }
#ifdef NO_MORE
    :: found > decided
#else
    :: found > decided && found == row          /* it stands */
    :: found > decided && found != row -> locked = false; goto unknown
#endif
    fi;
    locked = false;
over:
    assert(held);                               /* what is acknowledged is so, and not only before */
unknown:
    found = 0
}

proctype Other() {
    atomic { !locked -> locked = true }
    if
    :: atomic { change(false) }
    :: atomic { said != row -> change(true) }   /* who finds it said has nothing to say */
    fi;
    locked = false
}

proctype Watch() {
    assert(ours <= 1)
}

init {
    byte n;
    atomic {
        for (n : 1 .. OTHERS) { run Other() }
        run Client();
        run Watch();
        n = 0
    }
}
