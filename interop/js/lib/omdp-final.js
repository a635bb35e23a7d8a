'use strict';

// zmq-omdp at its last revision (9618d5f).

const { randomBytes } = require('node:crypto');
const omdp = require('./omdp.js');
const { encode } = omdp;

const HEARTBEAT_TIME = 2500;
const RECONNECT_TIME = 6000;
const TIMEOUT = 60000;

// Short ids, of the same characters and about the same length as there.
const shortId = () => randomBytes(8).toString('base64url');

// A reply is a frame 0 and the value; an error is the one frame of its value.
// For null and undefined this revision sends nothing at all.
const payload = (v) => (v === undefined || v === null ? null : ['0', encode(v)]);

class Worker extends omdp.Worker {
  constructor(config) {
    super({ heartbeat: HEARTBEAT_TIME, reconnect: RECONNECT_TIME, ...config });
  }

  identity() { return `W${shortId()}`; }

  heartbeatOf() { return []; }

  value(v) { return payload(v); }

  final(v) { return payload(v); }

  failure(err) { return [encode(err)]; }

  // A second request takes the place of the first, whose answer is still sent.
  onWork(cid, rid, data) {
    let value;
    try {
      value = JSON.parse(data);
    } catch { /* undefined for the handler */ }
    this.begin(cid, rid, value);
  }
}

class Client extends omdp.Client {
  constructor(config) {
    super({ heartbeat: HEARTBEAT_TIME, ...config });
  }

  identity() { return `C${shortId()}`; }

  newRid() { return shortId(); }

  optionsOf(options) { return { ...options, timeout: options?.timeout || TIMEOUT }; }

  // Its beats name no request. Timeouts are its own business, as idle time.
  tick() {
    this.send([omdp.HEARTBEAT]);
    for (const [rid, req] of this.reqs) {
      const { timeout } = req.options;
      if (timeout > -1 && Date.now() > req.since + timeout) {
        this.end(rid, req, 'error', 'C_TIMEOUT');
      }
    }
  }

  onBeat() { this.onError('ERR_MSG_TYPE'); } // it never gets one for a request from its own broker

  parse(frames) {
    const [first, value] = frames;
    if (first === '0') {
      return { word: 'final', value: decode(value) };
    }
    return { word: 'error', value: decode(first) };
  }
}

function decode(text) {
  if (text === undefined) {
    return null;
  }
  try {
    return JSON.parse(text);
  } catch {
    return text; // an error's plain word, say
  }
}

module.exports = { Worker, Client };
