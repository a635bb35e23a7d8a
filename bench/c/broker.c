#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * A minimal honest broker: workers register with READY and take as many
 * requests at a time as they said, a service without a free worker queues,
 * each dispatch has an unguessable token, and only the worker that holds a
 * token may answer it. No heartbeats, no deadlines, no limits.
 */

#define ID_MAX 255
#define BUCKETS 4096 /* services, by hash of the name */

struct service;

struct worker {
	unsigned char id[ID_MAX];
	size_t idlen;
	int room; /* requests that it can take more */
	int listed; /* in its service's list of free workers */
	struct service *service;
	struct worker *next;
};

struct request {
	zmq_msg_t rid, data, opts; /* held while queued */
	unsigned char client[ID_MAX];
	size_t clientlen;
	char token[TOKEN_LEN];
	uint32_t slot;
	struct worker *owner; /* NULL while queued or free */
	struct service *service;
	int64_t since;
	struct request *next;
};

struct service {
	char name[ID_MAX];
	size_t len;
	struct request *head, **tail;
	struct worker *free, **freetail; /* least recently used first */
	struct service *next;
};

static void *sock;
static struct service *services[BUCKETS];
static struct request **table; /* slot → request */
static uint32_t table_len, table_cap;
static struct request *spare;
static uint64_t rng[2];

static uint64_t next_random(void)
{
	uint64_t a = rng[0], b = rng[1];

	rng[0] = b;
	a ^= a << 23;
	rng[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
	return rng[1] + b;
}

static struct service *find_service(const char *name, size_t len)
{
	uint32_t h = 2166136261u;
	struct service *s;

	if (len == 0 || len > ID_MAX)
		return NULL;
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)name[i]) * 16777619u;
	for (s = services[h % BUCKETS]; s; s = s->next)
		if (s->len == len && memcmp(s->name, name, len) == 0)
			return s;
	s = calloc(1, sizeof *s);
	if (!s)
		die("memory");
	memcpy(s->name, name, len);
	s->len = len;
	s->tail = &s->head;
	s->freetail = &s->free;
	s->next = services[h % BUCKETS];
	services[h % BUCKETS] = s;
	return s;
}

static struct request *new_request(void)
{
	struct request *r = spare;

	if (r) {
		spare = r->next;
		return r;
	}
	if (table_len == table_cap) {
		table_cap = table_cap ? 2 * table_cap : 1024;
		table = realloc(table, table_cap * sizeof *table);
		if (!table)
			die("memory");
	}
	r = calloc(1, sizeof *r);
	if (!r)
		die("memory");
	r->slot = table_len;
	table[table_len++] = r;
	return r;
}

static void free_request(struct request *r)
{
	r->owner = NULL;
	r->next = spare;
	spare = r;
}

/* The token starts with the slot, so that a reply finds its request without a search; the rest is random. */
static void new_token(struct request *r)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint32_t slot = r->slot;
	uint64_t bits = 0;

	for (int i = 0; i < 6; i++, slot >>= 6)
		r->token[i] = digits[slot & 63];
	for (int i = 6; i < TOKEN_LEN; i++) {
		if ((i - 6) % 10 == 0)
			bits = next_random();
		r->token[i] = digits[bits & 63];
		bits >>= 6;
	}
}

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static struct request *find_token(zmq_msg_t *f)
{
	const char *p = zmq_msg_data(f);
	uint32_t slot = 0;

	if (zmq_msg_size(f) != TOKEN_LEN)
		return NULL;
	for (int i = 5; i >= 0; i--) {
		int d = digit(p[i]);
		if (d < 0)
			return NULL;
		slot = slot << 6 | (uint32_t)d;
	}
	if (slot >= table_len || !table[slot]->owner || memcmp(table[slot]->token, p, TOKEN_LEN) != 0)
		return NULL;
	return table[slot];
}

static void list_free(struct worker *w)
{
	if (w->listed || w->room == 0)
		return;
	w->listed = 1;
	w->next = NULL;
	*w->service->freetail = w;
	w->service->freetail = &w->next;
}

static void dispatch(struct request *r, struct worker *w)
{
	char ext[96];
	int64_t left = 60000 - (now_ns() - r->since) / 1000000;
	int n = snprintf(ext, sizeof ext, "{\"remaining\":%d,\"attempt\":1,\"credit\":262144,\"raw\":true}", (int)left);

	new_token(r);
	r->owner = w;
	w->room--;
	if (put(sock, w->id, w->idlen, 1) < 0) {
		zmq_msg_close(&r->rid);
		zmq_msg_close(&r->data);
		zmq_msg_close(&r->opts);
		free_request(r);
		return;
	}
	put(sock, "W", 1, 1);
	put(sock, "2", 1, 1);
	put(sock, r->token, TOKEN_LEN, 1);
	move(sock, &r->rid, 1);
	move(sock, &r->data, 1);
	move(sock, &r->opts, 1);
	put(sock, ext, n, 0);
}

/* assign gives queued requests to free workers until one of the two is used up. */
static void assign(struct service *s)
{
	while (s->head && s->free) {
		struct request *r = s->head;
		struct worker *w = s->free;

		s->head = r->next;
		if (!s->head)
			s->tail = &s->head;
		s->free = w->next;
		if (!s->free)
			s->freetail = &s->free;
		w->listed = 0;
		dispatch(r, w);
		list_free(w);
	}
}

static void on_request(struct message *m)
{
	struct service *s;
	struct request *r;

	if (m->n != 7 || zmq_msg_size(&m->frame[0]) > ID_MAX ||
	    !(s = find_service(zmq_msg_data(&m->frame[3]), zmq_msg_size(&m->frame[3])))) {
		close_from(m, 0);
		return;
	}
	r = new_request();
	r->clientlen = zmq_msg_size(&m->frame[0]);
	memcpy(r->client, zmq_msg_data(&m->frame[0]), r->clientlen);
	/* A zmq_msg_t must be initialised before another is moved into it. */
	zmq_msg_init(&r->rid);
	zmq_msg_init(&r->data);
	zmq_msg_init(&r->opts);
	zmq_msg_move(&r->rid, &m->frame[4]);
	zmq_msg_move(&r->data, &m->frame[5]);
	zmq_msg_move(&r->opts, &m->frame[6]);
	close_from(m, 0);
	r->service = s;
	r->since = now_ns();
	r->owner = NULL;
	r->next = NULL;
	*s->tail = r;
	s->tail = &r->next;
	assign(s);
}

static void on_ready(struct message *m)
{
	struct worker *w;
	const char *at;
	char caps[256];
	size_t n = m->n == 5 ? zmq_msg_size(&m->frame[4]) : 0;
	struct service *s = NULL;

	if (m->n >= 4 && zmq_msg_size(&m->frame[0]) <= ID_MAX && n < sizeof caps)
		s = find_service(zmq_msg_data(&m->frame[3]), zmq_msg_size(&m->frame[3]));
	if (s) {
		w = calloc(1, sizeof *w);
		if (!w)
			die("memory");
		w->idlen = zmq_msg_size(&m->frame[0]);
		memcpy(w->id, zmq_msg_data(&m->frame[0]), w->idlen);
		w->room = 1;
		memcpy(caps, zmq_msg_data(&m->frame[m->n - 1]), n);
		caps[n] = 0;
		if ((at = strstr(caps, "\"concurrency\":")))
			w->room = atoi(at + 14);
		w->service = s;
		list_free(w);
		assign(s);
	}
	close_from(m, 0);
}

static void on_reply(struct message *m, char kind)
{
	struct request *r = m->n >= 6 ? find_token(&m->frame[3]) : NULL;
	struct worker *w = r ? r->owner : NULL;

	if (!w || zmq_msg_size(&m->frame[0]) != w->idlen || memcmp(zmq_msg_data(&m->frame[0]), w->id, w->idlen) != 0) {
		close_from(m, 0);
		return;
	}
	for (int i = 0; i < 4; i++)
		zmq_msg_close(&m->frame[i]);
	if (put(sock, r->client, r->clientlen, 1) < 0) {
		close_from(m, 4);
	} else {
		put(sock, "C", 1, 1);
		put(sock, &kind, 1, 1);
		for (int i = 4; i < m->n; i++)
			move(sock, &m->frame[i], i + 1 < m->n);
	}
	if (kind == '3') {
		free_request(r);
		w->room++;
		list_free(w);
		assign(w->service);
	}
}

int run_broker(struct options *o)
{
	struct message m;
	char endpoint[256];
	size_t n = sizeof endpoint;
	int one = 1, backlog = 1024;

	(void)o;
	srand((unsigned)now_ns());
	random_id((char *)rng, sizeof rng);
	sock = open_socket(new_context(1), ZMQ_ROUTER);
	zmq_setsockopt(sock, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
	zmq_setsockopt(sock, ZMQ_BACKLOG, &backlog, sizeof backlog);
	if (zmq_bind(sock, "tcp://127.0.0.1:*") || zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, endpoint, &n))
		die("bind");
	printf("ready %s\n", endpoint);
	for (;;) {
		recv_message(sock, &m, 0);
		if (m.n >= 3 && frame_is(&m.frame[1], 'C') && frame_is(&m.frame[2], '2'))
			on_request(&m);
		else if (m.n >= 3 && frame_is(&m.frame[1], 'W') && frame_is(&m.frame[2], '3'))
			on_reply(&m, '3');
		else if (m.n >= 3 && frame_is(&m.frame[1], 'W') && frame_is(&m.frame[2], '6'))
			on_reply(&m, '6');
		else if (m.n >= 3 && frame_is(&m.frame[1], 'W') && frame_is(&m.frame[2], '1'))
			on_ready(&m);
		else
			close_from(&m, 0);
	}
}
