'use strict';

// What our peers of zmq-omdp send is what the libraries themselves were
// recorded to send: the same frames in the same order, bytes for bytes. The
// recorded messages of the broker are played to them at the recorded times, on
// a clock that only the test moves. Ids of requests and clients are the
// recorded ones, so nothing is left out of the comparison.

const { test } = require('node:test');
const assert = require('node:assert/strict');
const clock = require('./lib/clock.js');
const { handlers, scenarios, dataOf } = require('./lib/recorded.js');

const revisions = ['spec', 'final'];

const handlerOf = {
  emptydata: 'echo', unicode: 'echo', undef: 'echo', vanish: 'stopclient', vanish2: 'stopclient',
  timeout_silent: 'silent', crash: 'die', wstop: 'die',
};
// An array is no text: to answer with it killed the worker of the specification's revision.
const handlerOfIn = { spec: { clibinary: 'die' }, final: { clibinary: 'echo' } };

// What the client's user gets; a scenario that is not here is one without an answer.
const thing = { echo: { foo: 'bar', n: 1, a: [1, 2, null] }, list: [1, 2.5, null, true], nested: { k: 'v' } };
const answers = {
  both: {
    echo: [['final', 'foo']],
    double: [['final', 'foo-first']],
    writeafter: [['final', 'foo-first']],
    hb_slow: [['final', 'foo']],
    unicode: [['final', 'žluťoučký kůň ☃ 日本語 😀']],
    empty: [['final', '']],
    emptydata: [['final', '']],
    partial: [['partial', 'foo-0'], ['partial', 'foo-1'], ['final', 'foo-final']],
  },
  spec: {
    object: [['final', JSON.stringify(thing)]],
    null: [['final', null]],
    nothing: [['final', null]],
    wrkbinary: [['final', '\0\x01\x02\ufffd\ufffd\ufffd']],
    error: [['error', { status: 418, msg: 'TEAPOT' }]],
    error2: [['error', { status: 500, msg: 'SOMETHING_FAILED' }]],
    undef: [['error', { status: 500, msg: 'ERR_MSG_PARSE' }]],
    timeout_noworker: [['error', { status: 'TIMEOUT' }]],
    crash: [['error', { status: 'W_ERROR' }]],
    wstop: [['error', { status: 'W_ERROR' }]],
  },
  final: {
    object: [['final', thing]],
    clibinary: [['final', [0, 1, 2, 255, 254, 128]]],
    wrkbinary: [['final', [0, 1, 2, 255, 254, 128]]],
    error: [['error', { code: 418, text: 'TEAPOT' }]],
    error2: [['error', 'SOMETHING_FAILED']],
    timeout_noworker: [['error', 'C_TIMEOUT']],
    crash: [['error', 'C_TIMEOUT']],
    wstop: [['error', 'C_TIMEOUT']],
  },
};

// These were recorded with a beat every 500 ms, all others with the default.
const fast = new Set(['crash', 'wstop', 'vanish', 'vanish2', 'stopclient', 'timeout_noworker', 'timeout_silent']);

const is = (frames, ...start) => start.every((frame, i) => frames[i] === frame);

// play runs one peer through a scenario and returns what it sent. script is
// called for each recorded message from the peer: it does what a user did.
function play(messages, side, make, script) {
  const time = clock.start();
  try {
    const sent = [];
    let deliver;
    const peer = make((identity, onMessage) => {
      deliver = onMessage;
      return { send: (frames) => sent.push(frames), close() { deliver = undefined; } };
    });
    for (const { ms, from, to, frames } of messages) {
      time.until(ms);
      if (from === side) {
        script(peer, frames);
      } else if (to === side && deliver) {
        deliver(frames.map((frame) => Buffer.from(frame)));
      }
    }
    peer.stop(false);
    return sent;
  } finally {
    time.stop();
  }
}

// compare allows what came in the same millisecond in which a recording broke off.
function compare(sent, messages, side) {
  const want = messages.filter((m) => m.from === side).map((m) => m.frames);
  assert.deepEqual(sent.slice(0, want.length), want);
  assert.ok(sent.length <= want.length + 1, `more was sent: ${JSON.stringify(sent.slice(want.length))}`);
}

for (const revision of revisions) {
  const { Worker, Client } = require(`./lib/omdp-${revision}.js`);
  const recorded = scenarios(`omdp-${revision}`);

  for (const [scenario, messages] of recorded) {
    const config = fast.has(scenario) ? { heartbeat: 500 } : {};

    if (messages.some((m) => m.from === 'worker')) {
      test(`omdp-${revision} worker, ${scenario}`, () => {
        const handler = handlers[handlerOf[scenario] ?? handlerOfIn[revision][scenario] ?? scenario];
        let peer;
        const sent = play(messages, 'worker', (open) => {
          peer = new Worker({
            ...config,
            service: 'echo',
            open,
            onError() {},
            onRequest: (data, res) => handler(data, res, { revision, peer }),
          });
          return peer;
        }, (worker, frames) => {
          if (is(frames, 'W', '1')) {
            worker.start();
          } else if (is(frames, 'W', '5')) {
            worker.stop();
          }
        });
        compare(sent, messages, 'worker');
      });
    }

    if (messages.some((m) => m.from === 'client')) {
      test(`omdp-${revision} client, ${scenario}`, () => {
        const ids = messages.filter((m) => m.from === 'client' && is(m.frames, 'C', '2')).map((m) => m.frames[3]);
        // A client's first beat tells when it was started.
        const beat = messages.find((m) => m.from === 'client' && m.frames.length === 2);
        const first = messages.find((m) => m.from === 'client');
        const start = beat ? Math.min(first.ms, beat.ms - (config.heartbeat ?? { spec: 5000, final: 2500 }[revision])) : first.ms;
        const all = [{ ms: start, from: 'client', to: 'broker', frames: [] }, ...messages.filter((m) => m.ms >= start)];
        const got = [];
        // There the client was stopped after its last message.
        const end = scenario === 'stopclient' ? all.findLastIndex((m) => m.from === 'client') + 1 : all.length;
        const sent = play(all.slice(0, end), 'client', (open) => {
          const client = new Client({ ...config, open, onError() {} });
          client.newRid = () => ids.shift();
          return client;
        }, (client, frames) => {
          if (frames.length === 0) {
            client.start();
          } else if (is(frames, 'C', '2')) {
            client.request(frames[2], dataOf(scenario), {
              partial: (value) => got.push(['partial', value]),
              final: (value) => got.push(['final', value]),
              error: (value) => got.push(['error', value]),
            }, optionsOf(frames[5]));
          }
        });
        compare(sent, messages, 'client');
        const want = answers.both[scenario] ?? answers[revision][scenario];
        if (want) {
          assert.deepEqual(got, want);
        } else {
          assert.deepEqual(got.filter(([word]) => word !== 'partial'), []);
        }
      });
    }
  }

  test(`omdp-${revision}, ids of its own making look like those recorded`, () => {
    const client = new Client({ open: () => ({ send() {}, close() {} }), onError() {} });
    client.start();
    client.stop();
    const [id, rid] = [client.name, client.newRid()];
    if (revision === 'spec') {
      assert.match(id, /^Client-\d{18,20}$/);
      assert.ok(rid.startsWith(id) && /^\d{14}$/.test(rid.slice(id.length)), rid);
    } else {
      assert.match(id, /^C[\w-]{7,14}$/);
      assert.match(rid, /^[\w-]{7,14}$/);
    }
    assert.notEqual(client.newRid(), rid);
    assert.match(new Worker({}).identity(), revision === 'spec' ? /^Worker-\d{18,20}$/ : /^W[\w-]{7,14}$/);
  });

  test(`omdp-${revision}, every scenario has been played`, () => {
    assert.ok(recorded.size >= 21, `${recorded.size} scenarios`);
  });
}

// The options that the user gave: the recorded ones, where they are not the defaults.
const optionsOf = (text) => (['{}', '{"timeout":60000}'].includes(text) ? undefined : JSON.parse(text));
