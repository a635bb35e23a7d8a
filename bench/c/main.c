#include "stack.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
	fprintf(stderr, "cstack: %s: %s\n", what, zmq_strerror(zmq_errno()));
	_exit(1);
}

int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void random_id(char *to, int n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned char raw[64];

	if (n > (int)sizeof raw || getrandom(raw, n, 0) != n)
		die("random id");
	for (int i = 0; i < n; i++)
		to[i] = digits[raw[i] & 63];
}

void *new_context(int sockets)
{
	void *ctx = zmq_ctx_new();

	if (!ctx)
		die("context");
	if (sockets > 1000 && zmq_ctx_set(ctx, ZMQ_MAX_SOCKETS, sockets + 10) != 0)
		die("ZMQ_MAX_SOCKETS");
	return ctx;
}

void *open_socket(void *ctx, int type)
{
	void *s = zmq_socket(ctx, type);
	int zero = 0;

	if (!s)
		die("socket");
	/* What is in flight is bounded by the client, so no high water mark is needed. */
	if (zmq_setsockopt(s, ZMQ_SNDHWM, &zero, sizeof zero) || zmq_setsockopt(s, ZMQ_RCVHWM, &zero, sizeof zero) ||
	    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero))
		die("socket options");
	return s;
}

void *dial(void *ctx, const char *endpoint, char id[LIFE_LEN + 1])
{
	void *s = open_socket(ctx, ZMQ_DEALER);

	random_id(id, LIFE_LEN);
	id[LIFE_LEN] = 0;
	if (zmq_setsockopt(s, ZMQ_ROUTING_ID, id, LIFE_LEN))
		die("routing id");
	if (zmq_connect(s, endpoint))
		die("connect");
	return s;
}

int recv_message(void *s, struct message *m, int flags)
{
	m->n = 0;
	for (;;) {
		zmq_msg_t *f = &m->frame[m->n];
		zmq_msg_init(f);
		while (zmq_msg_recv(f, s, flags) < 0) {
			if (errno == EAGAIN)
				return -1;
			if (errno != EINTR)
				die("receive");
		}
		m->n++;
		if (!zmq_msg_more(f))
			return 0;
		if (m->n == MAX_FRAMES)
			die("a message of too many frames");
	}
}

void close_from(struct message *m, int first)
{
	for (int i = first; i < m->n; i++)
		zmq_msg_close(&m->frame[i]);
}

int frame_is(zmq_msg_t *f, char c)
{
	return zmq_msg_size(f) == 1 && *(char *)zmq_msg_data(f) == c;
}

int put(void *s, const void *p, size_t n, int more)
{
	while (zmq_send(s, p, n, more ? ZMQ_SNDMORE : 0) < 0) {
		if (errno == EHOSTUNREACH)
			return -1;
		if (errno != EINTR)
			die("send");
	}
	return 0;
}

int move(void *s, zmq_msg_t *f, int more)
{
	while (zmq_msg_send(f, s, more ? ZMQ_SNDMORE : 0) < 0) {
		if (errno == EHOSTUNREACH)
			return -1;
		if (errno != EINTR)
			die("send");
	}
	return 0;
}

/* The harness holds the other end of our standard input: when it is gone, so are we. */
static void *watch_stdin(void *unused)
{
	char b[64];
	ssize_t n;

	(void)unused;
	do
		n = read(0, b, sizeof b);
	while (n > 0 || (n < 0 && errno == EINTR));
	_exit(0);
}

static int number(const char *name, const char *value)
{
	char *end;
	long n = strtol(value, &end, 10);

	if (*value == 0 || *end != 0 || n < 0 || n > 10000000) {
		fprintf(stderr, "cstack: %s: bad number %s\n", name, value);
		exit(2);
	}
	return (int)n;
}

int main(int argc, char **argv)
{
	struct options o = {.inflight = 1, .size = 16, .services = 1, .warm_ms = 100, .measure_ms = 500, .concurrency = 1000, .clients = 1};
	struct {
		const char *name;
		int *to;
	} numbers[] = {
		{"inflight", &o.inflight}, {"size", &o.size}, {"services", &o.services}, {"first", &o.first},
		{"partials", &o.partials}, {"queue", &o.queue}, {"warm-ms", &o.warm_ms}, {"measure-ms", &o.measure_ms},
		{"concurrency", &o.concurrency}, {"clients", &o.clients},
	};
	pthread_t watch;
	struct rlimit files;

	if (argc == 2 && strcmp(argv[1], "version") == 0) {
		int major, minor, patch;
		zmq_version(&major, &minor, &patch);
		printf("%d.%d.%d\n", major, minor, patch);
		return 0;
	}
	if (argc < 2) {
		fprintf(stderr, "usage: cstack broker|worker|client|idle|version [name=value]...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		char *eq = strchr(argv[i], '=');
		size_t k = 0, count = sizeof numbers / sizeof *numbers;
		if (eq == NULL) {
			fprintf(stderr, "cstack: %s: want name=value\n", argv[i]);
			return 2;
		}
		*eq = 0;
		if (strcmp(argv[i], "endpoint") == 0) {
			o.endpoint = eq + 1;
			continue;
		}
		if (strcmp(argv[i], "service") == 0) {
			o.service = eq + 1;
			continue;
		}
		while (k < count && strcmp(numbers[k].name, argv[i]) != 0)
			k++;
		if (k == count) {
			fprintf(stderr, "cstack: unknown option %s\n", argv[i]);
			return 2;
		}
		*numbers[k].to = number(argv[i], eq + 1);
	}
	if (o.services < 1 || o.inflight < 1 || (o.endpoint == NULL && strcmp(argv[1], "broker") != 0)) {
		fprintf(stderr, "cstack: want endpoint, services and inflight of at least 1\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (pthread_create(&watch, NULL, watch_stdin, NULL))
		die("thread");
	if (strcmp(argv[1], "broker") == 0)
		return run_broker(&o);
	if (strcmp(argv[1], "worker") == 0)
		return run_worker(&o);
	if (strcmp(argv[1], "client") == 0)
		return run_client(&o);
	if (strcmp(argv[1], "idle") == 0)
		return run_idle(&o);
	fprintf(stderr, "cstack: unknown role %s\n", argv[1]);
	return 2;
}
