'use strict';

// A broker of zmq-omdp's revision that is the specification. Prints `ready ENDPOINT` once it is bound.

require('./lib/broker.js').main('omdp-spec');
