'use strict';

module.exports = require('../zmq-adapter.js');
