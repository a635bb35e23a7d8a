'use strict';

// What all the peers' command lines have in common: arguments, the lines that
// they print, and their ends.

const { parseArgs } = require('node:util');
const readline = require('node:readline');

const name = require('node:path').basename(process.argv[1], '.js');

const common = {
  endpoint: { type: 'string' },
  service: { type: 'string' },
};
const ofWorker = {
  slow: { type: 'string', default: '0' }, // ms before each reply
  heartbeat: { type: 'string' }, // ms between two
};
const ofClient = {
  data: { type: 'string', multiple: true },
  stdin: { type: 'boolean' }, // what to ask comes in lines
  count: { type: 'string' },
  timeout: { type: 'string' }, // ms, of each request
  limit: { type: 'string', default: '120000' }, // ms, of the whole run
  heartbeat: { type: 'string' },
};

function usage(text) {
  console.error(`${name}: ${text}`);
  process.exit(2);
}

// joined makes --data=-1 of --data -1, which parseArgs takes for an error.
function joined(argv, options) {
  const out = [];
  for (let i = 0; i < argv.length; i++) {
    const takes = argv[i].startsWith('--') && options[argv[i].slice(2)]?.type === 'string';
    out.push(takes && i + 1 < argv.length ? `${argv[i]}=${argv[++i]}` : argv[i]);
  }
  return out;
}

// args reads the command line; ms and counts come back as numbers.
function args(options, required) {
  let values;
  try {
    values = parseArgs({ args: joined(process.argv.slice(2), options), options, strict: true }).values;
  } catch (err) {
    usage(err.message);
  }
  for (const key of required) {
    if (values[key] === undefined) {
      usage(`--${key} is missing`);
    }
  }
  for (const key of ['slow', 'heartbeat', 'count', 'timeout', 'limit', 'retries']) {
    if (values[key] === undefined) {
      continue;
    }
    const n = Number(values[key]);
    const least = { slow: 0, retries: 0, timeout: -1 }[key] ?? 1;
    if (!Number.isInteger(n) || n < least) {
      usage(`--${key} ${values[key]} is not a whole number of ${least} or more`);
    }
    values[key] = n;
  }
  return values;
}

function workerArgs(more) {
  return args({ ...common, ...ofWorker, ...more }, ['endpoint', 'service']);
}

function clientArgs(more) {
  const a = args({ ...common, ...ofClient, ...more }, ['endpoint', 'service']);
  if (!a.stdin === !a.data) {
    usage('one of --data and --stdin is needed');
  }
  orphaned(() => process.exit(3)).unref();
  setTimeout(() => {
    console.error(`${name}: no end after ${a.limit} ms`);
    process.exit(3);
  }, a.limit).unref();
  return a;
}

// json is the data of the peers that send one JSON value.
function json(data) {
  if (data.length !== 1) {
    usage('the data is more than one value');
  }
  try {
    return JSON.parse(data[0]);
  } catch {
    return usage(`data ${data[0]} is not JSON`);
  }
}

// orphaned calls back when the process that started this one is gone: one that
// says its id is also missed if it went before this could look.
function orphaned(then) {
  const parent = Number(process.env.OMDP_STARTER) || process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) {
      then();
    }
  }, 500);
}

// serve keeps a worker or a broker alive until SIGTERM or SIGINT, or until the
// process that started it is gone; then stop is called, and may say when it is
// done.
function serve(stop) {
  let ending = false;
  const alive = orphaned(end);
  async function end() {
    if (ending) {
      return;
    }
    ending = true;
    clearInterval(alive);
    setTimeout(() => process.exit(0), 2000).unref(); // whatever still hangs
    await stop();
  }
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
}

// behave answers one request as every worker of the suite does. reply has
// partial(value) if the dialect has partials, final(value), and error(err) if
// the dialect has errors; err is {code, text}, as a Node user writes it.
async function behave(data, slow, reply) {
  if (data === 'hold') {
    console.log('holding');
    return;
  }
  const wait = () => new Promise((done) => {
    if (slow > 0) {
      setTimeout(done, slow);
    } else {
      done();
    }
  });
  if (data === 'fail' && reply.error) {
    await wait();
    reply.error({ code: 418, text: 'TEAPOT' });
    return;
  }
  if (data === 'partials' && reply.partial) {
    for (let i = 0; i < 3; i++) {
      await wait();
      reply.partial(`partials-${i}`);
    }
    data = 'partials-final';
  }
  await wait();
  reply.final(data);
}

// questions are what a client is to ask, {data, count, timeout}: one from its
// arguments, or each line of the input as JSON.
async function* questions(a) {
  if (!a.stdin) {
    yield a;
    return;
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    yield JSON.parse(line);
  }
}

// ask makes a client's requests in a row. request(question, on) sends one and
// later calls on.partial(value) for each partial, and on.final(value) or
// on.error(value) once. show turns a value into what is printed.
async function ask(a, request, show = (value) => JSON.stringify(value ?? null)) {
  const print = (word, value) => console.log(`${word} ${show(value)}`);
  for await (const q of questions(a)) {
    let finals = 0;
    for (let i = 0; i < (q.count ?? 1); i++) {
      await new Promise((done) => {
        request(q, {
          partial(value) { print('partial', value); },
          final(value) { print('final', value); finals++; done(); },
          error(value) { print('error', value); done(); },
        });
      });
    }
    if (q.count !== undefined) {
      console.log(`done ${finals}`);
    }
    if (a.stdin) {
      console.log('end');
    }
  }
}

// note tells of what is no answer to a request, to standard error.
function note(what) {
  console.error(`${name}: ${what instanceof Error ? what.stack : what}`);
}

module.exports = { workerArgs, clientArgs, args, common, json, serve, behave, ask, note };
