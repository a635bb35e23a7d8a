'use strict';

// A broker of MDP/0.1 (RFC 7). Prints `ready ENDPOINT` once it is bound.

require('./lib/broker.js').main('mdp01');
