/*
 * The same work as the omdp stack, in plain C on libzmq: the limit that this
 * wire and this transport allow. One program, four roles, each in a process
 * of its own. The frames are those of OMDP between omdp's own peers.
 *
 * Every role says "ready" on standard output when it can be used and ends
 * when its standard input does, so that nothing outlives the harness.
 */
#ifndef STACK_H
#define STACK_H

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#define MAX_FRAMES 16
#define TOKEN_LEN 26 /* the cid: the dispatch token of a request */
#define LIFE_LEN 22  /* the random id of a peer's life, also its routing id */
#define RID_LEN 33   /* life id, '-', ten digits */

struct options {
	const char *endpoint;
	int inflight;    /* requests that the client keeps in flight */
	int size;        /* bytes of payload inside the JSON string */
	int services;    /* services s0..s(n-1), asked in turn */
	int first;       /* worker: number of its first service */
	int partials;    /* partials in front of each final */
	int queue;       /* the worker comes only when all requests are queued at the broker */
	int warm_ms;     /* time before counting starts */
	int measure_ms;  /* time that is counted */
	int concurrency; /* requests that a worker takes at a time */
	int clients;     /* idle: connections of this process */
	const char *service; /* worker: a service by name instead of s(first).. */
};

/* A message received whole. Frames are ours until sent on or closed. */
struct message {
	zmq_msg_t frame[MAX_FRAMES];
	int n;
};

void die(const char *what);
void *new_context(int sockets);
void *open_socket(void *ctx, int type);
void *dial(void *ctx, const char *endpoint, char id[LIFE_LEN + 1]);
void random_id(char *to, int n);
int64_t now_ns(void);

/* recv_message gives 0 and the message, or -1 when there is none (flags ZMQ_DONTWAIT). */
int recv_message(void *s, struct message *m, int flags);
void close_from(struct message *m, int first);
int frame_is(zmq_msg_t *f, char c);

/* One frame copied in; more says that others follow. -1: the peer is not there. */
int put(void *s, const void *p, size_t n, int more);
/* One frame moved: libzmq takes it over and nothing is copied. */
int move(void *s, zmq_msg_t *f, int more);

int run_broker(struct options *o);
int run_worker(struct options *o);
int run_client(struct options *o);
int run_idle(struct options *o);

#endif
