'use strict';

// Small brokers of other makes, for our client and worker to join: MDP/0.1 (RFC
// 7), MDP/0.2 (RFC 18), and both revisions of zmq-omdp as far as their peers can
// tell. One queue for each service, one request for each worker at a time.
//
// What they do with the requests of a worker that is lost is their make's: the
// specification's revision answers W_ERROR, the others forget them.

const zeromq = require('zeromq');
const cli = require('./cli.js');

const HEARTBEAT_TIME = 2500;
const LIVENESS = 3;

const byte = (n) => Buffer.from([n]);

// Majordomo. before is what precedes the header; numbers are of the commands.
function mdp(version, before, numbers) {
  const skip = before.length;
  const named = (n) => Object.keys(numbers).find((name) => numbers[name] === n);
  const toWorker = (name, ...frames) => [...before, `MDPW0${version}`, byte(numbers[name]), ...frames];
  return {
    parse(frames) {
      if (frames.slice(0, skip).some((f) => f.length > 0)) {
        return undefined;
      }
      const [header, ...rest] = frames.slice(skip);
      if (String(header) === `MDPC0${version}`) {
        const command = version === 1 ? byte(1) : rest.shift();
        const [service, ...body] = rest;
        return String(command) === '\x01' && body.length > 0 ? { type: 'request', service: String(service), payload: body } : undefined;
      }
      if (String(header) !== `MDPW0${version}` || rest[0]?.length !== 1) {
        return undefined;
      }
      const [[number], address, empty, ...body] = rest;
      const type = named(number);
      switch (type) {
        case 'ready': return { type, worker: true, service: String(address) };
        case 'partial':
        case 'final': return empty?.length === 0 && body.length > 0 ? { type, worker: true, token: address, payload: body } : undefined;
        case 'beat':
        case 'leave': return { type, worker: true };
        default: return undefined;
      }
    },
    request: (req) => toWorker('request', req.client, '', ...req.payload),
    reply: (type, req, payload) => (version === 1
      ? ['', 'MDPC01', req.service, ...payload]
      : ['MDPC02', byte(type === 'final' ? 3 : 2), req.service, ...payload]),
    beat: toWorker('beat'),
    leave: toWorker('leave'),
    // RFC 8
    own(service, payload, registered) {
      if (!service.startsWith('mmi.')) {
        return undefined;
      }
      return [service !== 'mmi.service' ? '501' : registered(String(payload[0])) ? '200' : '404'];
    },
  };
}

// zmq-omdp. keep is what of a request's rid, data and options goes to the worker.
function omdp(keep, spec) {
  const types = { 1: 'ready', 3: 'final', 4: 'beat', 5: 'leave', 6: 'partial' };
  return {
    parse([header, digit, ...rest]) {
      if (String(header) === 'C') {
        switch (String(digit)) {
          case '2': return { type: 'request', service: String(rest[0]), rid: String(rest[1]), payload: rest.slice(1) };
          case '4': return { type: 'clientBeat', rid: rest[0] && String(rest[0]) };
          default: return { type: 'ignored' };
        }
      }
      const type = types[String(digit)];
      if (String(header) !== 'W' || !type) {
        return undefined;
      }
      return { type, worker: true, service: String(rest[0]), token: rest[0], rid: rest[1] && String(rest[1]), payload: rest.slice(2) };
    },
    request: (req) => ['W', '2', req.client, ...keep(req.payload)],
    reply: (type, req, payload) => ['C', type === 'final' ? '3' : '6', req.rid, ...payload],
    beat: ['W', '4'],
    leave: ['W', '5'],
    timeout(req) {
      const { timeout } = JSON.parse(req.payload[2] ?? '{}');
      return timeout > 0 && Date.now() > req.since + timeout;
    },
    ...(spec && {
      clientBeat: (req) => ['C', '4', req.rid],
      workerBeat: (req) => ['W', '4', req.client, req.rid],
      lost: ['{"status":"W_ERROR"}'],
    }),
  };
}

const dialects = {
  mdp01: mdp(1, [''], { ready: 1, request: 2, final: 3, beat: 4, leave: 5 }),
  mdp02: mdp(2, [], { ready: 1, request: 2, partial: 3, final: 4, beat: 5, leave: 6 }),
  'omdp-spec': omdp((payload) => payload, true),
  'omdp-final': omdp((payload) => payload.slice(0, 2), false),
};

class Broker {
  constructor(dialect, endpoint, heartbeat = HEARTBEAT_TIME) {
    Object.assign(this, { d: dialects[dialect], endpoint, heartbeat });
    this.services = new Map(); // name: {queue, idle}
    this.workers = new Map(); // by id: {id, service, liveness, req}
    this.out = Promise.resolve();
  }

  async start() {
    this.socket = new zeromq.Router({ linger: 200, mandatory: true });
    await this.socket.bind(this.endpoint);
    this.beats = setInterval(() => this.tick(), this.heartbeat);
    this.run();
    return this.socket.lastEndpoint;
  }

  async run() {
    for await (const [id, ...frames] of this.socket) {
      const m = this.d.parse(frames);
      if (!m) {
        cli.note(`not understood: ${frames.map(String).join('|')}`);
        const key = id.toString('hex');
        if (this.workers.has(key)) {
          this.refuse(key, this.workers.get(key));
        }
      } else if (m.worker) {
        this.onWorker(id, m);
      } else {
        this.onClient(id, m);
      }
    }
  }

  async stop() {
    clearInterval(this.beats);
    await this.out;
    this.socket.close();
  }

  // send keeps the order; a peer that is gone gets nothing.
  send(id, frames) {
    this.out = this.out.then(() => this.socket.send([id, ...frames])).catch(() => {});
  }

  service(name) {
    if (!this.services.has(name)) {
      this.services.set(name, { queue: [], idle: [] });
    }
    return this.services.get(name);
  }

  onClient(id, m) {
    if (m.type === 'request') {
      const req = { client: id, service: m.service, rid: m.rid, payload: m.payload, since: Date.now() };
      const registered = (name) => [...this.workers.values()].some((w) => w.service === name);
      const answer = this.d.own?.(m.service, m.payload, registered);
      if (answer) {
        this.send(id, this.d.reply('final', req, answer));
        return;
      }
      this.service(m.service).queue.push(req);
      this.dispatch(m.service);
    } else if (m.type === 'clientBeat' && m.rid && this.d.workerBeat) {
      const w = [...this.workers.values()].find(({ req }) => req && req.rid === m.rid && req.client.equals(id));
      if (w) {
        this.send(w.id, this.d.workerBeat(w.req));
      }
    }
  }

  onWorker(id, m) {
    const key = id.toString('hex');
    let w = this.workers.get(key);
    if (m.type === 'ready' && !w && !this.d.own?.(m.service, [], () => false)) {
      w = { id, service: m.service, liveness: LIVENESS, req: null };
      this.workers.set(key, w);
      this.service(w.service).idle.push(w);
      this.dispatch(w.service);
      return;
    }
    if (m.type === 'leave') {
      if (w) {
        this.lose(key, w);
      }
      return;
    }
    if (!w || m.type === 'ready') { // a command of a stranger, a second READY, a name of the broker's own
      this.refuse(key, w ?? { id });
      return;
    }
    w.liveness = LIVENESS;
    if (m.type === 'beat') {
      if (w.req && m.rid === w.req.rid && this.d.clientBeat) {
        this.send(w.req.client, this.d.clientBeat(w.req));
      }
      return;
    }
    const { req } = w;
    if (!req || !req.client.equals(m.token) || (req.rid !== undefined && req.rid !== m.rid)) {
      cli.note('a reply to a request that its worker does not have');
      this.refuse(key, w);
      return;
    }
    this.send(req.client, this.d.reply(m.type, req, m.payload));
    if (m.type === 'final') {
      this.free(w);
    }
  }

  // refuse is for what a worker may not say: it is to start anew.
  refuse(key, w) {
    this.send(w.id, this.d.leave);
    if (this.workers.has(key)) {
      this.lose(key, w);
    }
  }

  free(w) {
    w.req = null;
    this.service(w.service).idle.push(w);
    this.dispatch(w.service);
  }

  dispatch(name) {
    const { queue, idle } = this.service(name);
    while (queue.length > 0 && idle.length > 0) {
      const w = idle.shift();
      w.req = queue.shift();
      w.told = true; // in the place of the next beat
      this.send(w.id, this.d.request(w.req));
      if (this.d.clientBeat) {
        this.send(w.req.client, this.d.clientBeat(w.req));
      }
    }
  }

  lose(key, w) {
    this.workers.delete(key);
    const s = this.service(w.service);
    s.idle = s.idle.filter((other) => other !== w);
    if (w.req && this.d.lost) {
      this.send(w.req.client, this.d.reply('final', w.req, this.d.lost));
    }
  }

  tick() {
    for (const [key, w] of this.workers) {
      if (w.req && this.d.timeout?.(w.req)) { // nobody waits for it, and its worker may never answer
        this.free(w);
      }
      if (--w.liveness < 0) {
        this.lose(key, w);
      } else if (!w.told) {
        this.send(w.id, this.d.beat);
      }
      w.told = false;
    }
  }
}

// main is the command line of one dialect's broker.
function main(dialect) {
  const a = cli.args({ endpoint: cli.common.endpoint, heartbeat: { type: 'string' } }, ['endpoint']);
  const broker = new Broker(dialect, a.endpoint, a.heartbeat);
  broker.start().then((bound) => {
    console.log(`ready ${bound}`);
    cli.serve(() => broker.stop());
  }, (err) => {
    cli.note(`cannot bind ${a.endpoint}: ${err.message}`);
    process.exit(1);
  });
}

module.exports = { main };
