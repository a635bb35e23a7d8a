'use strict';

// For tests: the peers as processes, each bounded in time.

const { spawn } = require('node:child_process');
const path = require('node:path');
const readline = require('node:readline');

const js = path.join(__dirname, '..');
const limit = 20000; // ms, for any wait here

function within(promise, what) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what}: nothing in ${limit} ms`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// start runs a peer, or a program in command, until the test t ends.
function start(t, peer, args, command = [process.execPath, path.join(js, `${peer}.js`)]) {
  const child = spawn(command[0], [...command.slice(1), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, OMDP_STARTER: process.pid },
  });
  const p = { lines: [], noted: [], child };
  const waiting = [];
  const take = (list) => (text) => {
    list.push(text);
    for (const w of waiting) {
      w();
    }
  };
  readline.createInterface({ input: child.stdout }).on('line', take(p.lines));
  readline.createInterface({ input: child.stderr }).on('line', take(p.noted));
  p.exit = new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => done(code ?? signal));
  });
  // line waits for a line on either output that matches.
  p.line = (pattern) => within(new Promise((done) => {
    const look = () => {
      const found = [...p.lines, ...p.noted].find((l) => pattern.test(l));
      if (found !== undefined) {
        done(found);
      }
    };
    waiting.push(look);
    look();
  }), `${peer}: ${pattern}`);
  p.stop = async () => {
    child.kill('SIGTERM');
    return within(p.exit, `${peer}: the end`);
  };
  t.after(async () => {
    child.kill('SIGTERM');
    setTimeout(() => child.kill('SIGKILL'), 5000).unref();
    await p.exit;
  });
  return p;
}

// run plays a client to its end and returns the lines that it printed.
async function run(t, peer, args, command) {
  const p = start(t, peer, args, command);
  const code = await within(p.exit, peer);
  if (code !== 0) {
    throw new Error(`${peer} ended with ${code}: ${p.noted.join('\n')}`);
  }
  return p.lines;
}

module.exports = { start, run };
