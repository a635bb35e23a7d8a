'use strict';

// PIGATO itself works through the adapter: its client, its broker and its
// worker together, and what client and worker send is what they were recorded
// to send on the Node and the zmq package of their time.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { Client, Worker } = require('pigato');
const relay = require('./lib/relay.js');
const { start, run } = require('./lib/play.js');
const { on, asked, until, partials } = require('./lib/ask.js');
const { handlers, scenarios, dataOf } = require('./lib/recorded.js');

test('PIGATO through its own broker', async (t) => {
  const broker = start(t, 'pigato-broker', ['--endpoint', 'tcp://127.0.0.1:*', '--dir']);
  const [, endpoint] = (await broker.line(/^ready /)).split(' ');
  const worker = start(t, 'pigato-worker', on(endpoint));
  await worker.line(/^ready$/);
  await asked(t, 'pigato-client', endpoint);

  // $dir lists the service's workers, which sign off when they end.
  const dir = () => run(t, 'pigato-client', ['--endpoint', endpoint, '--service', '$dir', '--data', '"echo"']);
  assert.match((await dir())[0], /^final \["W[^"]*"\]$/);
  assert.equal(await worker.stop(), 0);
  assert.deepEqual(await dir(), ['final []']);

  // What waits is served by the next worker.
  const client = start(t, 'pigato-client', on(endpoint, '--data', '1'));
  await start(t, 'pigato-worker', on(endpoint)).line(/^ready$/);
  assert.equal(await client.exit, 0);
  assert.deepEqual(client.lines, ['final 1']);
  assert.equal(await broker.stop(), 0);
});

test('PIGATO, a worker that takes its time', async (t) => {
  const broker = start(t, 'pigato-broker', ['--endpoint', 'tcp://127.0.0.1:*']);
  const [, endpoint] = (await broker.line(/^ready /)).split(' ');
  const worker = start(t, 'pigato-worker', on(endpoint, '--slow', '50'));
  await worker.line(/^ready$/);
  assert.deepEqual(await run(t, 'pigato-client', on(endpoint, '--data', '"partials"')), partials);
});

test('PIGATO, a broker that cannot bind says so', async (t) => {
  const broker = start(t, 'pigato-broker', ['--endpoint', 'tcp://127.0.0.1:*']);
  const [, endpoint] = (await broker.line(/^ready /)).split(' ');
  const second = start(t, 'pigato-broker', ['--endpoint', endpoint]);
  assert.equal(await second.exit, 1);
});

// The recorded scenarios in which nothing but the frames is of interest.
const played = {
  echo: 'echo', object: 'object', null: 'null', nothing: 'nothing', undef: 'echo', empty: 'empty', emptydata: 'echo',
  unicode: 'echo', clibinary: 'echo', wrkbinary: 'wrkbinary', partial: 'partial', error: 'error', error2: 'error2',
  double: 'double', writeafter: 'writeafter',
};

// Ids are UUIDs, and an identity is a letter and two of them; each is replaced
// by where it was seen first.
function named(messages) {
  const names = new Map();
  return messages.map((frames) => frames.map((frame) => {
    if (!/^(?:[CW]?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-?){1,2}$/.test(frame)) {
      return frame;
    }
    if (!names.has(frame)) {
      names.set(frame, `id ${names.size} of ${frame.length} bytes`);
    }
    return names.get(frame);
  }));
}

// until the worker's first goodbye, and without heartbeats
function without(messages) {
  const end = messages.findIndex(([, type]) => type === '5');
  return messages.slice(0, end < 0 ? undefined : end + 1).filter(([, type]) => type !== '4');
}

test('PIGATO, frame by frame as it was recorded', async (t) => {
  const recorded = scenarios('pigato');
  for (const [scenario, handler] of Object.entries(played)) {
    await t.test(scenario, async (t) => {
      const messages = recorded.get(scenario);
      const r = await relay.start('pigato');
      t.after(() => r.close());
      const worker = new Worker(r.endpoint, 'echo');
      worker.on('request', (data, res) => handlers[handler](data, res, { revision: 'pigato' }));
      worker.on('error', () => {});
      worker.start();
      const client = new Client(r.endpoint);
      client.on('error', () => {});
      t.after(() => { client.stop(); worker.stop(); });
      await until(() => r.sent.worker.length >= 2);
      client.start();
      await new Promise((done) => {
        const options = messages.find((m) => m.from === 'client' && m.frames[1] === '2').frames[5];
        const { timeout } = JSON.parse(options);
        client.request('echo', dataOf(scenario), () => {}, done, { timeout });
      });
      worker.stop();
      await until(() => r.sent.worker.some(([, type]) => type === '5'));

      const text = (list) => list.map((frames) => frames.map((f) => Buffer.from(f, 'latin1').toString()));
      const of = (from) => messages.filter((m) => m.from === from).map((m) => m.frames);
      for (const side of ['client', 'worker']) {
        assert.deepEqual(named(without(text(r.sent[side]))), named(without(of(side))), side);
        const beats = new Set(of(side).filter(([, type]) => type === '4').map(String));
        for (const beat of r.sent[side].filter(([, type]) => type === '4')) {
          assert.ok(beats.has(String(beat)), `${beat} is no heartbeat that was recorded: ${[...beats]}`);
        }
      }
    });
  }
});
