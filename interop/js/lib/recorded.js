'use strict';

// For tests: the recorded traffic of the Node libraries, and what the programs
// did that it was recorded from.

const fs = require('node:fs');
const path = require('node:path');

const wire = path.join(__dirname, '..', '..', '..', 'testdata', 'wire');

// scenarios returns the messages of each scenario of a dialect, by its name.
function scenarios(dialect) {
  const of = new Map();
  for (const line of fs.readFileSync(path.join(wire, `${dialect}.jsonl`), 'utf8').trim().split('\n')) {
    const message = JSON.parse(line);
    of.set(message.scenario, [...(of.get(message.scenario) ?? []), message]);
  }
  return of;
}

// What the recorded workers' handlers did; peer is the worker.
const handlers = {
  echo: (data, res) => res.end(data),
  object: (data, res) => res.end({ echo: data, list: [1, 2.5, null, true], nested: { k: 'v' } }),
  null: (data, res) => res.end(null),
  nothing: (data, res) => res.end(),
  empty: (data, res) => res.end(''),
  wrkbinary: (data, res) => res.end(Buffer.from([0, 1, 2, 255, 254, 128])),
  partial(data, res) {
    res.write(`${data}-0`);
    res.write(`${data}-1`);
    res.end(`${data}-final`);
  },
  error: (data, res, { revision }) => (revision === 'spec' ? res.error(418, 'TEAPOT') : res.error({ code: 418, text: 'TEAPOT' })),
  error2: (data, res) => res.error('SOMETHING_FAILED'),
  double(data, res) {
    res.end(`${data}-first`);
    res.end(`${data}-second`);
  },
  writeafter(data, res) {
    res.end(`${data}-first`);
    res.write(`${data}-late`);
  },
  hb_slow(data, res) {
    setTimeout(() => res.heartbeat(), 4000);
    setTimeout(() => res.heartbeat(), 8000);
    setTimeout(() => res.end(data), 12000);
  },
  stopclient(data, res) {
    let n = 0;
    const timer = setInterval(() => {
      if (!res.active()) {
        clearInterval(timer);
        res.end(`${data}-inactive`);
        return;
      }
      res.heartbeat();
      res.write(`${data}-${n++}`);
    }, 200);
  },
  silent() {},
  die: (data, res, { peer }) => peer.stop(false), // the process ended, without a word
};

// dataOf is what the client asked with.
function dataOf(scenario) {
  switch (scenario) {
    case 'object': return { foo: 'bar', n: 1, a: [1, 2, null] };
    case 'unicode': return 'žluťoučký kůň ☃ 日本語 😀';
    case 'undef': return undefined;
    case 'emptydata': return '';
    case 'clibinary': return Buffer.from([0, 1, 2, 255, 254, 128]);
    default: return 'foo';
  }
}

module.exports = { scenarios, handlers, dataOf };
