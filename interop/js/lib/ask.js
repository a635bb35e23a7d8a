'use strict';

// For tests: what every client is made to ask, and what it should print.

const assert = require('node:assert/strict');
const { run } = require('./play.js');

const on = (endpoint, ...more) => ['--endpoint', endpoint, '--service', 'echo', ...more];
const values = ['"foo"', '""', '0', '-1.5', 'true', 'false', '{"foo":"bar","n":1,"a":[1,2,null]}', '[]', '"žluťoučký kůň ☃ 日本語 😀"'];
const teapot = '{"code":418,"text":"TEAPOT"}';
const partials = ['partial "partials-0"', 'partial "partials-1"', 'partial "partials-2"', 'final "partials-final"'];

// asked makes every kind of request. want tells what a dialect answers where it
// is not what was asked for.
async function asked(t, client, endpoint, want = {}) {
  const ask = (data, ...more) => run(t, client, on(endpoint, '--data', data, ...more));
  for (const value of values) {
    assert.deepEqual(await ask(value), [want.echo?.(value) ?? `final ${value}`], value);
  }
  assert.deepEqual(await ask('null', '--timeout', '1000'), [want.null ?? 'final null']);
  assert.deepEqual(await ask('"fail"'), [want.fail ?? `error ${teapot}`]);
  assert.deepEqual(await ask('"partials"'), want.partials ?? partials);
  const many = await ask('"again"', '--count', '200');
  assert.deepEqual(many, [...Array(200).fill('final "again"'), 'done 200']);
}

// until waits for a condition.
async function until(done) {
  for (let i = 0; i < 400; i++) {
    if (done()) {
      return;
    }
    await new Promise((next) => { setTimeout(next, 25); });
  }
  throw new Error('not in 10 s');
}

module.exports = { on, asked, until, partials };
