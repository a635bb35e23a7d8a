'use strict';

// A worker of MDP/0.1 (RFC 7).

require('./lib/mdp-cli.js').mdpWorker(1);
