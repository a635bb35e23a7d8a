'use strict';

// A worker of MDP/0.2 (RFC 18).

require('./lib/mdp-cli.js').mdpWorker(2);
