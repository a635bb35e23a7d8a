'use strict';

// The command lines of the peers of zmq-omdp, the same for both revisions.

const cli = require('./cli.js');
const dealer = require('./dealer.js');

const optional = (config) => Object.fromEntries(Object.entries(config).filter(([, v]) => v !== undefined));

function omdpWorker(Worker, fail) {
  const a = cli.workerArgs();
  const worker = new Worker(optional({
    service: a.service,
    heartbeat: a.heartbeat,
    open: (identity, onMessage) => dealer.open(a.endpoint, identity, onMessage),
    onError: cli.note,
    onRequest(data, res) {
      const beats = setInterval(() => res.heartbeat(), beatTime);
      const ended = (reply) => (value) => {
        clearInterval(beats);
        reply(value);
      };
      cli.behave(data, a.slow, {
        partial: (value) => res.write(value),
        final: ended((value) => res.end(value)),
        error: ended((err) => fail(res, err)),
      });
    },
  }));
  worker.start();
  console.log('ready');
  cli.serve(() => worker.stop());
}

// A handler that takes long says so by itself, as users of the library did.
const beatTime = 1000;

function omdpClient(Client) {
  const a = cli.clientArgs();
  const first = a.data && cli.json(a.data); // a mistake in the arguments ends it at once
  const client = new Client(optional({
    heartbeat: a.heartbeat,
    open: (identity, onMessage) => dealer.open(a.endpoint, identity, onMessage),
    onError: cli.note,
  }));
  client.start();
  cli.ask(a, ({ data, timeout }, on) => {
    client.request(a.service, a.data ? first : cli.json(data), on, timeout === undefined ? undefined : { timeout });
  }).then(() => client.stop());
}

module.exports = { omdpWorker, omdpClient };
