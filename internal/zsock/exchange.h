//go:build cgo

#ifndef OMDP_ZSOCK_EXCHANGE_H
#define OMDP_ZSOCK_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#if ZMQ_VERSION < ZMQ_MAKE_VERSION(4, 3, 0)
#error "omdp needs libzmq 4.3 or newer: install a newer libzmq with its headers"
#endif

/* What became of one message; the values of batch.Status. */
enum { ZS_PENDING, ZS_SENT, ZS_AGAIN, ZS_UNREACHABLE, ZS_FAILED };

/* In place of a frame's length: a zmq_msg_t * as a uint64_t follows. */
#define ZS_REFERENCE UINT32_MAX

/* A received message that was not copied; the caller closes msg. */
typedef struct {
    uint64_t msg;
    void *data;
    size_t size;
} zs_block;

/* zs_state belongs to one socket and to whoever holds that socket. It lives in
 * C memory, so results go back in its fields and nothing of Go's is stored. */
typedef struct {
    void *socket;
    int router;          /* the first frame sent is a routing id */
    uint32_t keep;       /* frames kept of a message; the rest are closed */
    size_t large;        /* frames of this size are not copied; 0: all are */

    /* results of the last zs_exchange */
    size_t in_len;       /* bytes written to in */
    size_t need;         /* room that the next message needs, if it did not fit */
    uint32_t sent;       /* messages taken by libzmq */
    int more;            /* the socket was not drained */
    int writable;        /* a DEALER that was blocked can send now */
    int error;           /* errno that makes the socket useless, or 0 */
    zs_block *blocks;    /* what the messages in refer to, in their order */
    uint32_t nblocks, room;
    size_t held;         /* their bytes */

    /* the message being gathered; whole if complete */
    int complete;
    uint32_t nframes;
    size_t packed;
    zmq_msg_t frames[];
} zs_state;

zs_state *zs_open(void *socket, int router, uint32_t keep, size_t large);
void zs_free(zs_state *s);
int zs_type(void *socket);
int zs_events(zs_state *s);
void zs_exchange(zs_state *s, const uint8_t *out, uint32_t nmsgs,
                 uint8_t *results, uint8_t *in, size_t cap);
zs_block zs_block_new(size_t size);
void zs_block_free(uint64_t msg);
void zs_srand(unsigned seed);

#endif
