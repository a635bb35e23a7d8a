'use strict';

// A DEALER (or REQ) socket for the peers that we wrote ourselves: frames in,
// frames out, in order.

const zeromq = require('zeromq');

const lingerTime = 200; // ms for what was sent last

// open connects and calls onMessage with an array of Buffers for each message.
// identity may be null: libzmq's own.
function open(endpoint, identity, onMessage, Type = zeromq.Dealer) {
  const socket = new Type({ linger: lingerTime });
  if (identity !== null) {
    socket.routingId = identity;
  }
  socket.connect(endpoint);

  const out = [];
  let sending = false;
  let closing = false;

  async function write() {
    if (sending) {
      return;
    }
    sending = true;
    while (out.length > 0) {
      await socket.send(out.shift());
    }
    sending = false;
    if (closing) {
      socket.close();
    }
  }

  async function read() {
    for (;;) {
      let frames;
      try {
        frames = await socket.receive();
      } catch (err) {
        if (closing) {
          return;
        }
        throw err;
      }
      if (closing) {
        return;
      }
      onMessage(frames);
    }
  }
  read(); // what onMessage throws ends the process, as it should

  return {
    send(frames) {
      if (!closing) {
        out.push(frames);
        write();
      }
    },
    close() { // after all that was sent
      if (!closing) {
        closing = true;
        if (!sending) {
          socket.close();
        }
      }
    },
  };
}

module.exports = { open };
