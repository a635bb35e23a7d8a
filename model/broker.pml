/* The broker of request.pml: dispatch*.go. */

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
