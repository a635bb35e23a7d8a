'use strict';

// A client of PIGATO: the library itself. --options are what request() takes
// besides the timeout: {"retry":1}, {"workerId":"…"}, {"nocache":true}.

const { Client } = require('pigato');
const cli = require('./lib/cli.js');

const a = cli.clientArgs({ options: { type: 'string', default: '{}' } });
const first = a.data && cli.json(a.data); // a mistake in the arguments ends it at once
const conf = {};
if (a.heartbeat) {
  conf.heartbeat = a.heartbeat;
}
const client = new Client(a.endpoint, conf);
client.on('error', cli.note);
client.start();

cli.ask(a, ({ data, timeout }, on) => {
  const options = JSON.parse(a.options);
  if (timeout !== undefined) {
    options.timeout = timeout;
  }
  client.request(
    a.service,
    a.data ? first : cli.json(data),
    (err, value) => on.partial(value),
    (err, value) => (err ? on.error(err) : on.final(value)),
    options,
  );
}).then(() => client.stop());
