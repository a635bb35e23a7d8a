'use strict';

// PIGATO's broker. Prints `ready ENDPOINT` once it is bound; an endpoint may
// end in :* for a free port.

const { Broker, services } = require('pigato');
const cli = require('./lib/cli.js');

const a = cli.args({ endpoint: cli.common.endpoint, heartbeat: { type: 'string' }, dir: { type: 'boolean' } }, ['endpoint']);
const conf = { intch: 'inproc://pigato-services' }; // the default is a fixed port
if (a.heartbeat) {
  conf.heartbeat = a.heartbeat;
}
const broker = new Broker(a.endpoint, conf);
let directory;

broker.on('error', cli.note);
broker.on('start', () => {
  const bound = broker.socket.last_endpoint; // PIGATO itself says "start" as well when it could not bind
  if (!bound) {
    cli.note(`cannot bind ${a.endpoint}`);
    process.exit(1);
  }
  if (a.dir) { // the service $dir
    directory = new services.Directory(bound, { intch: conf.intch });
    directory.start();
  }
  console.log(`ready ${bound}`);
});
broker.start();

cli.serve(() => new Promise((done) => {
  if (directory) {
    directory.stop();
  }
  broker.on('stop', done);
  broker.stop();
}));
