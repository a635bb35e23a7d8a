/*
 * One request of one client: its broker (or two), two workers, lost messages,
 * cut connections, restarts, retry and cancel. Checked by tools/model.sh;
 * docs/model.md says what this covers, what not, and how it maps to the code.
 *
 * Every event of a machine is one atomic step. Time is not modelled: a timer
 * that must go off some day does so when nothing else moves (QUIET), and one
 * that may go off too early costs a fault (EARLY).
 */

/* ---- What is checked. The names stand in the environment variable MODEL when
 * the checker is run, so that it is compiled once for all configurations: a
 * name alone is on, -NAME is off, NAME=n is a number. ---- */
c_decl {
\#include <stdlib.h>
\#include <string.h>
	static int option(const char *name, int value) {
		const char *s = getenv("MODEL");
		size_t n = strlen(name);
		for (s = s ? s : ""; *s; s += strcspn(s, " ")) {
			s += strspn(s, " ");
			int off = *s == '-';
			if (!strncmp(s + off, name, n) && strchr(" =", s[off + n]))
				value = s[off + n] == '=' ? atoi(s + off + n + 1) : !off;
		}
		return value;
	}
};

hidden byte BROKERS;      /* 2: worker k serves broker k */
hidden byte IDEMPOTENT;
hidden byte ATTEMPTS;     /* MaxAttempts, at most 3 */
hidden byte FAULTS;       /* of all kinds together, at most 3 */
hidden byte BEATS;        /* heartbeats for the request while all is well */
/* Kinds of faults. */
hidden byte LOSS;         /* a single message vanishes, the connection stays */
hidden byte CUT;          /* the client's connection ends */
hidden byte WCUT;         /* a worker's connection ends, or the worker restarts */
hidden byte RESTART;      /* a broker is killed and starts anew */
hidden byte EARLY;        /* a liveness runs out although the peer lives */
hidden byte SHUTDOWN;     /* a broker drains, then ends and starts anew */
/* What the caller and the handler do. */
hidden byte GIVEUP;       /* the caller may cancel at any time */
hidden byte ENDLESS;      /* a handler may run until it is told to end */
hidden byte DEADLINE;     /* the time of the request may run out, at each by its own clock */
/* Mechanisms, which a mutant takes away. */
hidden byte TOKEN;        /* a reply counts under the slot's present token alone (I6) */
hidden byte LINKGEN;      /* the client hears its present connection alone */
hidden byte WINDOW;       /* ids that ended are remembered (I21) */
hidden byte ANSWERLOST;   /* a beat for a request that is not held is answered LOST */
hidden byte NOPARTIAL;    /* no retry once a partial came (I5) */
hidden byte STALL;        /* a request that is not heard of is taken from its worker (I19) */
hidden byte ADOPTCLEAN;   /* an attempt with partials is never adopted */
hidden byte DRAINSLOT;    /* a slot is busy until its worker says that it ended (I14b) */
hidden byte LIVEKEY;      /* a REQUEST for a live key creates nothing (I21) */
hidden byte OWNLINK;      /* a connection's beats and cancels touch what it asked for itself; off: what its client did */
hidden byte KEEPLIFE;     /* the life of a connection that was given up is remembered */
hidden byte NAMEATTEMPT;  /* LOST names the attempt that it is about */
hidden byte OWNBEAT;      /* LOST counts only after a beat for this attempt was sent */
hidden byte SUMOUTCOME;   /* the outcome counts what earlier attempts may have done */

/* The names of the properties, always 0: the checker prints the expression of
 * a broken assertion, and so the name. */
hidden byte C1;         /* one end of the call */
hidden byte C4;         /* told "not executed", it was not, and will not be */
hidden byte MIXED;      /* all partials and the final that a caller gets are of one dispatch */
hidden byte I4;         /* no gap before a final */
hidden byte I5;         /* nothing is dispatched after a partial was seen */
hidden byte I6;         /* a dispatch that was taken away never gives the answer */
hidden byte I9;         /* a worker holds at most its concurrency */
hidden byte I20;        /* dispatches: at most one, or MaxAttempts if idempotent */
hidden byte I21;        /* one instance of an id, and none after its final */
hidden byte ENDED;      /* nothing is dispatched after the caller had its final */
hidden byte BELIEF;     /* an attempt that is held as lost is not in progress for this connection */
hidden byte STUCK;      /* in the end the call is over, the broker idle, the workers serve */
hidden byte BOUND;      /* a limit of the model itself */

inline configure() {
	c_code {
		BROKERS = option("BROKERS", 1);
		IDEMPOTENT = option("IDEMPOTENT", 1);
		ATTEMPTS = option("ATTEMPTS", 3);
		FAULTS = option("FAULTS", 2);
		BEATS = option("BEATS", 1);
		LOSS = option("LOSS", 0);
		CUT = option("CUT", 0);
		WCUT = option("WCUT", 0);
		RESTART = option("RESTART", 0);
		EARLY = option("EARLY", 0);
		SHUTDOWN = option("SHUTDOWN", 0);
		GIVEUP = option("GIVEUP", 0);
		ENDLESS = option("ENDLESS", 0);
		DEADLINE = option("DEADLINE", 0);
		TOKEN = option("TOKEN", 1);
		LINKGEN = option("LINKGEN", 1);
		WINDOW = option("WINDOW", 1);
		ANSWERLOST = option("ANSWERLOST", 1);
		NOPARTIAL = option("NOPARTIAL", 1);
		STALL = option("STALL", 1);
		ADOPTCLEAN = option("ADOPTCLEAN", 1);
		DRAINSLOT = option("DRAINSLOT", 1);
		LIVEKEY = option("LIVEKEY", 1);
		OWNLINK = option("OWNLINK", 1);
		KEEPLIFE = option("KEEPLIFE", 1);
		NAMEATTEMPT = option("NAMEATTEMPT", 1);
		OWNBEAT = option("OWNBEAT", 0);
		SUMOUTCOME = option("SUMOUTCOME", 1);
	}
}

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

/* ---- The broker. ---- */

/* remember notes how broker b's request ended, and forgets it. */
inline remember(h) {
	k = broker[b].id;
	if
	:: broker[b].ended[k] < h -> broker[b].ended[k] = h   /* what an earlier attempt may have done still holds */
	:: else
	fi;
	broker[b].upTo[k] = broker[b].attempt;
	k = 0;
	broker[b].live = 0; broker[b].id = 0; broker[b].attempt = 0;
	broker[b].link = 0; broker[b].session = 0; broker[b].partial = 0
}

/* drain takes a request from the worker of session v. */
inline drain(v) {
	ADD(taken, token[v]);
	tellWorker(v, CANCEL, token[v]);
	if
	:: DRAINSLOT -> slot[v] = DRAIN
	:: else -> slot[v] = FREE; token[v] = 0
	fi
}

/* drop ends the request without a word to the client. */
inline drop() {
	if
	:: broker[b].live == INPROGRESS -> drain(broker[b].session); remember(MAYBE)
	:: else -> remember(NEVER)
	fi
}

inline lostWorker(v) {
	printf("@ broker forgets session %d\n", v);
	if
	:: slot[v] == BUSY ->
		ADD(taken, token[v]);
		tellClient(broker[b].link, W_ERROR, broker[b].id * 4 + broker[b].attempt);
		remember(MAYBE)
	:: else
	fi;
	slot[v] = NONE; token[v] = 0
}

inline stall(v) {
	printf("@ broker: stalled at session %d\n", v);
	tellClient(broker[b].link, W_ERROR, broker[b].id * 4 + broker[b].attempt);
	drain(v);
	remember(MAYBE)
}

/* accept takes a REQUEST in. */
inline accept() {
	assert(I21 || broker[b].live == 0);
	broker[b].live = QUEUED; broker[b].id = x / 4; broker[b].attempt = x % 4; broker[b].link = g
}

inline onRequest() {
	if
	:: broker[b].live && broker[b].id == x / 4 && LIVEKEY && known[g] ->
		if
		:: g == broker[b].link || x % 4 <= broker[b].attempt      /* creates nothing */
		:: else ->
			if
			:: broker[b].live == INPROGRESS && broker[b].partial && ADOPTCLEAN ->  /* its partials are gone: anew */
				drop();
				if
				:: broker[b].leaving -> tellClient(g, DRAINING, x)
				:: else -> accept()
				fi
			:: else ->
				if
				:: broker[b].leaving -> tellClient(g, DRAINING, x)  /* this attempt was not executed */
				:: else ->
					printf("@ broker: adopted by connection %d, attempt %d\n", g, x % 4);
					broker[b].link = g; broker[b].attempt = x % 4
				fi
			fi
		fi
	:: else ->
		how = broker[b].ended[x / 4];
		if
		:: known[g] && WINDOW && how && !(x % 4 > broker[b].upTo[x / 4] && how != YES) ->
			assert(C4 || how != NEVER || !broker[b].ran[x / 4]);
			assert(C4 || how != YES || broker[b].final[x / 4]);
			if
			:: how == YES -> tellClient(g, DUP_YES, x)
			:: how == MAYBE -> tellClient(g, DUP_MAYBE, x)
			:: how == NEVER -> tellClient(g, DUP_NO, x)
			fi
		:: else ->
			if
			:: broker[b].leaving -> tellClient(g, DRAINING, x)
			:: else -> accept()
			fi
		fi;
		how = 0
	fi
}

inline fromClient() {
	b = at[g];
	toBroker[g]?m,x;
	printf("@ broker takes, connection %d: #%d %d\n", g, m, x);
	if
	:: !known[g] && (!forgotten[g] || KEEPLIFE || m == BEAT) -> known[g] = 1   /* HELLO goes before each */
	:: else
	fi;
	if
	:: m == REQUEST -> onRequest()
	:: m == BEAT ->
		if
		:: (broker[b].live && broker[b].id == x / 4 && (broker[b].link == g || !OWNLINK)) || !ANSWERLOST
		:: else -> tellClient(g, LOST, x)
		fi
	:: m == CANCEL ->
		if
		:: broker[b].live && broker[b].id == x / 4 && (broker[b].link == g || !OWNLINK) -> drop()
		:: else
		fi
	fi
}

/* The broker finds that a client's connection is gone. */
inline goneClient() {
	printf("@ broker forgets connection %d\n", g);
	b = at[g];
	known[g] = 0; forgotten[g] = 1;
	if
	:: broker[b].live && broker[b].link == g -> drop()
	:: else
	fi
}

#define OWNS (token[s] == x || (!TOKEN && IDOF(token[s]) == IDOF(x)))

inline fromWorkers() {
	b = BROKEROF(s);
	fromWorker[s]?m,x;
	printf("@ broker takes, session %d: #%d %d\n", s, m, x);
	if
	:: m == READY ->
		if
		:: broker[b].leaving -> tellWorker(s, DISCONNECT, 0)
		:: else -> slot[s] = FREE
		fi
	:: m != READY && slot[s] == NONE -> tellWorker(s, DISCONNECT, 0)
	:: m == PARTIAL && slot[s] != NONE ->
		if
		:: slot[s] == BUSY && OWNS ->
			tellClient(broker[b].link, PARTIAL, x);
			broker[b].partial = 1; ADD(forwarded, x)
		:: else                         /* stale: counted */
		fi
	:: m == FINAL && slot[s] != NONE ->
		if
		:: slot[s] == BUSY && OWNS ->
			tellClient(broker[b].link, FINAL, x);
			broker[b].final[broker[b].id] = 1;
			remember(YES);
			slot[s] = FREE; token[s] = 0
		:: slot[s] == DRAIN && OWNS -> slot[s] = FREE; token[s] = 0
		:: else                         /* stale: counted */
		fi
	fi
}

inline dispatch() {
	runs++;
	assert(I20 || runs <= LIMIT);
	assert(C4 || !cNot);
	assert(I21 || !broker[b].final[broker[b].id]);
	assert(ENDED || BROKERS > 1 || !cDone);  /* brokers do not know of each other: */
	assert(I5 || BROKERS > 1 || cGot == 0);  /* an old REQUEST may be slow on its way to the other */
	slot[s] = BUSY; token[s] = runs;
	broker[b].live = INPROGRESS; broker[b].session = s; broker[b].partial = 0;
	broker[b].ran[broker[b].id] = 1;
	if
	:: broker[b].id -> ADD(idOf, runs)
	:: else
	fi;
	tellWorker(s, REQUEST, runs)
}

/* pump gives a queued request to a free worker at once (I13). */
#define CANTAKE(v) (slot[v] == FREE && BROKEROF(v) == b)
inline pump() {
	do
	:: broker[b].live == QUEUED && ANYSESSION(CANTAKE) ->
		if
		:: CANTAKE(0) -> s = 0
		:: CANTAKE(1) -> s = 1
		:: CANTAKE(2) -> s = 2
		:: CANTAKE(3) -> s = 3
		fi;
		if
		:: dispatch()                   /* if its connection is cut, in vain */
		:: DEAD(s) -> slot[s] = NONE    /* it was not sent: no attempt (I14a) */
		fi
	:: else -> break
	od
}

inline timeOut() {
	if
	:: broker[b].live == QUEUED -> tellClient(broker[b].link, TIMEOUT_NO, broker[b].id * 4 + broker[b].attempt)
	:: else -> tellClient(broker[b].link, TIMEOUT_MAYBE, broker[b].id * 4 + broker[b].attempt)
	fi;
	drop()
}

inline forgetSession(v) {
	if
	:: BROKEROF(v) == b ->
		if
		:: slot[v] == BUSY -> ADD(taken, token[v])
		:: else
		fi;
		slot[v] = NONE; token[v] = 0;
		do
		:: len(fromWorker[v]) > 0 -> fromWorker[v]?m,x
		:: else -> break
		od;
		if
		:: session[v % 2] == v -> wCut[v % 2] = 1
		:: else
		fi
	:: else
	fi
}

inline forgetLink(l) {
	if
	:: l <= cLink && at[l] == b ->
		cut[l] = 1; known[l] = 0; forgotten[l] = 0;
		do
		:: len(toBroker[l]) > 0 -> toBroker[l]?m,x
		:: else -> break
		od
	:: else
	fi
}

/* die: all that broker b held is gone, and its connections end. What it said
 * before may still be read. */
inline die() {
	printf("@ broker %d dies\n", b);
	forgetSession(0); forgetSession(1); forgetSession(2); forgetSession(3);
	forgetLink(0); forgetLink(1); forgetLink(2); forgetLink(3);
	broker[b].live = 0; broker[b].id = 0; broker[b].attempt = 0; broker[b].link = 0;
	broker[b].session = 0; broker[b].partial = 0; broker[b].leaving = 0;
	broker[b].ended[0] = 0; broker[b].ended[1] = 0; broker[b].upTo[0] = 0; broker[b].upTo[1] = 0;
	broker[b].ran[0] = 0; broker[b].ran[1] = 0; broker[b].final[0] = 0; broker[b].final[1] = 0
}

inline shut() {
	if
	:: broker[b].live == QUEUED -> tellClient(broker[b].link, DRAINING, broker[b].id * 4 + broker[b].attempt)
	:: broker[b].live == INPROGRESS -> tellClient(broker[b].link, LOST, broker[b].id * 4 + broker[b].attempt)
	:: else
	fi;
	die()
}

#define PICKLINK(P) if :: P(0) -> g = 0 :: P(1) -> g = 1 :: P(2) -> g = 2 :: P(3) -> g = 3 fi
#define PICKSESSION(P) if :: P(0) -> s = 0 :: P(1) -> s = 1 :: P(2) -> s = 2 :: P(3) -> s = 3 fi

#define ISBUSY(v)  (slot[v] == BUSY)
#define ISDRAIN(v) (slot[v] == DRAIN)
#define ISOURS(v)  (slot[v] != NONE && !DEAD(v))

proctype Dispatcher() {
end:	do
	:: atomic {
		if
		:: ANYLINK(B_HEAR) -> PICKLINK(B_HEAR); fromClient()
		:: ANYLINK(B_GONE) -> PICKLINK(B_GONE); goneClient()
		:: ANYSESSION(B_HEARW) -> PICKSESSION(B_HEARW); fromWorkers()
		:: ANYSESSION(B_GONEW) -> PICKSESSION(B_GONEW); b = BROKEROF(s); lostWorker(s)
		:: B_SHUT(0) -> b = 0; shut()
		:: BROKERS > 1 && B_SHUT(1) -> b = 1; shut()
		/* timers */
		:: ANYSESSION(T_STALL) && QUIET -> PICKSESSION(T_STALL); b = BROKEROF(s); stall(s)
		:: ANYSESSION(T_FREE) && QUIET -> PICKSESSION(T_FREE); b = BROKEROF(s); slot[s] = FREE; token[s] = 0
		:: DEADLINE && broker[0].live -> b = 0; timeOut()
		/* faults of its own */
		:: EARLY && FAULT && ANYSESSION(ISBUSY) -> faults++; PICKSESSION(ISBUSY); b = BROKEROF(s); stall(s)
		:: EARLY && FAULT && ANYSESSION(ISDRAIN) -> faults++; PICKSESSION(ISDRAIN); b = BROKEROF(s); slot[s] = FREE; token[s] = 0
		:: EARLY && FAULT && ANYSESSION(ISOURS) -> faults++; PICKSESSION(ISOURS); b = BROKEROF(s); lostWorker(s); tellWorker(s, DISCONNECT, 0)
		:: EARLY && FAULT && known[cLink] && !cut[cLink] -> faults++; g = cLink; goneClient()
		:: RESTART && FAULT -> faults++; b = 0; die()
		:: RESTART && FAULT && BROKERS > 1 -> faults++; b = 1; die()
		:: SHUTDOWN && FAULT && !broker[0].leaving && (BROKERS == 1 || !broker[1].leaving) -> faults++; b = 0; broker[0].leaving = 1
		:: SHUTDOWN && FAULT && BROKERS > 1 && !broker[0].leaving && !broker[1].leaving -> faults++; b = 1; broker[1].leaving = 1
		fi;
		pump();
		m = 0; x = 0; g = 0; s = 0; b = 0
	}
	od
}

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
