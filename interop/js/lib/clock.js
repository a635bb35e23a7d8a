'use strict';

// For tests: a clock that only the test moves, in the place of the timers and
// Date.now. (That of node:test can't hold Date before Node 20.)

function start() {
  const real = { setTimeout, setInterval, clearTimeout, clearInterval };
  const realNow = Date.now;
  const timers = new Map(); // by number, in the order of their making
  let now = 0;
  let last = 0;

  const add = (again) => (f, ms) => {
    timers.set(++last, { f, at: now + ms, every: again && ms });
    return last;
  };
  const clear = (n) => { timers.delete(n); };
  Object.assign(globalThis, { setTimeout: add(false), setInterval: add(true), clearTimeout: clear, clearInterval: clear });
  Date.now = () => now;

  function first() {
    let found;
    for (const [n, t] of timers) {
      if (!found || t.at < found.t.at) {
        found = { n, t };
      }
    }
    return found;
  }
  return {
    // until moves the clock on to a time, and runs what is due by then: a little
    // late, as it is in a process that has other things to do.
    until(ms) {
      now = Math.max(now, ms);
      for (let next = first(); next && next.t.at <= ms; next = first()) {
        const { n, t } = next;
        if (t.every) {
          t.at += t.every;
        } else {
          timers.delete(n);
        }
        t.f();
      }
    },
    stop() {
      Object.assign(globalThis, real);
      Date.now = realNow;
    },
  };
}

module.exports = { start };
