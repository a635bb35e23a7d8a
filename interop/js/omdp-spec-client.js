'use strict';

// A client of zmq-omdp's revision that is the specification.

const { Client } = require('./lib/omdp-spec.js');
const { omdpClient } = require('./lib/omdp-cli.js');

omdpClient(Client);
