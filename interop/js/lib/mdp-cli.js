'use strict';

// The command lines of the Majordomo peers, the same for both versions. Bodies
// are opaque there: --data is sent as it is, and given more than once it is a
// body of so many frames.

const zeromq = require('zeromq');
const cli = require('./cli.js');
const dealer = require('./dealer.js');
const { Worker, Client } = require('./mdp.js');

function mdpWorker(version) {
  const a = cli.workerArgs();
  const worker = new Worker({
    version,
    service: a.service,
    ...(a.heartbeat && { heartbeat: a.heartbeat }),
    open: (identity, onMessage) => dealer.open(a.endpoint, identity, onMessage),
    onError: cli.note,
    onRequest(body, res) {
      const data = body.length === 1 ? decode(body[0]) : undefined;
      const final = (value) => res.end(value === data ? body : [JSON.stringify(value)]);
      cli.behave(data, a.slow, {
        // MDP/0.1 has no partials, and neither version has errors: a final of one
        // frame of a form that omdp understands is one.
        partial: version === 1 ? undefined : (value) => res.write([JSON.stringify(value)]),
        final,
        error: (err) => res.end([JSON.stringify({ status: err.code, msg: err.text })]),
      });
    },
  });
  worker.start();
  console.log('ready');
  cli.serve(() => worker.stop());
}

function mdpClient(version) {
  const a = cli.clientArgs({
    retries: { type: 'string' },
    ...(version === 1 && { socket: { type: 'string', default: 'req' } }),
  });
  const Type = a.socket === 'req' ? zeromq.Request : zeromq.Dealer;
  const client = new Client({
    version,
    socket: a.socket,
    open: (identity, onMessage) => dealer.open(a.endpoint, identity, onMessage, Type),
    onError: cli.note,
  });
  client.start();
  cli.ask(a, ({ data, timeout }, on) => {
    const final = (body) => (isError(body) ? on.error(body) : on.final(body));
    client.request(a.service, data, { ...on, final }, { timeout, retries: a.retries });
  }, show).then(() => client.stop());
}

function decode(frame) {
  try {
    return JSON.parse(frame.toString());
  } catch {
    return undefined;
  }
}

// isError tells whether a final's body is an error as omdp's broker puts it:
// {"status":CODE,"msg":VALUE} of a worker, {"status":WORD} of its own, in which
// it may say whether the request was executed.
function isError(body) {
  const value = body.length === 1 && decode(body[0]);
  if (typeof value?.status !== 'string' && typeof value?.status !== 'number') {
    return false;
  }
  const keys = Object.keys(value).join();
  return keys === 'status,msg' || keys === 'status' || keys === 'status,executed';
}

// show prints each frame of a body as it is if it is JSON, else as a JSON string.
function show(value) {
  if (!Array.isArray(value)) {
    return JSON.stringify(value);
  }
  return value.map((frame) => {
    const json = decode(frame);
    return JSON.stringify(json === undefined ? frame.toString() : json);
  }).join(' ');
}

module.exports = { mdpWorker, mdpClient };
