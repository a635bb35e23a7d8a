/* The options of request.pml, and the names of its properties. */

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
