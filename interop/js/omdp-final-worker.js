'use strict';

// A worker of zmq-omdp's last revision.

const { Worker } = require('./lib/omdp-final.js');
const { omdpWorker } = require('./lib/omdp-cli.js');

omdpWorker(Worker, (res, err) => res.error(err));
