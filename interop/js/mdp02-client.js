'use strict';

// A client of MDP/0.2 (RFC 18).

require('./lib/mdp-cli.js').mdpClient(2);
