#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The client keeps a number of requests in flight from one thread. With one
 * it is a serial loop. It counts the finals of the measured time and takes
 * latencies of a sample of them.
 */

#define SAMPLES (1 << 20)

static char life[LIFE_LEN + 1];
static char (*names)[16];
static char *data; /* the payload as a JSON string */
static size_t data_len;
static uint64_t sent;
static int64_t *started; /* by request number, as many as can be in flight, a power of two */
static uint64_t mask;
static uint32_t *sample_us100; /* latencies in units of 10 ns */
static int samples;

static void build(struct options *o)
{
	uint64_t room = 1;

	while (room < (uint64_t)o->inflight + 1)
		room *= 2;
	mask = room - 1;
	started = calloc(room, sizeof *started);
	sample_us100 = calloc(SAMPLES, sizeof *sample_us100);
	names = calloc(o->services, sizeof *names);
	data_len = o->size + 2;
	data = malloc(data_len);
	if (!started || !sample_us100 || !names || !data)
		die("memory");
	for (int i = 0; i < o->services; i++)
		snprintf(names[i], sizeof names[i], "s%d", i);
	for (size_t i = 0; i < data_len; i++)
		data[i] = 'a' + i % 26;
	data[0] = data[data_len - 1] = '"';
}

static void send_request(void *s, const char *service, size_t len)
{
	char rid[RID_LEN];
	uint64_t n = sent;

	memcpy(rid, life, LIFE_LEN);
	rid[LIFE_LEN] = '-';
	for (int i = RID_LEN - 1; i > LIFE_LEN; i--, n /= 10)
		rid[i] = '0' + n % 10;
	started[sent & mask] = now_ns();
	sent++;
	put(s, "C", 1, 1);
	put(s, "2", 1, 1);
	put(s, service, len, 1);
	put(s, rid, RID_LEN, 1);
	put(s, data, data_len, 1);
	put(s, "{}", 2, 0);
}

static void send_next(void *s, struct options *o)
{
	const char *name = names[sent % (uint64_t)o->services];

	send_request(s, name, strlen(name));
}

/* await receives C|3|rid|payload and gives the request's number; partials go to *partials. */
static uint64_t await(void *s, size_t want, int *partials)
{
	for (;;) {
		struct message m;
		uint64_t n = 0;
		char *rid;
		int final;

		recv_message(s, &m, 0);
		if (m.n < 4 || !frame_is(&m.frame[0], 'C') || zmq_msg_size(&m.frame[2]) != RID_LEN) {
			fprintf(stderr, "cstack: unexpected message of %d frames\n", m.n);
			exit(1);
		}
		rid = zmq_msg_data(&m.frame[2]);
		final = frame_is(&m.frame[1], '3');
		if (memcmp(rid, life, LIFE_LEN) != 0 ||
		    (final && (zmq_msg_size(&m.frame[3]) != want || memcmp(zmq_msg_data(&m.frame[3]), "{\"status\":200,", 14) != 0))) {
			fprintf(stderr, "cstack: a reply that is not ours or not good\n");
			exit(1);
		}
		for (int i = LIFE_LEN + 1; i < RID_LEN; i++)
			n = n * 10 + (uint64_t)(rid[i] - '0');
		close_from(&m, 0);
		if (final)
			return n;
		++*partials;
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile(double p)
{
	int i = samples ? (int)(p * (samples - 1) + 0.5) : 0;

	return samples ? sample_us100[i] / 100.0 : 0;
}

int run_client(struct options *o)
{
	void *s;
	uint64_t count = 0, warm = 0, every = o->inflight >= 100 ? 8 : 1;
	size_t want = o->size + 2 + 21; /* {"status":200,"msg":…} around the data */
	int64_t begin, from, until;
	int partials = 0;

	build(o);
	s = dial(new_context(1), o->endpoint, life);
	printf("ready\n");
	for (int i = 0; i < o->inflight; i++)
		send_next(s, o);
	if (o->queue) {
		/*
		 * Messages of one client arrive in order, so when the ping is answered the
		 * broker has all the others in its queue; their worker comes only then.
		 */
		send_request(s, "ping", 4);
		await(s, want, &partials);
		printf("filled\n");
		/* The queue's own worker answers from here on; its first final starts the clock. */
		await(s, want, &partials);
		send_next(s, o);
	}
	printf("begin\n"); /* the harness begins to count the processes' CPU time */
	begin = now_ns();
	from = begin + (int64_t)o->warm_ms * 1000000;
	until = from + (int64_t)o->measure_ms * 1000000;
	for (;;) {
		uint64_t n = await(s, want, &partials);
		int64_t now = now_ns();

		if (partials != o->partials) {
			fprintf(stderr, "cstack: %d partials instead of %d\n", partials, o->partials);
			exit(1);
		}
		partials = 0;
		if (now >= until)
			break;
		if (now < from) {
			warm++;
		} else {
			count++;
			if (n % every == 0 && samples < SAMPLES)
				sample_us100[samples++] = (uint32_t)((now - started[n & mask]) / 10);
		}
		send_next(s, o);
	}
	qsort(sample_us100, samples, sizeof *sample_us100, by_value);
	printf("{\"count\":%llu,\"total\":%llu,\"seconds\":%.6f,\"p50_us\":%.2f,\"p99_us\":%.2f}\n", (unsigned long long)count,
	       (unsigned long long)(warm + count), o->measure_ms / 1000.0, percentile(0.50), percentile(0.99));
	fflush(stdout);
	for (;;)
		zmq_poll(NULL, 0, 1000); /* until standard input ends */
}

/* run_idle opens connections, makes sure of each by one request, and then says nothing more. */
int run_idle(struct options *o)
{
	void *ctx = new_context(o->clients), **socks = calloc(o->clients, sizeof *socks);
	char (*ids)[LIFE_LEN + 1] = calloc(o->clients, sizeof *ids);
	int partials = 0;

	o->inflight = 1;
	build(o);
	if (!socks || !ids)
		die("memory");
	for (int i = 0; i < o->clients; i++) {
		socks[i] = dial(ctx, o->endpoint, ids[i]);
		memcpy(life, ids[i], LIFE_LEN);
		send_next(socks[i], o);
	}
	for (int i = 0; i < o->clients; i++) {
		memcpy(life, ids[i], LIFE_LEN);
		await(socks[i], (size_t)o->size + 2 + 21, &partials);
	}
	printf("ready\n");
	for (;;)
		zmq_poll(NULL, 0, 1000);
}
