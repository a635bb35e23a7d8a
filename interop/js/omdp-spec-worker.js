'use strict';

// A worker of zmq-omdp's revision that is the specification.

const { Worker } = require('./lib/omdp-spec.js');
const { omdpWorker } = require('./lib/omdp-cli.js');

omdpWorker(Worker, (res, err) => res.error(err.code, err.text));
