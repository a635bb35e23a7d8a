'use strict';

// A broker of MDP/0.2 (RFC 18). Prints `ready ENDPOINT` once it is bound.

require('./lib/broker.js').main('mdp02');
