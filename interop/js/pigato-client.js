'use strict';

// A client of PIGATO: the library itself. --options are what request() takes
// besides the timeout: {"retry":1}, {"workerId":"…"}, {"nocache":true}.

const { Client } = require('pigato');
const cli = require('./lib/cli.js');

const a = cli.clientArgs({ options: { type: 'string', default: '{}' } });
const data = cli.json(a);
const conf = {};
if (a.heartbeat) {
  conf.heartbeat = a.heartbeat;
}
const client = new Client(a.endpoint, conf);
client.on('error', cli.note);
client.start();

cli.ask(a.count, (on) => {
  const options = JSON.parse(a.options);
  if (a.timeout !== undefined) {
    options.timeout = a.timeout;
  }
  client.request(
    a.service,
    data,
    (err, value) => on.partial(value),
    (err, value) => (err ? on.error(err) : on.final(value)),
    options,
  );
}).then(() => client.stop());
