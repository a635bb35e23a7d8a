'use strict';

// What both revisions of zmq-omdp share: the commands, as the text of their
// digits, and a worker's and a client's life. The revisions differ in what they
// put into frames and in what their heartbeats carry; those parts are in
// omdp-spec.js and omdp-final.js.
//
// Nothing here touches a socket: open(identity, onMessage) gives something with
// send(frames) and close(), and tests give their own.

const READY = '1';
const REQUEST = '2';
const REPLY = '3';
const HEARTBEAT = '4';
const DISCONNECT = '5';
const PARTIAL = '6';

const LIVENESS = 3; // ticks without a word from the other side

// Both pass every frame through UTF-8, ids as well.
const texts = (frames) => frames.map((frame) => frame.toString());

// encode is JSON, with Buffers as arrays of their bytes, as they were recorded.
const encode = (v) => JSON.stringify(Buffer.isBuffer(v) ? [...v] : v);

class Worker {
  // config: service, open, heartbeat and reconnect in ms, onRequest(data, res), onError(text).
  constructor(config) {
    Object.assign(this, config);
    this.req = null; // the one request in progress: {cid, rid, liveness}
    this.link = null;
  }

  start() {
    this.stop(false);
    this.req = null;
    this.link = this.open(this.identity(), (frames) => this.onMessage(texts(frames)));
    this.liveness = LIVENESS;
    this.send([READY, this.service]);
    this.beats = setInterval(() => this.tick(), this.heartbeat);
  }

  // stop says DISCONNECT, unless it is to connect again.
  stop(leave = true) {
    clearInterval(this.beats);
    clearTimeout(this.again);
    if (this.link) {
      if (leave) {
        this.send([DISCONNECT]);
      }
      this.link.close();
      this.link = null;
    }
  }

  tick() {
    if (--this.liveness <= 0) { // the broker is gone
      clearInterval(this.beats);
      this.again = setTimeout(() => this.start(), this.reconnect);
      return;
    }
    this.sendHeartbeat();
    if (this.req) {
      this.req.liveness--;
    }
  }

  send(frames) {
    if (this.link) {
      this.link.send(['W', ...frames]);
    }
  }

  sendHeartbeat() {
    this.send([HEARTBEAT, ...this.heartbeatOf(this.req)]);
  }

  onMessage([header, type, cid, rid, data]) {
    if (header !== 'W') {
      this.onError('ERR_MSG_HEADER');
      return;
    }
    this.liveness = LIVENESS;
    switch (type) {
      case REQUEST:
        this.onWork(cid, rid, data);
        break;
      case HEARTBEAT:
        if (this.req && rid !== undefined && this.req.rid === rid) {
          this.req.liveness = LIVENESS;
        }
        break;
      case DISCONNECT:
        this.start();
        break;
      default:
        this.onError('ERR_MSG_TYPE_INVALID');
    }
  }

  // begin takes the request and calls the handler.
  begin(cid, rid, value) {
    const req = { cid, rid, liveness: LIVENESS };
    this.req = req;
    const worker = this;
    const held = () => worker.req === req;
    let ended = false;
    const reply = (type, payload) => {
      if (payload) { // null: this revision sends nothing for such a value
        worker.send([type, cid, rid, ...payload]);
      }
      if (type === REPLY) {
        ended = true;
        if (held()) {
          worker.req = null;
        }
      }
    };
    this.onRequest(value, {
      write(v) {
        if (!ended) {
          reply(PARTIAL, worker.value(v));
        }
      },
      end(v) {
        if (!ended) {
          reply(REPLY, worker.final(v));
        }
      },
      error(code, text) {
        if (!ended) {
          reply(REPLY, worker.failure(code, text));
        }
      },
      heartbeat: () => worker.sendHeartbeat(),
      active: () => held() && req.liveness > 0,
    });
  }
}

class Client {
  // config: open, heartbeat in ms, onError(text).
  constructor(config) {
    Object.assign(this, config);
    this.reqs = new Map(); // by rid
    this.link = null;
  }

  start() {
    this.name = this.identity();
    this.link = this.open(this.name, (frames) => this.onMessage(texts(frames)));
    this.beats = setInterval(() => this.tick(), this.heartbeat);
  }

  stop() {
    clearInterval(this.beats);
    if (this.link) {
      this.link.close();
      this.link = null;
    }
  }

  send(frames) {
    if (this.link) {
      this.link.send(['C', ...frames]);
    }
  }

  // request sends one; on has partial(value), final(value) and error(value).
  request(service, data, on, options) {
    const rid = this.newRid();
    const req = { on, liveness: LIVENESS, running: false, options: this.optionsOf(options), since: Date.now() };
    this.reqs.set(rid, req);
    // The word undefined goes out for undefined, which has no JSON.
    this.send([REQUEST, service, rid, String(encode(data)), JSON.stringify(req.options)]);
    return rid;
  }

  end(rid, req, word, value) {
    this.reqs.delete(rid);
    req.on[word](value);
  }

  onMessage([header, type, rid, ...payload]) {
    if (header !== 'C') {
      this.onError('ERR_MSG_HEADER');
      return;
    }
    const req = this.reqs.get(rid);
    if (!req) {
      return;
    }
    switch (type) {
      case HEARTBEAT:
        this.onBeat(req);
        break;
      case PARTIAL:
      case REPLY: {
        const { word, value } = this.parse(payload);
        if (type === REPLY) {
          this.end(rid, req, word, value);
        } else {
          req.since = Date.now();
          req.on.partial(value);
        }
        break;
      }
      default:
        this.onError('ERR_MSG_TYPE');
    }
  }
}

module.exports = { Worker, Client, encode, HEARTBEAT, LIVENESS };
