'use strict';

// zmq-omdp at the revision whose README is the specification (4f18192).

const { randomInt } = require('node:crypto');
const omdp = require('./omdp.js');

const HEARTBEAT_TIME = 5000;
const RECONNECT_TIME = 6000;

// Identities are new for every connection: a word and, as recorded, 18 to 20 digits.
function identity(word) {
  const half = () => String(randomInt(1e9)).padStart(9, '0');
  return `${word}-${half()}${half()}`;
}

// Replies are text there, or null: a worker's user turns any other value into
// JSON first. Buffers become text, whatever bytes they hold.
function textOf(v) {
  if (v === undefined || v === null) {
    return null;
  }
  return typeof v === 'string' || Buffer.isBuffer(v) ? String(v) : JSON.stringify(v);
}
const payload = (status, msg) => [JSON.stringify({ status, msg })];

class Worker extends omdp.Worker {
  constructor(config) {
    super({ heartbeat: HEARTBEAT_TIME, reconnect: RECONNECT_TIME, ...config });
  }

  identity() { return identity('Worker'); }

  heartbeatOf(req) { return req ? [req.cid, req.rid] : []; }

  value(v) { return payload(200, textOf(v)); }

  final(v) { return this.value(v); }

  // error(text) is error(500, text).
  failure(code, text) { return text === undefined ? payload(500, code) : payload(code, text); }

  onWork(cid, rid, data) {
    let value;
    try {
      value = JSON.parse(data);
    } catch {
      this.onError('ERR_MSG_PARSE');
      this.send(['3', cid, rid, ...this.failure('ERR_MSG_PARSE')]);
      return;
    }
    if (this.req) { // dropped without an answer
      this.onError('ERR_REQ_OVERRIDE');
      return;
    }
    this.begin(cid, rid, value);
  }
}

class Client extends omdp.Client {
  constructor(config) {
    super({ heartbeat: HEARTBEAT_TIME, ...config });
    this.count = 0;
  }

  identity() { return identity('Client'); }

  newRid() { return `${this.name}${Date.now()}${++this.count}`; }

  optionsOf(options) { return options ?? {}; }

  tick() {
    this.send([omdp.HEARTBEAT]);
    for (const rid of this.reqs.keys()) {
      this.send([omdp.HEARTBEAT, rid]);
    }
    for (const [rid, req] of this.reqs) {
      if (req.running && --req.liveness <= 0) {
        this.end(rid, req, 'error', { status: 'TIMEOUT' });
      }
    }
  }

  // A request is alive as long as beats for it come; partials do not count.
  onBeat(req) {
    req.liveness = omdp.LIVENESS;
    req.running = true;
  }

  parse([text]) {
    let reply = null;
    try {
      reply = JSON.parse(text);
    } catch { /* as an answer without status and msg */ }
    reply ??= {};
    // Its users compare with ==: "200" is a success as well.
    if (String(reply.status) === '200' || reply.status === undefined) {
      return { word: 'final', value: reply.msg };
    }
    return { word: 'error', value: reply };
  }
}

module.exports = { Worker, Client };
