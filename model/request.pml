/*
 * One request of one client: its broker (or two), two workers, lost messages,
 * cut connections, restarts, retry and cancel. Checked by tools/model.sh;
 * docs/model.md says what this covers, what not, and how it maps to the code.
 *
 * Every event of a machine is one atomic step. Time is not modelled: a timer
 * that must go off some day does so when nothing else moves (QUIET), and one
 * that may go off too early costs a fault (EARLY).
 */

#include "options.pml"

#define LINKS    4                      /* connections of the client, one after another: 1 + FAULTS */
#define SESSIONS 4                      /* of workers: worker k has k, k+2, k again, … */
#define LIMIT    (IDEMPOTENT -> ATTEMPTS : 1)

mtype = {
	REQUEST, BEAT, CANCEL,              /* client to broker; REQUEST and CANCEL to the worker too */
	PARTIAL, FINAL, READY,              /* worker to broker; the first two to the client too */
	DISCONNECT,                         /* broker to worker */
	W_ERROR, LOST, DRAINING,            /* broker to client */
	DUP_YES, DUP_NO, DUP_MAYBE,         /* DUPLICATE, with what it says of executed */
	TIMEOUT_NO, TIMEOUT_MAYBE
}

/* Messages carry a type and, between client and broker, id·4+attempt (of
 * PARTIAL and FINAL: the token, which tells the id), between broker and
 * worker the token. */
chan toBroker[LINKS] = [5] of { mtype, byte };  /* by the client's connection */
chan toClient = [5] of { mtype, byte };         /* of the present one; what came on a former one is gone … */
chan stale = [4] of { mtype, byte };            /* … unless LINKGEN is taken away */
chan fromWorker[SESSIONS] = [4] of { mtype, byte };
chan toWorker[2] = [5] of { mtype, byte };      /* of the present session */

/* ---- The client (pending.go, client_session.go). ---- */
#define NEW  0                          /* not sent yet */
#define WAIT 1                          /* to be sent again */
#define OUT  2                          /* on the present connection */
#define OVER 3
byte cState = NEW;
byte cAttempt = 1;
bit  cId;                               /* 1: the fresh id that a DUPLICATE asked for */
bool cUp = true;
byte cLink;                             /* number of the present or last connection */
byte cGot;                              /* the token of the partials that the caller has */
bit  cBeat;                             /* a beat for it was sent since it was */
bit  cMaybe;                            /* an attempt before this one may have been executed */
byte cEnds;                             /* how often the caller was told an end */
bit  cDone;                             /* the end was a final of a worker */
bit  cNot;                              /* the caller was told: not executed */
byte beats;                             /* used up */
byte faults;

/* ---- Connections. ---- */
bit  cut[LINKS];                        /* nothing passes any more; each side finds out by itself */
bit  known[LINKS];                      /* the broker has an entry for it, with the client's life */
bit  forgotten[LINKS];                  /* … had one */
bit  at[LINKS];                         /* which broker is at its other end */

/* ---- Brokers (dispatch*.go). ---- */
#define QUEUED     1
#define INPROGRESS 2
typedef Broker {
	byte live;                          /* 0: holds no request */
	bit  id;
	byte attempt;
	byte link;                          /* who gets the answer */
	byte session;                       /* who works on it */
	bit  partial;                       /* a partial was forwarded */
	bit  leaving;
	byte ended[2];                      /* by id: how it ended, of those that it remembers */
	byte upTo[2];                       /* … and the highest attempt of it */
	bit  ran[2];                        /* ghost: was dispatched in this life */
	bit  final[2]                       /* ghost: had its final in this life */
}
Broker broker[2];
/* of ended */
#define NEVER 1                         /* never dispatched */
#define MAYBE 2
#define YES   3                         /* a worker's final was forwarded */

#define NONE  0                         /* not registered */
#define FREE  1
#define BUSY  2
#define DRAIN 3                         /* its request was taken away, its worker has not ended it */
byte slot[SESSIONS];
byte token[SESSIONS];                   /* of BUSY and DRAIN */

/* ---- Workers (worker_session.go). ---- */
#define NOSESSION 7
byte session[2];                        /* the present one */
bit  wCut[2];                           /* … is cut, which the worker has not seen yet */
byte hold[2];                           /* the token that it works on, 0: none */
bit  said[2];                           /* its partial went out */
bit  told[2];                           /* its context has ended */
bit  endless[2];

/* ---- Ghosts: what really happened. ---- */
byte runs;                              /* dispatches so far; the number of each is its token */
byte idOf;                              /* bit n: the id of dispatch n */
byte taken;                             /* bit n: it was taken away without a final */
byte forwarded;                         /* bit n: a partial of it was forwarded */

/* Scratch, always 0 between steps. */
mtype m; byte x; byte g; byte s; byte b; byte k; byte how;

#define HAS(set, n)   ((set >> (n)) & 1)
#define ADD(set, n)   set = set | (1 << (n))
#define BROKEROF(s)   (BROKERS == 1 -> 0 : (s) % 2)
#define DEAD(s)       (session[(s) % 2] != (s) || wCut[(s) % 2])
#define HOLDS(s)      (session[(s) % 2] == (s) && hold[(s) % 2] == token[s])
#define KEY           (cId * 4 + cAttempt)
#define IDOF(n)       HAS(idOf, n)

/* The broker holds the request as the one that this connection asked for. */
#define HELD(g)       (broker[at[g]].live && broker[at[g]].id == cId && (broker[at[g]].link == (g) || !OWNLINK))

/* The handler of this very request runs until somebody tells it to end: the
 * caller's part. */
#define CALLERSTURN   (ENDLESS && cState == OUT && cUp && !cut[cLink] && HELD(cLink) && broker[at[cLink]].live == INPROGRESS \
	&& HOLDS(broker[at[cLink]].session) && endless[broker[at[cLink]].session % 2] && !told[broker[at[cLink]].session % 2])

/* ---- What is enabled, by machine. ---- */
#define C_OPEN   (!cUp && cState != OVER)
#define C_SEND   (cUp && cState < OUT)
#define C_HEAR   (cUp && (len(toClient) > 0))
#define C_STALE  (!LINKGEN && (len(stale) > 0))
#define C_CUT    (cUp && cut[cLink])
#define B_HEAR(g)   (len(toBroker[g]) > 0)
#define B_GONE(g)   (cut[g] && known[g])
#define B_HEARW(s)  (len(fromWorker[s]) > 0)
#define B_GONEW(s)  (slot[s] != NONE && DEAD(s))
#define B_SHUT(b)   broker[b].leaving
#define W_OPEN(k)   (session[k] == NOSESSION && !broker[BROKEROF(k)].leaving)
#define W_HEAR(k)   (session[k] != NOSESSION && (len(toWorker[k]) > 0))
#define W_CUT(k)    (session[k] != NOSESSION && wCut[k])
#define W_SAY(k)    (hold[k] && !said[k] && !told[k])
#define W_END(k)    (hold[k] && (!endless[k] || told[k]))

#define ANYLINK(P)    (P(0) || P(1) || P(2) || P(3))
#define ANYSESSION(P) (P(0) || P(1) || P(2) || P(3))
#define ANYWORKER(P)  (P(0) || P(1))
#define ANYBROKER(P)  (P(0) || (BROKERS > 1 && P(1)))

/* What is on its way from the present connections, or has to be done at once.
 * Former connections may be slower than any timer. */
#define PRESENTLINK(g)    (g == cLink && cUp && B_HEAR(g))
#define PRESENTSESSION(s) (session[(s) % 2] == (s) && B_HEARW(s))
#define QUIET (!C_OPEN && !C_SEND && !C_HEAR && !C_STALE && !C_CUT && !ANYLINK(PRESENTLINK) && !ANYSESSION(PRESENTSESSION) \
	&& !ANYWORKER(W_OPEN) && !ANYWORKER(W_HEAR) && !ANYWORKER(W_CUT) && !ANYWORKER(W_END))

/* Timers that must go off. */
#define T_BEAT        (ANSWERLOST && cState == OUT && cUp && !HELD(cLink))   /* any other beat changes nothing */
#define T_STALL(s)    (STALL && slot[s] == BUSY && !HOLDS(s))
#define T_FREE(s)     (slot[s] == DRAIN && !HOLDS(s))
#define T_SILENT(k)   (session[k] != NOSESSION && slot[session[k] % SESSIONS] == NONE)
#define TIMERS (T_BEAT || ANYSESSION(T_STALL) || ANYSESSION(T_FREE) || ANYWORKER(T_SILENT) || CALLERSTURN)

#define REST (!ANYLINK(B_HEAR) && !ANYLINK(B_GONE) && !ANYSESSION(B_HEARW) && !ANYSESSION(B_GONEW) && !ANYBROKER(B_SHUT) && !TIMERS && QUIET)

#define IDLE(b)    (broker[b].live == 0)
#define SERVES(k)  (session[k] != NOSESSION && slot[session[k] % SESSIONS] == FREE && hold[k] == 0)
#define GOOD (cState == OVER && cEnds == 1 && IDLE(0) && (BROKERS == 1 || IDLE(1)) && SERVES(0) && SERVES(1))

#define FAULT (faults < FAULTS)

/* What a counterexample says, when it is replayed; tools/model.sh prints it. */

/* ---- Sending. ---- */
inline tellClient(dest, type, what) {
	if
	:: dest == cLink && cUp && !cut[dest] -> printf("@ broker to client, connection %d: #%d %d\n", dest, type, what); assert(BOUND || nfull(toClient)); toClient!type,what
	:: else                                 /* nobody hears it */
	fi
}

inline tellBroker(type) {
	if
	:: !cut[cLink] -> printf("@ client to broker, connection %d: #%d %d\n", cLink, type, KEY); assert(BOUND || nfull(toBroker[cLink])); toBroker[cLink]!type,KEY
	:: else
	fi
}

inline tellWorker(to, type, what) {
	if
	:: !DEAD(to) -> printf("@ broker to worker, session %d: #%d %d\n", to, type, what); assert(BOUND || nfull(toWorker[(to) % 2])); toWorker[(to) % 2]!type,what
	:: else
	fi
}

inline tell(from, type, what) {
	if
	:: !DEAD(from) -> printf("@ worker to broker, session %d: #%d %d\n", from, type, what); assert(BOUND || nfull(fromWorker[from])); fromWorker[from]!type,what
	:: else
	fi
}

/* ---- The client. ---- */

/* finish is the one end of the call; not tells the caller that nothing ran. */
inline finish(done, not) {
	cEnds++;
	printf("@ client: the call ends, final %d, not executed %d\n", done, not);
	assert(C1 || cEnds == 1);
	cState = OVER;
	cDone = done;
	cNot = not;
	assert(C4 || !cNot || runs == 0)
}

/* again sends the request once more if it may be, else ends it. */
inline again(may, not) {
	if
	:: may && cAttempt < ATTEMPTS -> cAttempt++; cState = WAIT
	:: else -> finish(0, not && !(SUMOUTCOME && cMaybe))
	fi
}

#define RETRY (IDEMPOTENT && (cGot == 0 || !NOPARTIAL))

/* Nothing is known of the present attempt any more. */
inline lostAttempt() {
	if
	:: RETRY && cAttempt < ATTEMPTS -> cMaybe = 1; again(1, 0)
	:: else -> finish(0, 0)
	fi
}

inline dropLink() {
	printf("@ client: connection %d is over\n", cLink);
	do
	:: len(toClient) > 0 -> toClient?m,x;
		if
		:: !LINKGEN && len(stale) < 4 -> stale!m,x
		:: else
		fi
	:: else -> break
	od;
	cUp = false; cut[cLink] = 1
}

inline hear() {
	printf("@ client takes: #%d %d\n", m, x);
	if
	:: m == PARTIAL ->
		if
		:: cState == OUT && IDOF(x) == cId ->
			assert(MIXED || cGot == 0 || cGot == x);
			cGot = x
		:: else
		fi
	:: m == FINAL ->
		if
		:: cState == OUT && IDOF(x) == cId ->
			assert(MIXED || cGot == 0 || cGot == x);
			assert(I6 || !HAS(taken, x));
			assert(I4 || !HAS(forwarded, x) || cGot == x);
			finish(1, 0)
		:: else
		fi
	:: m == W_ERROR || m == LOST ->
		if
		:: cState == OUT && x / 4 == cId && (m == W_ERROR || x % 4 == cAttempt || !NAMEATTEMPT) && (m == W_ERROR || cBeat || !OWNBEAT) ->
						assert(BELIEF || !HELD(cLink) || broker[at[cLink]].attempt != cAttempt);
			lostAttempt()
		:: else
		fi
	:: m == DRAINING ->
		if
		:: cState == OUT && x / 4 == cId -> cState = WAIT; dropLink()  /* elsewhere, at no cost */
		:: else
		fi
	:: m == DUP_YES || m == DUP_MAYBE || m == DUP_NO ->
		if
		:: cState == OUT && x / 4 == cId ->
			if
			:: IDEMPOTENT && cAttempt < ATTEMPTS -> assert(BOUND || cId == 0); cId = 1; cMaybe = cMaybe || m != DUP_NO; again(1, 0)
			:: else -> finish(0, m == DUP_NO && !(SUMOUTCOME && cMaybe))
			fi
		:: else
		fi
	:: m == TIMEOUT_NO || m == TIMEOUT_MAYBE ->
		if
		:: cState == OUT && x / 4 == cId -> finish(0, m == TIMEOUT_NO && !(SUMOUTCOME && cMaybe))
		:: else
		fi
	fi
}

/* The caller cancels, or the client's own deadline passes. */
inline giveUp() {
	if
	:: cState == OUT -> tellBroker(CANCEL); finish(0, 0)
	:: else -> finish(0, !cMaybe)
	fi
}

/* OWNBEAT takes a heartbeat for longer than an answer to the last one. */
#define UNANSWERED (toClient ?? [LOST, _] || toBroker[cLink] ?? [BEAT, _])

proctype Client() {
end:	do
	:: atomic { C_OPEN && !broker[0].leaving ->
		cLink++; assert(BOUND || cLink < LINKS); cUp = true; at[cLink] = 0 }
	:: atomic { C_OPEN && BROKERS == 2 && !broker[1].leaving ->
		cLink++; assert(BOUND || cLink < LINKS); cUp = true; at[cLink] = 1 }
	:: d_step { C_SEND -> tellBroker(REQUEST); cState = OUT; cBeat = 0 }
	:: d_step { C_HEAR -> toClient?m,x; hear(); m = 0; x = 0 }
	:: d_step { C_STALE -> stale?m,x; hear(); m = 0; x = 0 }
	:: d_step { C_CUT -> dropLink(); m = 0; x = 0;
		if
		:: cState == OUT -> lostAttempt()
		:: else
		fi }
	:: d_step { beats < BEATS && cUp && cState == OUT && (!OWNBEAT || !UNANSWERED) -> beats++; cBeat = OWNBEAT; tellBroker(BEAT) }
	:: d_step { (GIVEUP || DEADLINE) && cState != OVER && !(ENDLESS && CALLERSTURN) -> giveUp() }
	:: d_step { CALLERSTURN && QUIET -> giveUp() }
	:: d_step { T_BEAT && QUIET -> cBeat = OWNBEAT; tellBroker(BEAT) }
	od
}

#include "broker.pml"

/* ---- Workers. ---- */

#define SELF (_pid - 1)                 /* after init */
#define UNUSED(v) (slot[v] == NONE && len(fromWorker[v]) == 0)
inline openSession() {
	printf("@ worker %d: a new session\n", SELF);
	if
	:: UNUSED(SELF) -> session[SELF] = SELF
	:: else -> assert(BOUND || UNUSED(SELF + 2)); session[SELF] = SELF + 2
	fi;
	wCut[SELF] = 0;
	fromWorker[session[SELF]]!READY,0
}

/* What was held on a session that ended is over; its handler finds out. */
inline closeSession() {
	do
	:: len(toWorker[SELF]) > 0 -> toWorker[SELF]?m,x
	:: else -> break
	od;
	m = 0; x = 0;
	session[SELF] = NOSESSION; wCut[SELF] = 0;
	hold[SELF] = 0; said[SELF] = 0; told[SELF] = 0; endless[SELF] = 0
}

proctype Worker() {
end:	do
	:: d_step { W_OPEN(SELF) && (UNUSED(SELF) || UNUSED(SELF + 2)) -> openSession() }
	:: d_step { W_CUT(SELF) -> closeSession() }
	:: atomic { W_HEAR(SELF) -> toWorker[SELF]?m,x; printf("@ worker %d takes: #%d %d\n", SELF, m, x);
		if
		:: m == REQUEST ->
			if
			:: hold[SELF] == 0 -> hold[SELF] = x;
				if
				:: endless[SELF] = 0
				:: ENDLESS -> endless[SELF] = 1
				fi
			:: else -> assert(I9 || EARLY)  /* only when a timer was early; dropped */
			fi
		:: m == CANCEL ->
			if
			:: hold[SELF] == x -> told[SELF] = 1
			:: else
			fi
		:: m == DISCONNECT -> closeSession()
		fi;
		m = 0; x = 0 }
	:: d_step { W_SAY(SELF) -> tell(session[SELF], PARTIAL, hold[SELF]); said[SELF] = 1 }
	:: d_step { W_END(SELF) -> tell(session[SELF], FINAL, hold[SELF]); hold[SELF] = 0; said[SELF] = 0; told[SELF] = 0; endless[SELF] = 0 }
	:: d_step { T_SILENT(SELF) && QUIET -> closeSession() }
	od
}

/* ---- The network. ---- */

#define MAYDROP(c)  (len(c) > 0 && !c ? [PARTIAL, _] && !c ? [BEAT, _] && !(ENDLESS && c ? [CANCEL, _]))
#define LOSEB(g)    MAYDROP(toBroker[g])
#define LOSEW(s)    MAYDROP(fromWorker[s])
#define TAILB(g)    (cut[g] && B_HEAR(g))
#define TAILW(s)    (DEAD(s) && B_HEARW(s))

proctype Network() {
end:	do
	:: atomic { LOSS && FAULT && ANYLINK(LOSEB) -> faults++; PICKLINK(LOSEB); toBroker[g]?m,x; printf("@ lost, connection %d to broker: #%d %d\n", g, m, x); m = 0; x = 0; g = 0 }
	:: atomic { LOSS && FAULT && ANYSESSION(LOSEW) -> faults++; PICKSESSION(LOSEW); fromWorker[s]?m,x; printf("@ lost, session %d to broker: #%d %d\n", s, m, x); m = 0; x = 0; s = 0 }
	:: d_step { LOSS && FAULT && MAYDROP(toClient) -> faults++; toClient?m,x; printf("@ lost from broker: #%d %d\n", m, x); m = 0; x = 0 }
	:: d_step { LOSS && FAULT && MAYDROP(toWorker[0]) -> faults++; toWorker[0]?m,x; printf("@ lost from broker: #%d %d\n", m, x); m = 0; x = 0 }
	:: d_step { LOSS && FAULT && MAYDROP(toWorker[1]) -> faults++; toWorker[1]?m,x; printf("@ lost from broker: #%d %d\n", m, x); m = 0; x = 0 }
	:: d_step { CUT && FAULT && cUp && !cut[cLink] -> faults++; printf("@ cut: the client's connection %d\n", cLink); cut[cLink] = 1 }
	:: d_step { WCUT && FAULT && session[0] != NOSESSION && !wCut[0] -> faults++; printf("@ cut: worker 0\n"); wCut[0] = 1 }
	:: d_step { WCUT && FAULT && session[1] != NOSESSION && !wCut[1] -> faults++; printf("@ cut: worker 1\n"); wCut[1] = 1 }
	/* The rest of what was sent on a connection that ended. */
	:: atomic { ANYLINK(TAILB) -> PICKLINK(TAILB);
		do
		:: len(toBroker[g]) > 0 -> toBroker[g]?m,x
		:: else -> break
		od;
		m = 0; x = 0; g = 0 }
	:: atomic { ANYSESSION(TAILW) -> PICKSESSION(TAILW);
		do
		:: len(fromWorker[s]) > 0 -> fromWorker[s]?m,x
		:: else -> break
		od;
		m = 0; x = 0; s = 0 }
	od
}

/* When nothing moves and no timer is left, all must be over: the request has
 * ended once, the broker holds nothing, the workers serve. */
proctype Rest() {
	do
	:: !GOOD && REST -> assert(STUCK)
	:: GOOD && REST -> progress: skip   /* no deadlock, and no harm that it goes on for ever */
	od
}

init {
	atomic {
		configure();
		session[0] = NOSESSION; session[1] = NOSESSION;
		run Worker(); run Worker(); run Client(); run Dispatcher(); run Network(); run Rest()
	}
}
