'use strict';

// The Majordomo Protocol, from the RFCs: MDP/0.1 (RFC 7) and MDP/0.2 (RFC 18),
// workers and clients. Frames are Buffers: an address and a body are opaque.
//
// As in omdp.js nothing here touches a socket.

const HEARTBEAT_TIME = 2500;
const RECONNECT_TIME = 1000;
const TIMEOUT = 60000;
const LIVENESS = 3; // RFC 7, RFC 18 "Heartbeating": usually 3-5

// before is what precedes the header: in MDP/0.1 every command starts with an
// empty frame; in MDP/0.2 that is gone (RFC 18 "Goals").
const versions = {
  1: {
    before: [''],
    worker: 'MDPW01',
    client: 'MDPC01',
    READY: 1, REQUEST: 2, FINAL: 3, HEARTBEAT: 4, DISCONNECT: 5, // FINAL is REPLY there
  },
  2: {
    before: [],
    worker: 'MDPW02',
    client: 'MDPC02',
    READY: 1, REQUEST: 2, PARTIAL: 3, FINAL: 4, HEARTBEAT: 5, DISCONNECT: 6,
    // What a client sends and gets has numbers of its own.
    clientREQUEST: 1, clientPARTIAL: 2, clientFINAL: 3,
  },
};

const byte = (n) => Buffer.from([n]);

// cut returns what follows the header, or nothing if the message does not begin as it must.
function cut(v, header, frames) {
  const n = v.before.length;
  const whole = frames.length > n && frames.slice(0, n).every((f) => f.length === 0) && frames[n].toString() === header;
  return whole ? frames.slice(n + 1) : undefined;
}

class Worker {
  // config: version, service, open, heartbeat and reconnect in ms,
  // onRequest(body, res), onError(text). A body is an array of frames.
  constructor(config) {
    Object.assign(this, { heartbeat: HEARTBEAT_TIME, reconnect: RECONNECT_TIME }, config);
    this.v = versions[this.version];
    this.link = null;
  }

  start() {
    this.stop(false);
    this.busy = false;
    this.liveness = LIVENESS;
    this.link = this.open(null, (frames) => this.onMessage(frames));
    this.send(this.v.READY, this.service);
    this.beats = setInterval(() => this.tick(), this.heartbeat);
  }

  stop(leave = true) {
    clearInterval(this.beats);
    clearTimeout(this.again);
    if (this.link) {
      if (leave) {
        this.send(this.v.DISCONNECT);
      }
      this.link.close();
      this.link = null;
    }
  }

  send(command, ...frames) {
    this.link.send([...this.v.before, this.v.worker, byte(command), ...frames]);
    this.quiet = false;
  }

  // tick beats, unless something else was sent since the last one.
  tick() {
    if (--this.liveness <= 0) { // "it SHOULD restart a new conversation"
      this.stop(false);
      this.again = setTimeout(() => this.start(), this.reconnect);
      return;
    }
    if (this.quiet) {
      this.send(this.v.HEARTBEAT);
    }
    this.quiet = true;
  }

  onMessage(frames) {
    const [command, address, empty, ...body] = cut(this.v, this.v.worker, frames) ?? [];
    if (command === undefined || command.length !== 1) {
      this.onError('not a command for a worker');
      return;
    }
    switch (command[0]) {
      case this.v.HEARTBEAT:
        this.liveness = LIVENESS;
        break;
      case this.v.DISCONNECT: // on a new socket, "it must send no further commands" on this one
        this.start();
        break;
      case this.v.REQUEST:
        this.liveness = LIVENESS;
        if (empty === undefined || empty.length > 0 || body.length === 0) {
          this.onError('a REQUEST that is not address, empty, body');
        } else if (this.busy) {
          this.onError('a REQUEST before the reply to the last one');
        } else {
          this.begin(address, body);
        }
        break;
      default:
        this.onError(`command ${command[0]}`);
    }
  }

  begin(address, body) {
    const { link } = this;
    let ended = false;
    const reply = (command, frames) => {
      if (!ended && this.link === link) { // else the broker that asked is gone
        this.send(command, address, '', ...frames);
      }
    };
    this.busy = true;
    this.onRequest(body, {
      write: (frames) => reply(this.v.PARTIAL, frames),
      end: (frames) => {
        if (this.link === link) {
          this.busy = false;
        }
        reply(this.v.FINAL, frames);
        ended = true;
      },
    });
  }
}

class Client {
  // config: version, open, socket ('dealer' or 'req', for MDP/0.1), onError(text).
  constructor(config) {
    Object.assign(this, config);
    this.v = versions[this.version];
    this.before = this.socket === 'req' ? [] : this.v.before; // a REQ socket puts and takes it
    this.link = null;
    this.req = null; // the dialog is synchronous: one at a time
  }

  start() {
    this.link = this.open(null, (frames) => this.onMessage(frames));
  }

  stop() {
    if (this.link) {
      this.link.close();
      this.link = null;
    }
  }

  // request sends one; on has partial(body), final(body) and error(text). After
  // timeout ms without an answer the socket is closed and another opened, as the
  // RFCs recommend, since nothing tells a late reply from the next one's. The
  // request is sent again there, retries times.
  request(service, body, on, { timeout = TIMEOUT, retries = 0 } = {}) {
    const { v } = this;
    const command = this.version === 1 ? [] : [byte(v.clientREQUEST)];
    const req = { service, on };
    this.req = req;
    const send = () => {
      this.link.send([...this.before, v.client, ...command, service, ...body]);
      if (timeout > 0) {
        req.timer = setTimeout(late, timeout);
      }
    };
    const late = () => {
      this.stop();
      this.start();
      if (retries-- > 0) {
        send();
      } else {
        this.end('error', 'TIMEOUT');
      }
    };
    send();
  }

  end(word, value) {
    const { on, timer } = this.req;
    clearTimeout(timer);
    this.req = null;
    on[word](value);
  }

  onMessage(frames) {
    const rest = cut({ before: this.before }, this.v.client, frames);
    const command = this.version === 1 ? byte(0) : rest?.shift();
    const [service, ...body] = rest ?? [];
    if (service === undefined || command.length !== 1 || body.length === 0) {
      this.onError('not a reply for a client');
    } else if (!this.req || service.toString() !== this.req.service) {
      this.onError('a reply to no request');
    } else if (this.version === 1 || command[0] === this.v.clientFINAL) {
      this.end('final', body);
    } else if (command[0] === this.v.clientPARTIAL) {
      this.req.timer?.refresh();
      this.req.on.partial(body);
    } else {
      this.onError(`command ${command[0]}`);
    }
  }
}

module.exports = { Worker, Client };
