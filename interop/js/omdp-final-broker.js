'use strict';

// A broker of zmq-omdp's last revision. Prints `ready ENDPOINT` once it is bound.

require('./lib/broker.js').main('omdp-final');
