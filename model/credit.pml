/*
 * One stream under credit: a worker that sends N messages of any of three
 * sizes, the broker that counts along, and a client whose reader takes them
 * whenever it likes. Bytes are counted in units of a sixteenth of a window, so
 * that a share of it, a quarter, is 4 of them and the smallest message half of that.
 *
 * tools/model.sh checks it as it is, and with rules taken away by -DNAME.
 */
#ifndef N
#define N 5
#endif
#ifndef GROW
#define GROW 1
#endif
#define W    16			/* the window at first */
#define MAXW (GROW * 16 + W)	/* … and at the most */
#define BIG  20			/* a message larger than the first window */
#ifndef NOSHARE
#define SHARE(w) (w / 4)	/* the client keeps quiet about less */
#else
#define SHARE(w) 1
#endif
#ifdef KEEPALL
#define TELL(w) (w)
#else
#define TELL(w) (w / 4)
#endif

bool MEMORY, HONEST, STUCK;	/* false: names of what is asserted */

mtype = { PARTIAL, BLOCKED, CREDIT };

chan wb = [16] of { mtype, int };	/* worker to broker */
chan bc = [16] of { mtype, int };
chan cb = [16] of { mtype, int, int };	/* client to broker: CREDIT n, window */
chan bw = [16] of { mtype, int, int };
chan queue = [16] of { int };		/* what the reader has not taken */

int wwindow = W, sent, granted;	/* the worker's */
int left = N, next;
bool asked;
int bwindow = W, way;		/* the broker's */
int cwindow = W, taken;		/* the client's */
int reads;			/* bytes that its reader took, ever */
bool starved;			/* BLOCKED came, and nothing since */

#ifdef NOWAIT
#define MAY(out, n, w) true
#else
#define MAY(out, n, w) (out < SHARE(w) || out + n <= w)
#endif

active proctype Worker() {
	int n, w
end:	do
	:: atomic { bw ? CREDIT(n, w) ->
		granted = (granted + n < sent -> granted + n : sent);
		if :: w > wwindow -> wwindow = w :: else fi;
		asked = false }
	:: atomic { left > 0 && next == 0 ->
		if :: next = 2 :: next = 9 :: next = BIG fi;
		left-- }
	:: atomic { next > 0 && MAY(sent - granted, next, wwindow) ->
		sent = sent + next;
		/* MEMORY: what is on the way, or unread, is the window, or less than a share and one message */
		assert(MEMORY || sent - reads <= wwindow || sent - reads < wwindow / 4 + next);
		wb ! PARTIAL(next);
		next = 0 }
	:: atomic { next > 0 && !MAY(sent - granted, next, wwindow) && GROW && !asked ->
		asked = true;
		wb ! BLOCKED(0) }
	od
}

active proctype Broker() {
	int n, w
end:	do
	:: atomic { wb ? PARTIAL(n) ->
		assert(HONEST || way < bwindow / 4 || way + n <= bwindow);	/* else its worker is taken for a liar */
		way = way + n;
		bc ! PARTIAL(n) }
	:: atomic { wb ? BLOCKED(n) -> bc ! BLOCKED(0) }
	:: atomic { cb ? CREDIT(n, w) ->
#ifndef NOCOUNT
		way = (way > n -> way - n : 0);
#endif
#ifndef NOWINDOW
		if :: w > bwindow -> bwindow = w :: else fi;
#endif
		bw ! CREDIT(n, w) }
	od
}

/* widen: the worker waits, and there is nothing to read. */
inline widen() {
	starved = false;
	if
	:: cwindow < MAXW -> cwindow = cwindow * 2; cb ! CREDIT(taken, cwindow); taken = 0
	:: else -> if :: taken > 0 -> cb ! CREDIT(taken, 0); taken = 0 :: else fi
	fi
}

active proctype Client() {
	int n
	do
	:: atomic { bc ? PARTIAL(n) -> starved = false; queue ! n }
	:: atomic { bc ? BLOCKED(n) ->
		if :: empty(queue) -> widen() :: else -> starved = true fi }
	:: atomic { queue ? n ->
		reads = reads + n;
		taken = taken + n;
		if
		:: starved && empty(queue) -> widen()
		:: else -> if :: taken >= TELL(cwindow) -> cb ! CREDIT(taken, 0); taken = 0 :: else fi
		fi }
	:: atomic { timeout ->
		assert(STUCK || left == 0 && next == 0 && reads == sent);
		break }
	od
}
