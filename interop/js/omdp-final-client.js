'use strict';

// A client of zmq-omdp's last revision.

const { Client } = require('./lib/omdp-final.js');
const { omdpClient } = require('./lib/omdp-cli.js');

omdpClient(Client);
