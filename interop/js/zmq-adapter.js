'use strict';

// The API of the `zmq` package 2.x, as far as PIGATO uses it, on top of
// `zeromq` 6. The old package no longer compiles on today's Node.
//
// What is not here: pause, resume, read, monitor, contexts, and options that
// are not listed below. They throw or are undefined, they never do nothing.

const { EventEmitter } = require('node:events');
const zeromq = require('zeromq');

const classes = {
  pub: zeromq.Publisher,
  sub: zeromq.Subscriber,
  xpub: zeromq.XPublisher,
  xsub: zeromq.XSubscriber,
  req: zeromq.Request,
  rep: zeromq.Reply,
  dealer: zeromq.Dealer,
  xreq: zeromq.Dealer,
  router: zeromq.Router,
  xrep: zeromq.Router,
  push: zeromq.Push,
  pull: zeromq.Pull,
  pair: zeromq.Pair,
};

const STATE_READY = 0;
const STATE_CLOSED = 2;
const SNDMORE = 2;

// The old names of options, and what sets or gets them now.
const options = {
  identity: 'routingId',
  linger: 'linger',
  backlog: 'backlog',
  affinity: 'affinity',
  sndhwm: 'sendHighWaterMark',
  rcvhwm: 'receiveHighWaterMark',
  sndbuf: 'sendBufferSize',
  rcvbuf: 'receiveBufferSize',
  reconnect_ivl: 'reconnectInterval',
  last_endpoint: 'lastEndpoint',
};

// How long close() waits for what was sent before it, at most.
const drainTime = 1000;

class Socket extends EventEmitter {
  constructor(type) {
    super();
    if (!Object.hasOwn(classes, type)) {
      throw new TypeError(`unknown socket type: ${type}`);
    }
    this.type = type;
    this._zmq = { state: STATE_READY }; // PIGATO looks at the binding's state
    this._socket = new classes[type]();
    this._out = []; // {frames, done}, the first is on its way
    this._more = []; // frames of a message whose last one is still to come
    this._sending = false;
    this._reading = false;
  }

  getsockopt(name) {
    return this._socket[this._option(name)];
  }

  setsockopt(name, value) {
    const option = this._option(name);
    if (option in this._socket) {
      this._socket[option] = value;
    } else if (option !== 'routingId') { // a SUB or PUB may have a name, nobody sees it
      throw new Error(`${this.type} has no option ${name}`);
    }
    return this;
  }

  _option(name) {
    if (!Object.hasOwn(options, name)) {
      throw new Error(`unknown option: ${name}`);
    }
    return options[name];
  }

  // bind calls back as soon as the endpoint is bound. It is done at once, since
  // zeromq 6 refuses all else on a socket while an asynchronous bind is under way.
  bind(endpoint, callback) {
    let failed;
    try {
      this._socket.bindSync(endpoint);
    } catch (err) {
      failed = err;
    }
    setImmediate(() => {
      if (!failed) {
        this._read();
        this.emit('bind', endpoint);
      }
      if (callback) {
        callback(failed);
      }
    });
    return this;
  }

  bindSync(endpoint) {
    this._socket.bindSync(endpoint);
    this._read();
    return this;
  }

  // unbind does what the old package did with a libzmq that could not: nothing.
  // The close() that follows unbinds; to unbind a ROUTER while its peers leave
  // can abort the process.
  unbind(endpoint, callback) {
    if (callback) {
      setImmediate(callback);
    }
    return this;
  }

  connect(endpoint) {
    this._socket.connect(endpoint);
    this._read();
    return this;
  }

  disconnect(endpoint) {
    this._socket.disconnect(endpoint);
    return this;
  }

  subscribe(prefix) {
    this._socket.subscribe(prefix);
    return this;
  }

  unsubscribe(prefix) {
    this._socket.unsubscribe(prefix);
    return this;
  }

  // send takes a frame or an array of frames. What is no Buffer is sent as its
  // text: PIGATO sends numbers and undefined so.
  send(message, flags, callback) {
    if (this._zmq.state === STATE_CLOSED) {
      throw new Error('Socket is closed');
    }
    for (const frame of Array.isArray(message) ? message : [message]) {
      this._more.push(Buffer.isBuffer(frame) ? frame : Buffer.from(String(frame)));
    }
    if (flags & SNDMORE) {
      return this;
    }
    this._out.push({ frames: this._more, done: callback });
    this._more = [];
    this._write();
    return this;
  }

  // close lets what was sent before it go out first: the old package had handed
  // it to libzmq already when send() returned.
  close() {
    if (this._zmq.state === STATE_CLOSED) {
      return this;
    }
    this._zmq.state = STATE_CLOSED;
    if (!this._sending) {
      this._socket.close();
      return this;
    }
    this._drain = setTimeout(() => this._socket.close(), drainTime);
    return this;
  }

  async _write() {
    if (this._sending) {
      return;
    }
    this._sending = true;
    while (this._out.length > 0 && !this._socket.closed) {
      const { frames, done } = this._out.shift();
      let failed;
      try {
        await this._socket.send(frames);
      } catch (err) {
        failed = err;
      }
      if (done) {
        this._user(() => done.call(this, failed));
      } else if (failed && !this._socket.closed) {
        this._user(() => this.emit('error', failed));
      }
    }
    this._sending = false;
    if (this._zmq.state === STATE_CLOSED && !this._socket.closed) {
      clearTimeout(this._drain);
      this._socket.close();
    }
  }

  async _read() {
    if (this._reading || !this._socket.receive) {
      return;
    }
    this._reading = true;
    for (;;) {
      let frames;
      try {
        frames = await this._socket.receive();
      } catch (err) {
        if (!this._socket.closed) {
          this._user(() => this.emit('error', err));
        }
        return;
      }
      // A message of the old package came from the event loop, after all that
      // was to be done by the next tick: PIGATO's client counts on it, and loses
      // partials that come sooner together with their final.
      await new Promise(setImmediate);
      if (this._zmq.state === STATE_CLOSED) {
        return;
      }
      this._user(() => {
        try {
          this.emit('message', ...frames);
        } catch (err) {
          this.emit('error', err); // as the old package did; thrown if nobody listens
        }
      });
    }
  }

  // _user runs what a listener may throw in, so that it ends the process as an
  // uncaught exception would, and not this socket's loop.
  _user(run) {
    try {
      run();
    } catch (err) {
      process.nextTick(() => { throw err; });
    }
  }
}

// The accessors: sock.identity = name.
for (const name of Object.keys(options)) {
  Object.defineProperty(Socket.prototype, name, {
    get() { return this.getsockopt(name); },
    set(value) { this.setsockopt(name, value); },
  });
}

function socket(type, settings) {
  return Object.assign(new Socket(type), settings);
}

module.exports = {
  version: zeromq.version,
  types: Object.fromEntries(Object.keys(classes).map((name) => [name, name])),
  options,
  Socket,
  socket,
  createSocket: socket,
  STATE_READY,
  STATE_CLOSED,
  ZMQ_SNDMORE: SNDMORE,
  ZMQ_CAN_UNBIND: false,
};
