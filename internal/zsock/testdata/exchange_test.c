/* Drives the C function of internal/zsock by hand, for valgrind (tools/
 * valgrind.sh): Go's runtime and valgrind do not go together. Every buffer is
 * of exactly the size that is needed, so that one byte too far is seen. */

#include "../exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int checks, failures;

#define CHECK(cond)                                                            \
    do {                                                                       \
        checks++;                                                              \
        if (!(cond)) {                                                         \
            failures++;                                                        \
            fprintf(stderr, "exchange_test.c:%d: %s does not hold\n", __LINE__, #cond); \
        }                                                                      \
    } while (0)

enum { KEEP = 4 };

/* batch is what internal/batch packs: for each message the number of frames,
 * then for each frame its length and its bytes. */
typedef struct {
    uint8_t *p;
    size_t len;
    uint32_t msgs;
} batch;

static void add32(batch *b, uint32_t v) {
    b->p = realloc(b->p, b->len + 4);
    memcpy(b->p + b->len, &v, 4);
    b->len += 4;
}

static void begin(batch *b, uint32_t frames) {
    add32(b, frames);
    b->msgs++;
}

static void frame(batch *b, const void *p, uint32_t n) {
    add32(b, n);
    b->p = realloc(b->p, b->len + n);
    if (n > 0)
        memcpy(b->p + b->len, p, n);
    b->len += n;
}

static void text(batch *b, const char *s) { frame(b, s, (uint32_t)strlen(s)); }

static void drop(batch *b) {
    free(b->p);
    memset(b, 0, sizeof *b);
}

/* send gives the batch to s and checks each result. */
static void send_all(zs_state *s, batch *b, uint8_t want) {
    uint8_t *results = calloc(b->msgs, 1), in[1];
    zs_exchange(s, b->p, b->msgs, results, in, 0);
    for (uint32_t i = 0; i < b->msgs; i++)
        CHECK(results[i] == want);
    free(results);
    drop(b);
}

/* take receives with room for cap bytes and returns them; tries until
 * something is there, as inproc has a thread in between. */
static uint8_t *take(zs_state *s, size_t cap) {
    uint8_t *in = malloc(cap ? cap : 1);
    for (int i = 0; i < 10000; i++) {
        zs_exchange(s, NULL, 0, NULL, in, cap);
        if (s->in_len > 0 || s->need > 0 || s->error)
            return in;
        usleep(1000);
    }
    CHECK(!"something came within 10 s");
    return in;
}

static uint32_t get(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* is checks one packed message at p, frame by frame, and returns its end. */
static const uint8_t *is(const uint8_t *p, uint32_t n, const char *const *want) {
    CHECK(get(p) == n);
    p += 4;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len = get(p);
        CHECK(len == strlen(want[i]) && memcmp(p + 4, want[i], len) == 0);
        p += 4 + len;
    }
    return p;
}

static size_t packed_size(uint32_t n, const char *const *frames) {
    size_t size = 4;
    for (uint32_t i = 0; i < n; i++)
        size += 4 + strlen(frames[i]);
    return size;
}

static void *open_socket(void *ctx, int type, int hwm) {
    void *z = zmq_socket(ctx, type);
    int one = 1, zero = 0;
    zmq_setsockopt(z, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(z, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(z, ZMQ_RCVHWM, &hwm, sizeof hwm);
    if (type == ZMQ_ROUTER)
        zmq_setsockopt(z, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
    return z;
}

typedef struct {
    void *ctx, *zr, *zd;
    zs_state *router, *dealer;
} pair;

static pair open_pair(int hwm) {
    pair p;
    p.ctx = zmq_ctx_new();
    p.zr = open_socket(p.ctx, ZMQ_ROUTER, hwm);
    p.zd = open_socket(p.ctx, ZMQ_DEALER, hwm);
    zmq_setsockopt(p.zd, ZMQ_ROUTING_ID, "peer", 4);
    CHECK(zmq_bind(p.zr, "inproc://x") == 0);
    CHECK(zmq_connect(p.zd, "inproc://x") == 0);
    p.router = zs_open(p.zr, 1, KEEP);
    p.dealer = zs_open(p.zd, 0, KEEP);
    return p;
}

static void close_pair(pair *p) {
    if (p->router)
        zs_free(p->router);
    if (p->dealer)
        zs_free(p->dealer);
    if (p->zr)
        zmq_close(p->zr);
    if (p->zd)
        zmq_close(p->zd);
    zmq_ctx_term(p->ctx);
}

/* greet lets the ROUTER learn of the DEALER. */
static void greet(pair *p) {
    batch b = {0};
    begin(&b, 1);
    text(&b, "hi");
    send_all(p->dealer, &b, ZS_SENT);
    uint8_t *in = take(p->router, 1 << 10);
    static const char *const want[] = {"peer", "hi"};
    is(in, 2, want);
    free(in);
}

static void test_types(void) {
    pair p = open_pair(10);
    CHECK(zs_type(p.zr) == ZMQ_ROUTER);
    CHECK(zs_type(p.zd) == ZMQ_DEALER);
    uint64_t not_a_socket[64] = {0};
    CHECK(zs_type(not_a_socket) == -1);
    CHECK((zs_events(p.dealer) & ZMQ_POLLIN) == 0);
    close_pair(&p);
}

/* Batches of messages with one frame, many, empty ones, in both directions. */
static void test_batches(void) {
    pair p = open_pair(1000);
    greet(&p);
    static const char *const first[] = {"peer", "a", "bc", ""}, *const second[] = {"peer", ""}, *const third[] = {"peer", "", "", "x"};
    size_t size = packed_size(4, first) + packed_size(2, second) + packed_size(4, third);
    for (int direction = 0; direction < 2; direction++) {
        batch b = {0};
        const char *const *all[] = {first, second, third};
        const uint32_t n[] = {4, 2, 4};
        for (int m = 0; m < 3; m++) {
            begin(&b, n[m] - (direction == 0));
            for (uint32_t i = direction == 0; i < n[m]; i++)
                text(&b, all[m][i]);
        }
        send_all(direction == 0 ? p.dealer : p.router, &b, ZS_SENT);
        CHECK((direction == 0 ? p.dealer : p.router)->sent == 3);
        zs_state *at = direction == 0 ? p.router : p.dealer;
        size_t got = 0, want = direction == 0 ? size : size - 3 * (4 + strlen("peer"));
        uint8_t *in = malloc(want);
        for (int i = 0; i < 10000 && got < want; i++) {
            zs_exchange(at, NULL, 0, NULL, in + got, want - got);
            got += at->in_len;
            CHECK(at->error == 0);
            if (at->in_len == 0)
                usleep(1000);
        }
        CHECK(got == want);
        if (got == want) {
            const uint8_t *q = in;
            for (int m = 0; m < 3; m++)
                q = is(q, n[m] - direction, all[m] + direction);
            CHECK(q == in + want);
        }
        free(in);
    }
    close_pair(&p);
}

/* A buffer that is too small gets whole messages only; the next one waits in
 * the state, and need tells its size. */
static void test_small_buffer(void) {
    pair p = open_pair(1000);
    greet(&p);
    static const char *const small[] = {"peer", "1234567890"}, *const large[] = {"peer", "12345678901234567890", "more"};
    batch b = {0};
    begin(&b, 1), text(&b, small[1]);
    begin(&b, 2), text(&b, large[1]), text(&b, large[2]);
    begin(&b, 1), text(&b, small[1]);
    send_all(p.dealer, &b, ZS_SENT);
    size_t s = packed_size(2, small), l = packed_size(3, large);
    uint8_t *in;
    for (size_t cap = 0; cap < s; cap++) { /* never a part of it, whatever the room */
        in = take(p.router, cap);
        CHECK(p.router->in_len == 0 && p.router->need == s && p.router->more);
        free(in);
    }
    in = take(p.router, s + l - 1); /* the first fits, the second by a byte not */
    CHECK(p.router->in_len == s && p.router->need == l && p.router->more);
    is(in, 2, small);
    free(in);
    in = take(p.router, l);
    CHECK(p.router->in_len == l);
    is(in, 3, large);
    free(in);
    if (p.router->need == 0) { /* the third may not have been there yet */
        in = take(p.router, 0);
        CHECK(p.router->in_len == 0 && p.router->need == s);
        free(in);
    }
    in = take(p.router, s);
    is(in, 2, small);
    free(in);
    close_pair(&p);
}

/* Of a message with more frames than are kept, the rest is closed, not leaked. */
static void test_many_frames(void) {
    pair p = open_pair(1000);
    greet(&p);
    char body[200]; /* longer than what libzmq keeps inside the handle */
    memset(body, 'x', sizeof body);
    batch b = {0};
    begin(&b, 1000);
    for (int i = 0; i < 1000; i++)
        frame(&b, body, sizeof body);
    begin(&b, 1), text(&b, "after");
    send_all(p.dealer, &b, ZS_SENT);
    size_t size = 4 + (4 + strlen("peer")) + (KEEP - 1) * (4 + sizeof body);
    uint8_t *in = take(p.router, size);
    CHECK(p.router->in_len == size && get(in) == KEEP);
    free(in);
    static const char *const after[] = {"peer", "after"};
    in = take(p.router, packed_size(2, after));
    is(in, 2, after);
    free(in);

    /* And one that is left in the state when that is freed. */
    begin(&b, 3);
    for (int i = 0; i < 3; i++)
        frame(&b, body, sizeof body);
    send_all(p.dealer, &b, ZS_SENT);
    in = take(p.router, 1);
    CHECK(p.router->in_len == 0 && p.router->need > 600);
    CHECK(p.router->complete && p.router->nframes == 4);
    free(in);
    close_pair(&p);
}

/* A large frame, as a DEALER reads it. */
static void test_large(void) {
    pair p = open_pair(10);
    greet(&p);
    uint32_t n = 3 << 20;
    uint8_t *body = malloc(n);
    for (uint32_t i = 0; i < n; i++)
        body[i] = (uint8_t)(i * 7 + (i >> 8));
    batch b = {0};
    begin(&b, 3), text(&b, "peer"), frame(&b, body, n), text(&b, "");
    send_all(p.router, &b, ZS_SENT);
    uint8_t *in = take(p.dealer, 100);
    CHECK(p.dealer->in_len == 0 && p.dealer->need == 4 + 4 + n + 4);
    free(in);
    in = take(p.dealer, p.dealer->need);
    CHECK(p.dealer->in_len == 4 + 4 + n + 4 && get(in) == 2 && get(in + 4) == n && memcmp(in + 8, body, n) == 0);
    free(in);
    free(body);
    close_pair(&p);
}

/* A full pipe says EAGAIN, for all that follows to the same peer; one that
 * nobody knows EHOSTUNREACH; others go on. */
static void test_refused(void) {
    pair p = open_pair(2);
    greet(&p);
    batch b = {0};
    enum { N = 20 };
    for (int i = 0; i < N; i++) {
        begin(&b, 2), text(&b, "peer"), text(&b, "x");
        begin(&b, 2), text(&b, "nobody"), text(&b, "x");
    }
    uint8_t *results = calloc(2 * N, 1), in[1];
    zs_exchange(p.router, b.p, b.msgs, results, in, 0);
    int sent = 0;
    for (int i = 0; i < N; i++) {
        CHECK(results[2 * i + 1] == ZS_UNREACHABLE);
        CHECK(results[2 * i] == (results[2 * i] == ZS_SENT && i == sent ? ZS_SENT : ZS_AGAIN));
        sent += results[2 * i] == ZS_SENT;
    }
    CHECK(sent >= 2 && sent < N && p.router->sent == (uint32_t)sent && p.router->error == 0);
    free(results);
    drop(&b);

    /* More refused peers than a batch remembers: the rest is tried another time. */
    for (int i = 0; i < 70; i++) {
        char id[16];
        snprintf(id, sizeof id, "nobody-%d", i);
        begin(&b, 2), text(&b, id), text(&b, "x");
    }
    results = calloc(b.msgs, 1);
    zs_exchange(p.router, b.p, b.msgs, results, in, 0);
    for (uint32_t i = 0; i < b.msgs; i++)
        CHECK(results[i] == (i <= 64 ? ZS_UNREACHABLE : ZS_AGAIN));
    free(results);
    drop(&b);

    /* A DEALER that is full, and then has room again. */
    for (int i = 0; i < N; i++)
        begin(&b, 2), text(&b, "a"), text(&b, "b");
    results = calloc(b.msgs, 1);
    zs_exchange(p.dealer, b.p, b.msgs, results, in, 0);
    for (sent = 0; sent < N && results[sent] == ZS_SENT; sent++) {
    }
    CHECK(sent >= 2 && sent < N);
    for (int i = sent; i < N; i++)
        CHECK(results[i] == ZS_AGAIN);
    CHECK(p.dealer->error == 0);
    free(results);
    drop(&b);
    int received = 0;
    for (int i = 0; i < 10000 && received < sent; i++) {
        uint8_t buffer[400];
        zs_exchange(p.router, NULL, 0, NULL, buffer, sizeof buffer);
        received += (int)(p.router->in_len / packed_size(3, (const char *const[]){"peer", "a", "b"}));
        if (p.router->in_len == 0)
            usleep(1000);
    }
    CHECK(received == sent);
    for (int i = 0; i < 10000 && !(zs_events(p.dealer) & ZMQ_POLLOUT); i++)
        usleep(1000);
    begin(&b, 1), text(&b, "again");
    send_all(p.dealer, &b, ZS_SENT);
    close_pair(&p);
}

/* A message without frames is the caller's bug: it and all after it fail. A
 * socket whose context ended fails too. Neither reads or writes astray. */
static void test_failed(void) {
    pair p = open_pair(10);
    greet(&p);
    batch b = {0};
    begin(&b, 0);
    begin(&b, 1), text(&b, "x");
    send_all(p.dealer, &b, ZS_FAILED);
    CHECK(p.dealer->error == EINVAL);
    begin(&b, 1), text(&b, "x"); /* an error is that of one exchange */
    send_all(p.dealer, &b, ZS_SENT);

    zmq_ctx_shutdown(p.ctx);
    begin(&b, 2), text(&b, "peer"), text(&b, "x");
    begin(&b, 2), text(&b, "peer"), text(&b, "y");
    send_all(p.router, &b, ZS_FAILED);
    CHECK(p.router->error == ETERM);
    uint8_t in[100];
    zs_exchange(p.router, NULL, 0, NULL, in, sizeof in);
    CHECK(p.router->error == ETERM && p.router->in_len == 0);
    CHECK(zs_events(p.router) == -1);
    CHECK(zs_type(p.zr) == -1 || zs_type(p.zr) == ZMQ_ROUTER);
    close_pair(&p);
}

/* Sends and receives in one call, many times over, with a buffer of every
 * size: what goes in comes out, in order. */
static void test_both_ways(void) {
    pair p = open_pair(1000);
    greet(&p);
    uint32_t next_out = 0, next_in = 0, echoed = 0;
    size_t cap = 0;
    uint8_t *in = NULL;
    batch reply = {0};
    for (int turn = 0; turn < 20000 && echoed < 300; turn++) {
        batch b = {0};
        for (int i = 0; i < turn % 4 && next_out < 300; i++, next_out++) {
            begin(&b, 2);
            frame(&b, &next_out, 4);
            frame(&b, "padding of some length", next_out % 23);
        }
        uint8_t *results = calloc(b.msgs + 1, 1);
        free(in);
        in = malloc(cap = 1 + (size_t)turn % 90);
        zs_exchange(p.dealer, b.p, b.msgs, results, in, cap);
        for (uint32_t i = 0; i < b.msgs; i++)
            CHECK(results[i] == ZS_SENT);
        free(results);
        drop(&b);
        for (const uint8_t *q = in; q < in + p.dealer->in_len; echoed++) {
            CHECK(get(q) == 1 && get(q + 4) == 4 && get(q + 8) == echoed);
            q += 12;
        }

        /* the ROUTER answers what it has with the first frame */
        results = calloc(reply.msgs + 1, 1);
        uint8_t *rin = malloc(cap = 40 + (size_t)turn % 50);
        zs_exchange(p.router, reply.p, reply.msgs, results, rin, cap);
        for (uint32_t i = 0; i < reply.msgs; i++)
            CHECK(results[i] == ZS_SENT);
        free(results);
        drop(&reply);
        for (const uint8_t *q = rin; q < rin + p.router->in_len; next_in++) {
            CHECK(get(q) == 3 && get(q + 4) == 4 && memcmp(q + 8, "peer", 4) == 0 && get(q + 16) == next_in);
            CHECK(get(q + 20) == next_in % 23);
            begin(&reply, 2), text(&reply, "peer"), frame(&reply, q + 16, 4);
            q += 24 + next_in % 23;
        }
        free(rin);
    }
    CHECK(next_out == 300 && next_in == 300 && echoed == 300);
    free(in);
    drop(&reply);
    close_pair(&p);
}

int main(void) {
    zs_srand(1);
    test_types();
    test_batches();
    test_small_buffer();
    test_many_frames();
    test_large();
    test_refused();
    test_failed();
    test_both_ways();
    printf("exchange_test: %d checks, %d failures\n", checks, failures);
    return failures != 0;
}
