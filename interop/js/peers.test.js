'use strict';

// The peers as processes, client against worker of the same dialect, through a
// relay; those of the specification's revision also through this project's own
// broker and against its client and worker. PIGATO's are in pigato.test.js.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const relay = require('./lib/relay.js');
const { start, run } = require('./lib/play.js');
const { on, asked, until, partials } = require('./lib/ask.js');

// What a dialect answers differently from what it was asked for.
const differs = {
  'omdp-spec': {
    echo: (v) => (v.startsWith('"') ? undefined : `final ${JSON.stringify(v)}`), // replies are text
    fail: 'error {"status":418,"msg":"TEAPOT"}',
  },
  'omdp-final': { null: 'error "C_TIMEOUT"' }, // a reply of null is never sent
  mdp02: { fail: 'error {"status":418,"msg":"TEAPOT"}' }, // an error is a form of a final
  mdp01: { fail: 'error {"status":418,"msg":"TEAPOT"}', partials: ['final "partials"'] }, // no partials either
};
const goodbye = {
  'omdp-spec': ['W', '5'],
  'omdp-final': ['W', '5'],
  mdp02: ['MDPW02', '\x06'],
  mdp01: ['', 'MDPW01', '\x05'],
};

for (const dialect of Object.keys(differs)) {
  test(`${dialect} through a relay`, async (t) => {
    const r = await relay.start(dialect);
    t.after(() => r.close());
    const worker = start(t, `${dialect}-worker`, on(r.endpoint));
    await worker.line(/^ready$/);
    await asked(t, `${dialect}-client`, r.endpoint, differs[dialect]);
    assert.equal(await worker.stop(), 0);
    await until(() => r.sent.worker.at(-1).length === goodbye[dialect].length);
    assert.deepEqual(r.sent.worker.at(-1), goodbye[dialect]);
    assert.deepEqual(worker.noted, []);
  });
}

// RFC 18 "MDP/Client", "MDP/Worker"; RFC 7, the same.
const frames = {
  mdp02: {
    ready: ['MDPW02', '\x01', 'echo'],
    request: ['MDPC02', '\x01', 'echo', '{"a":1}', '', '\xc5\xbe'],
    final: (id) => ['MDPW02', '\x04', id, '', '{"a":1}', '', '\xc5\xbe'],
    partial: (id, body) => ['MDPW02', '\x03', id, '', body],
    beat: ['MDPW02', '\x05'],
    disconnect: ['MDPW02', '\x06'],
  },
  mdp01: {
    ready: ['', 'MDPW01', '\x01', 'echo'],
    request: ['', 'MDPC01', 'echo', '{"a":1}', '', '\xc5\xbe'],
    final: (id) => ['', 'MDPW01', '\x03', id, '', '{"a":1}', '', '\xc5\xbe'],
    beat: ['', 'MDPW01', '\x04'],
    disconnect: ['', 'MDPW01', '\x05'],
  },
};

for (const [dialect, want] of Object.entries(frames)) {
  for (const socket of dialect === 'mdp01' ? ['req', 'dealer'] : ['']) {
    test(`${dialect} ${socket} frame by frame`, async (t) => {
      const r = await relay.start(dialect);
      t.after(() => r.close());
      const worker = start(t, `${dialect}-worker`, on(r.endpoint, '--heartbeat', '200'));
      await until(() => r.sent.worker.length > 0);
      const more = socket ? ['--socket', socket] : [];
      const lines = await run(t, `${dialect}-client`, on(r.endpoint, '--data', '{"a":1}', '--data', '', '--data', 'ž', ...more));
      assert.deepEqual(lines, ['final {"a":1} "" "ž"']);
      assert.deepEqual(r.sent.client, [want.request]);

      const [ready, final] = r.sent.worker.filter((m) => m.length > want.beat.length);
      assert.deepEqual(ready, want.ready);
      const id = final[want.final('the id').indexOf('the id')];
      assert.ok(id.length > 0);
      assert.deepEqual(final, want.final(id));

      if (want.partial) {
        const from = r.sent.worker.length;
        assert.deepEqual(await run(t, `${dialect}-client`, on(r.endpoint, '--data', '"partials"')), partials);
        const sent = r.sent.worker.slice(from).filter((m) => m.length > want.beat.length);
        const to = sent[0][2];
        assert.deepEqual(sent, [
          ...[0, 1, 2].map((i) => want.partial(to, `"partials-${i}"`)),
          [...want.final(to).slice(0, 4), '"partials-final"'],
        ]);
      }

      // It beats, and after a DISCONNECT it registers again.
      await until(() => r.sent.worker.some((m) => m.length === want.beat.length));
      assert.deepEqual(r.sent.worker.find((m) => m.length === want.beat.length), want.beat);
      r.sent.worker.length = 0;
      await r.tell('worker', want.disconnect);
      await until(() => r.sent.worker.some((m) => m.length === want.ready.length && m.at(-1) === 'echo'));

      // Silence of the broker for three beats: the same, after a while.
      r.sent.worker.length = 0;
      await until(() => r.sent.worker.some((m) => m.length === want.ready.length && m.at(-1) === 'echo'));
      assert.equal(await worker.stop(), 0);
    });
  }

  test(`${dialect} client gives up, and asks again on a new socket`, async (t) => {
    const r = await relay.start(dialect);
    t.after(() => r.close());
    const client = start(t, `${dialect}-client`, on(r.endpoint, '--data', '1', '--timeout', '100', '--retries', '2'));
    assert.equal(await client.exit, 0);
    assert.deepEqual(client.lines, ['error "TIMEOUT"']);
    assert.equal(r.sent.client.length, 3);
  });
}

for (const dialect of Object.keys(differs)) {
  test(`${dialect} through the broker of its make`, async (t) => {
    const broker = start(t, `${dialect}-broker`, ['--endpoint', 'tcp://127.0.0.1:*', '--heartbeat', '500']);
    const [, endpoint] = (await broker.line(/^ready /)).split(' ');
    const client = start(t, `${dialect}-client`, on(endpoint, '--data', '"early"'));
    const worker = start(t, `${dialect}-worker`, on(endpoint, '--heartbeat', '500'));
    assert.equal(await client.exit, 0);
    assert.deepEqual(client.lines, ['final "early"']);
    await asked(t, `${dialect}-client`, endpoint, differs[dialect]);
    assert.equal(await worker.stop(), 0);
    if (dialect.startsWith('mdp')) {
      const mmi = (service, data) => run(t, `${dialect}-client`, ['--endpoint', endpoint, '--service', service, '--data', data]);
      assert.deepEqual(await mmi('mmi.service', 'echo'), ['final 404']);
      await start(t, `${dialect}-worker`, on(endpoint)).line(/^ready$/);
      assert.deepEqual(await run(t, `${dialect}-client`, on(endpoint, '--data', '1')), ['final 1']);
      assert.deepEqual(await mmi('mmi.service', 'echo'), ['final 200']);
      assert.deepEqual(await mmi('mmi.other', 'echo'), ['final 501']);
    }
    assert.equal(await broker.stop(), 0);
    assert.deepEqual([...broker.noted, ...worker.noted], []);
  });
}

test('arguments that are wrong', async (t) => {
  for (const args of [[], ['--endpoint', 'tcp://127.0.0.1:1'], on('tcp://127.0.0.1:1'), on('tcp://127.0.0.1:1', '--data', '{'), on('tcp://127.0.0.1:1', '--data', '1', '--count', '0'), ['--nonsense']]) {
    assert.equal(await start(t, 'omdp-spec-client', args).exit, 2, args.join(' '));
  }
});

const noGo = spawnSync('go', ['version']).status !== 0 && 'no Go here';

test('omdp-spec with the Go library', { skip: noGo, timeout: 300000 }, async (t) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'omdp-interop-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const echo = path.join(dir, 'echo');
  execFileSync('go', ['build', '-o', echo, './examples/echo'], { cwd: path.join(__dirname, '..', '..') });

  const broker = start(t, 'echo', ['-role', 'broker', '-endpoint', 'tcp://127.0.0.1:*'], [echo]);
  const endpoint = (await broker.line(/^broker: listening/)).split(' ').at(-1);

  const worker = start(t, 'omdp-spec-worker', on(endpoint));
  await worker.line(/^ready$/);
  await asked(t, 'omdp-spec-client', endpoint, differs['omdp-spec']);

  const goClient = ['-role', 'client', '-endpoint', endpoint, '-json', '-data'];
  assert.deepEqual(await run(t, 'echo', [...goClient, '"žluť"'], [echo]), ['final 1 "žluť"']);
  assert.deepEqual(await run(t, 'echo', [...goClient, '"partials"'], [echo]), partials.map((l) => l.replace(' ', ' 1 ')));
  assert.equal(await worker.stop(), 0);

  const goWorker = start(t, 'echo', ['-role', 'worker', '-endpoint', endpoint, '-partials', '1'], [echo]);
  await goWorker.line(/^worker: /);
  assert.deepEqual(await run(t, 'omdp-spec-client', on(endpoint, '--data', '{"a":null}')), ['partial {"a":null}', 'final {"a":null}']);
});
