'use strict';

// A client of MDP/0.1 (RFC 7), on a REQ socket, or with --socket dealer.

require('./lib/mdp-cli.js').mdpClient(1);
