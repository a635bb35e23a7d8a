//go:build cgo

#include "exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* EINTR comes from Go's preemption signals. Nothing here waits, so a retry is
 * cheap, and a bound keeps a storm of signals from holding the caller. */
enum { EINTR_TRIES = 100 };

/* Routing ids that were refused in a batch are remembered up to this many;
 * then the rest of the batch is left for the next exchange. */
enum { MAX_REFUSED = 64 };

typedef struct {
    const uint8_t *id;
    uint32_t len;
    uint8_t status;
} refused;

/* An exchange takes in no more than this by reference, in bytes. */
enum { HELD_MAX = 1 << 20 };

zs_state *zs_open(void *socket, int router, uint32_t keep, size_t large) {
    zs_state *s = calloc(1, sizeof(zs_state) + keep * sizeof(zmq_msg_t));
    if (s) {
        s->socket = socket;
        s->router = router;
        s->keep = keep;
        s->large = large;
    }
    return s;
}

static void drop_gathered(zs_state *s) {
    for (uint32_t i = 0; i < s->nframes; i++)
        zmq_msg_close(&s->frames[i]);
    s->nframes = 0;
    s->packed = 4;
    s->complete = 0;
}

void zs_free(zs_state *s) {
    drop_gathered(s);
    free(s->blocks);
    free(s);
}

int zs_type(void *socket) {
    int type = -1;
    size_t n = sizeof type;
    if (zmq_getsockopt(socket, ZMQ_TYPE, &type, &n) != 0)
        return -1;
    return type;
}

/* zs_events reads ZMQ_EVENTS, which also takes in what the I/O thread
 * signalled: without it the edge-triggered ZMQ_FD loses wake-ups. */
int zs_events(zs_state *s) {
    for (int i = 0; i < EINTR_TRIES; i++) {
        int events = 0;
        size_t n = sizeof events;
        if (zmq_getsockopt(s->socket, ZMQ_EVENTS, &events, &n) == 0)
            return events;
        if (errno != EINTR)
            return -1;
    }
    return ZMQ_POLLIN | ZMQ_POLLOUT; /* look again rather than sleep */
}

static uint32_t get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static zmq_msg_t *message_at(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return (zmq_msg_t *)(uintptr_t)v;
}

/* frame_size is the bytes in a batch of a frame of length n. */
static size_t frame_size(uint32_t n) {
    return n == ZS_REFERENCE ? 8 : n;
}

/* send_reference sends what the message holds, which stays with its owner. */
static int send_reference(zs_state *s, zmq_msg_t *held, int flags) {
    zmq_msg_t m;
    int err = EAGAIN;
    zmq_msg_init(&m);
    if (zmq_msg_copy(&m, held) != 0)
        err = errno;
    else
        for (int i = 0; i < EINTR_TRIES; i++) {
            if (zmq_msg_send(&m, s->socket, flags) >= 0)
                return 0;
            if (errno != EINTR) {
                err = errno;
                break;
            }
        }
    zmq_msg_close(&m);
    return err;
}

static int send_frame(zs_state *s, const uint8_t *p, uint32_t n, int more) {
    int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    if (n == ZS_REFERENCE)
        return send_reference(s, message_at(p), flags);
    for (int i = 0; i < EINTR_TRIES; i++) {
        if (zmq_send(s->socket, p, n, flags) >= 0)
            return 0;
        if (errno != EINTR)
            return errno;
    }
    return EAGAIN;
}

/* send_message sends the frames at p; 0 or an errno. libzmq refuses a message
 * at its first frame. A later refusal means that the pipe died underneath: the
 * frames before are gone, and a DEALER then swallows what follows up to the
 * last frame, so that has to be sent before the message is tried again. */
static int send_message(zs_state *s, const uint8_t *p, uint32_t nframes) {
    int first_error = 0;
    for (uint32_t i = 0; i < nframes; i++) {
        uint32_t len = get32(p);
        int err = send_frame(s, p + 4, len, i + 1 < nframes);
        if (err != 0) {
            if (i == 0 || err != EAGAIN)
                return err;
            if (first_error)
                return EFAULT;
            first_error = err;
        }
        p += 4 + frame_size(len);
    }
    return first_error;
}

static void send_batch(zs_state *s, const uint8_t *p, uint32_t nmsgs, uint8_t *results) {
    refused list[MAX_REFUSED];
    int nlist = 0, all_again = 0, refreshed = 0;

    for (uint32_t m = 0; m < nmsgs; m++) {
        uint32_t nframes = get32(p);
        const uint8_t *frames = p + 4, *id = frames + 4;
        uint32_t idlen = nframes ? (uint32_t)frame_size(get32(frames)) : 0;
        p = frames;
        for (uint32_t i = 0; i < nframes; i++)
            p += 4 + frame_size(get32(p));

        if (s->error || nframes == 0) {
            if (!s->error)
                s->error = EINVAL;
            results[m] = ZS_FAILED;
            continue;
        }
        if (all_again) {
            results[m] = ZS_AGAIN;
            continue;
        }
        int known = 0;
        while (known < nlist && (list[known].len != idlen || memcmp(list[known].id, id, idlen) != 0))
            known++;
        if (known < nlist) {
            results[m] = list[known].status;
            continue;
        }

        int err = send_message(s, frames, nframes);
        if (err == EAGAIN && !refreshed) {
            /* A send looks at the I/O thread's signals about once a
             * millisecond only; the room may have come since. */
            refreshed = 1;
            zs_events(s);
            err = send_message(s, frames, nframes);
        }
        switch (err) {
        case 0:
            results[m] = ZS_SENT;
            s->sent++;
            continue;
        case EAGAIN:
            results[m] = ZS_AGAIN;
            break;
        case EHOSTUNREACH:
            results[m] = ZS_UNREACHABLE;
            break;
        default:
            results[m] = ZS_FAILED;
            s->error = err;
            continue;
        }
        if (!s->router || nlist == MAX_REFUSED) {
            all_again = 1;
        } else {
            list[nlist].id = id;
            list[nlist].len = idlen;
            list[nlist++].status = results[m];
        }
    }
    if (all_again && !s->router)
        s->writable = 1; /* settled in zs_exchange */
}

static int is_large(zs_state *s, zmq_msg_t *m) {
    return s->large > 0 && zmq_msg_size(m) >= s->large;
}

/* hand_over moves a frame into a message of its own, and that to the caller, who
 * may look at its bytes: they do not move. It packs the reference at p. */
static int hand_over(zs_state *s, zmq_msg_t *frame, uint8_t *p) {
    if (s->nblocks == s->room) {
        uint32_t room = s->room ? 2 * s->room : 64;
        zs_block *b = realloc(s->blocks, room * sizeof *b);
        if (!b)
            return ENOMEM;
        s->blocks = b;
        s->room = room;
    }
    zmq_msg_t *m = malloc(sizeof *m);
    if (!m)
        return ENOMEM;
    zmq_msg_init(m);
    zmq_msg_move(m, frame);
    zs_block *b = &s->blocks[s->nblocks++];
    b->msg = (uint64_t)(uintptr_t)m;
    b->data = zmq_msg_data(m);
    b->size = zmq_msg_size(m);
    s->held += b->size;
    uint32_t n = ZS_REFERENCE;
    memcpy(p, &n, 4);
    memcpy(p + 4, &b->msg, 8);
    return 0;
}

zs_block zs_block_new(size_t size) {
    zs_block b = {0, NULL, size};
    zmq_msg_t *m = malloc(sizeof *m);
    if (m && zmq_msg_init_size(m, size) == 0) {
        b.msg = (uint64_t)(uintptr_t)m;
        b.data = zmq_msg_data(m);
    } else {
        free(m);
    }
    return b;
}

void zs_block_free(uint64_t msg) {
    zmq_msg_t *m = (zmq_msg_t *)(uintptr_t)msg;
    zmq_msg_close(m);
    free(m);
}

/* gather receives the frames of one message: 0 or an errno. */
static int gather(zs_state *s) {
    int interrupted = 0;
    while (!s->complete) {
        zmq_msg_t rest;
        int kept = s->nframes < s->keep;
        zmq_msg_t *m = kept ? &s->frames[s->nframes] : &rest;
        zmq_msg_init(m);
        if (zmq_msg_recv(m, s->socket, ZMQ_DONTWAIT) < 0) {
            int err = errno;
            zmq_msg_close(m);
            if (err == EINTR && ++interrupted < EINTR_TRIES)
                continue;
            return err;
        }
        s->complete = !zmq_msg_more(m);
        if (kept) {
            s->nframes++;
            s->packed += 4 + (is_large(s, m) ? 8 : zmq_msg_size(m));
        } else {
            zmq_msg_close(m);
        }
    }
    return 0;
}

static void receive_batch(zs_state *s, uint8_t *in, size_t cap) {
    for (;;) {
        if (s->held >= HELD_MAX) {
            s->more = 1;
            return;
        }
        int err = gather(s);
        if (err != 0) {
            if (err == EINTR)
                s->more = 1;
            else if (err != EAGAIN)
                s->error = err;
            return;
        }
        if (s->packed > cap - s->in_len) {
            s->need = s->packed;
            s->more = 1;
            return;
        }
        uint8_t *p = in + s->in_len;
        memcpy(p, &s->nframes, 4);
        p += 4;
        for (uint32_t i = 0; i < s->nframes; i++) {
            if (is_large(s, &s->frames[i])) {
                if ((s->error = hand_over(s, &s->frames[i], p)) != 0)
                    return;
                p += 4 + 8;
                continue;
            }
            uint32_t n = (uint32_t)zmq_msg_size(&s->frames[i]);
            memcpy(p, &n, 4);
            memcpy(p + 4, zmq_msg_data(&s->frames[i]), n);
            p += 4 + (size_t)n;
        }
        s->in_len += s->packed;
        drop_gathered(s);
    }
}

/* zs_exchange sends a packed batch, a result per message, then receives whole
 * messages into in until the socket is drained or the next does not fit. A
 * drained socket has answered EAGAIN, so its signals are all taken in. */
void zs_exchange(zs_state *s, const uint8_t *out, uint32_t nmsgs,
                 uint8_t *results, uint8_t *in, size_t cap) {
    s->in_len = 0;
    s->need = 0;
    s->nblocks = 0;
    s->held = 0;
    s->sent = 0;
    s->more = 0;
    s->writable = 0;
    s->error = 0;
    if (!s->complete && s->nframes == 0)
        s->packed = 4;
    if (nmsgs > 0)
        send_batch(s, out, nmsgs, results);
    if (!s->error)
        receive_batch(s, in, cap);
    if (s->writable) {
        /* Receiving may have taken in the signal that there is room, and no
         * other would follow: look once more. */
        int events = zs_events(s);
        s->writable = events > 0 && (events & ZMQ_POLLOUT);
        if (events > 0 && (events & ZMQ_POLLIN))
            s->more = 1;
    }
}

void zs_srand(unsigned seed) { srand(seed); }
