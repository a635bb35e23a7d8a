'use strict';

// A worker of PIGATO: the library itself. Besides what every worker of the
// suite does it rejects a request whose data is the JSON string "reject".

const { Worker } = require('pigato');
const cli = require('./lib/cli.js');

const a = cli.workerArgs({ concurrency: { type: 'string' } });
const conf = {};
if (a.heartbeat) {
  conf.heartbeat = a.heartbeat;
}
if (a.concurrency) {
  conf.concurrency = Number(a.concurrency);
}
const worker = new Worker(a.endpoint, a.service, conf);

worker.on('error', cli.note);
worker.on('request', (data, res) => {
  if (data === 'reject') {
    res.reject('NOT_ME');
    return;
  }
  cli.behave(data, a.slow, {
    partial: (value) => res.write(value),
    final: (value) => res.end(value),
    error: (err) => res.error(err),
  });
});
worker.once('start', () => console.log('ready')); // start() has sent READY
worker.start();

cli.serve(() => worker.stop());
