#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* One process serves one or several services, each on a connection of its own, as MDP wants it. */

static char *body; /* the reply's payload, grown as needed */
static size_t body_cap;

static void send_head(void *s, const char *kind, struct message *m, int last)
{
	zmq_msg_t cid, rid;

	put(s, "W", 1, 1);
	put(s, kind, 1, 1);
	if (last) {
		move(s, &m->frame[2], 1);
		move(s, &m->frame[3], 1);
		return;
	}
	zmq_msg_init(&cid);
	zmq_msg_init(&rid);
	zmq_msg_copy(&cid, &m->frame[2]);
	zmq_msg_copy(&rid, &m->frame[3]);
	move(s, &cid, 1);
	move(s, &rid, 1);
}

/* on_request answers W|2|cid|rid|data|options|extension with the data as it came. */
static void on_request(void *s, struct message *m, struct options *o)
{
	static const char head[] = "{\"status\":200,\"msg\":";
	size_t n = zmq_msg_size(&m->frame[4]), want = sizeof head + n;
	const char *data = zmq_msg_data(&m->frame[4]);

	for (int i = 0; i < o->partials; i++) {
		send_head(s, "6", m, 0);
		put(s, "b", 1, 1);
		put(s, n > 2 ? data + 1 : data, n > 2 ? n - 2 : n, 0);
	}
	if (want > body_cap) {
		body = realloc(body, want);
		if (!body)
			die("memory");
		body_cap = want;
	}
	memcpy(body, head, sizeof head - 1);
	memcpy(body + sizeof head - 1, data, n);
	body[sizeof head - 1 + n] = '}';
	send_head(s, "3", m, 1);
	put(s, body, sizeof head + n, 0);
	zmq_msg_close(&m->frame[0]);
	zmq_msg_close(&m->frame[1]);
	close_from(m, 4);
}

static int serve(void *s, struct options *o, int flags)
{
	struct message m;

	if (recv_message(s, &m, flags) < 0)
		return -1;
	if (m.n == 7 && frame_is(&m.frame[0], 'W') && frame_is(&m.frame[1], '2'))
		on_request(s, &m, o);
	else
		close_from(&m, 0);
	return 0;
}

int run_worker(struct options *o)
{
	void *ctx = new_context(o->services), **socks = calloc(o->services, sizeof *socks);
	int ep = epoll_create1(0);
	char id[LIFE_LEN + 1], name[64], caps[96];

	if (!socks || ep < 0)
		die("worker");
	for (int i = 0; i < o->services; i++) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
		int fd;
		size_t n = sizeof fd;

		socks[i] = dial(ctx, o->endpoint, id);
		snprintf(name, sizeof name, "s%d", o->first + i);
		put(socks[i], "W", 1, 1);
		put(socks[i], "1", 1, 1);
		if (o->service)
			put(socks[i], o->service, strlen(o->service), 1);
		else
			put(socks[i], name, strlen(name), 1);
		put(socks[i], caps, snprintf(caps, sizeof caps, "{\"v\":1,\"id\":\"%s\",\"concurrency\":%d}", id, o->concurrency), 0);
		if (zmq_getsockopt(socks[i], ZMQ_FD, &fd, &n) || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
			die("descriptor");
	}
	printf("ready\n");
	if (o->services == 1)
		for (;;)
			serve(socks[0], o, 0);
	/*
	 * The descriptors say only that something happened to the socket, so each
	 * one that fires is served until it has nothing more: that also takes
	 * what arrived while we sent.
	 */
	for (int i = 0; i < o->services; i++)
		while (serve(socks[i], o, ZMQ_DONTWAIT) == 0)
			;
	for (;;) {
		struct epoll_event ev[64];
		int n = epoll_wait(ep, ev, 64, -1);

		for (int i = 0; i < n; i++)
			while (serve(socks[ev[i].data.u32], o, ZMQ_DONTWAIT) == 0)
				;
	}
}
