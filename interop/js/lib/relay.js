'use strict';

// For the tests of the peers alone: a ROUTER in the place of a broker, for one
// client and one worker of one dialect. It passes messages on and remembers
// what each sent. No queue, no liveness.

const zeromq = require('zeromq');

const text = (frames) => frames.map((frame) => frame.toString('latin1'));

// Each dialect turns a message from the client or the worker into messages to
// the other: {to, frames}.
const dialects = {
  'omdp-spec': omdp((rest) => rest, true),
  'omdp-final': omdp((rest) => rest.slice(0, 2), false),
  pigato: pigato(),
  mdp01: {
    isWorker: ([, header]) => header === 'MDPW01',
    client: ({ client, service }, [, , name, ...body]) => {
      service.name = name;
      return [{ to: 'worker', frames: ['', 'MDPW01', '\x02', client, '', ...body] }];
    },
    worker: ({ service }, [, , command, , , ...body]) => (
      command === '\x03' ? [{ to: 'client', frames: ['', 'MDPC01', service.name, ...body] }] : []
    ),
  },
  mdp02: {
    isWorker: ([header]) => header === 'MDPW02',
    client: ({ client, service }, [, , name, ...body]) => {
      service.name = name;
      return [{ to: 'worker', frames: ['MDPW02', '\x02', client, '', ...body] }];
    },
    worker: ({ service }, [, command, , , ...body]) => (
      ['\x03', '\x04'].includes(command)
        ? [{ to: 'client', frames: ['MDPC02', command === '\x04' ? '\x03' : '\x02', service.name, ...body] }]
        : []
    ),
  },
};

// PIGATO's broker answers every heartbeat, READY and DISCONNECT as well.
function pigato() {
  return {
    isWorker: ([header]) => header === 'W',
    client: ({ client }, [, type, service, rid, data, options]) => (
      type === '2'
        ? [{ to: 'worker', frames: ['W', '2', client, service, '', rid, data, options] }]
        : [{ to: 'client', frames: ['C', '4'] }]
    ),
    worker: (_, [, type, , ...rest]) => (
      ['3', '6'].includes(type)
        ? [{ to: 'client', frames: ['C', type, ...rest] }]
        : [{ to: 'worker', frames: ['W', type] }]
    ),
  };
}

function omdp(keep, notify) {
  return {
    isWorker: ([header]) => header === 'W',
    client: ({ client }, [, type, , rid, ...rest]) => (type !== '2' ? [] : [
      ...(notify ? [{ to: 'client', frames: ['C', '4', rid] }] : []),
      { to: 'worker', frames: ['W', '2', client, rid, ...keep(rest)] },
    ]),
    worker: (_, [, type, , ...rest]) => (
      ['3', '6'].includes(type) ? [{ to: 'client', frames: ['C', type, ...rest] }] : []
    ),
  };
}

// start returns {endpoint, sent, tell, close}: sent.client and sent.worker are
// the messages as arrays of binary strings, tell(to, frames) sends one.
async function start(dialect) {
  const d = dialects[dialect];
  const socket = new zeromq.Router({ linger: 0 });
  await socket.bind('tcp://127.0.0.1:*');
  const sent = { client: [], worker: [] };
  const ids = {};
  const seen = { service: {} };

  async function tell(to, frames) {
    if (ids[to]) { // else nobody is there to get it
      await socket.send([ids[to], ...frames.map((f) => Buffer.from(f, 'latin1'))]);
    }
  }
  async function run() {
    for await (const [id, ...rest] of socket) {
      const frames = text(rest);
      const from = d.isWorker(frames) ? 'worker' : 'client';
      ids[from] = id;
      seen[from] = id.toString('latin1');
      sent[from].push(frames);
      for (const { to, frames: out } of d[from](seen, frames)) {
        await tell(to, out);
      }
    }
  }
  const done = run();
  return {
    endpoint: socket.lastEndpoint,
    sent,
    tell,
    async close() {
      socket.close();
      await done.catch(() => {});
    },
  };
}

module.exports = { start };
