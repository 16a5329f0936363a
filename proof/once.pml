/* One message a command: it is carried out once, and on nothing that has moved.

   A client decides on a row that it remembers, and sends one message: the function of
   eventstore/engines/postgres/one_message.py carries it out. The line may break at any moment; what
   was sent may arrive late, or never. Then the client clears up (EventStore._clear_up), while others
   write to the same stream. Each `atomic` is what one statement, or the server itself, does at once.

   What may be defined:
     OTHERS              how many others write, each something else, or the very same
     NO_CHECK, NO_LOCK, NO_LOOK     what must not be: mutants  */

#ifndef OTHERS
#define OTHERS 2
#endif

byte row = 1;                 /* the position of the event that changed it last */
byte next_position = 2;
bool locked;                  /* the stream, and with it the row */
bool same;                    /* an event behind `decided` says what the client's does */
byte decided;                 /* the position of the row that the client remembers */
byte ours;                    /* how often the client's event was written */
bool sent, ended, refused;    /* what has become of the message, as far as the server knows */
bool answered;                /* the caller has got its answer */

inline change() {
    row = next_position;
    next_position++
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
        :: atomic { change(); ours++; same = true }  /* it commits */
        :: true                                 /* it fails, or the server dies */
        fi
    fi;
    locked = false;
over:
    ended = true
}

proctype Client() {
    bool found;
    atomic { decided = row; sent = true; run Message() }
    if
    :: atomic { ended && ours > 0 -> answered = true; goto over }
    :: ended && refused                         /* it has heard so: it does it in a transaction */
    :: true                                     /* the line has broken, at any moment */
    fi;
#ifdef NO_LOCK
    found = same;
#endif
    atomic { !locked -> locked = true }
#ifdef NO_LOOK
    found = false;
#else
#ifndef NO_LOCK
    found = same;
#endif
#endif
    if
    :: found
    :: !found -> atomic { change(); ours++; same = true }
    fi;
    answered = true;
    locked = false;
over:
    assert(same)                                /* what is acknowledged stands there */
}

proctype Other() {
    atomic { !locked -> locked = true }
    if
    :: atomic { change() }
    :: atomic { sent && !same -> change(); same = true }  /* who finds it said has nothing to say */
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
