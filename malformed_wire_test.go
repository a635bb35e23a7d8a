package omdp_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// What is malformed below the messages: frames over the limit, and a wire
// protocol that is not kept to (ZMTP 3.0). libzmq takes it or cuts the
// connection; in either case nothing reaches the core, and the honest are served.

type wireCase struct {
	name   string
	hello  bool   // the handshake is done before
	bytes  string // written to the connection
	leaves bool   // … which is then closed from this side
	cut    bool   // the broker's side cuts it; else what follows is read
}

const wireFrame = 64 << 10 // the broker's MaxFrame

// zmtp encodes frames as ZMTP 3.0 does; open leaves the last one without its end.
func zmtp(more byte, frames ...string) string {
	var b []byte
	for i, f := range frames {
		flags := byte(3) // long, and more follows
		if i == len(frames)-1 {
			flags = 2 | more
		}
		b = binary.BigEndian.AppendUint64(append(b, flags), uint64(len(f)))
		b = append(b, f...)
	}
	return string(b)
}

func zmtpCommand(body string) string {
	return string(append(binary.BigEndian.AppendUint64([]byte{6}, uint64(len(body))), body...))
}

func zmtpReady(properties ...string) string {
	b := []byte("\x05READY")
	for i, p := range properties {
		if i%2 == 0 {
			b = append(b, byte(len(p)))
		} else {
			b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		}
		b = append(b, p...)
	}
	return zmtpCommand(string(b))
}

// greeting is ZMTP's first 64 bytes.
func greeting(signature, version, mechanism string, server byte) string {
	b := make([]byte, 64)
	copy(b, signature)
	copy(b[10:], version)
	copy(b[12:], mechanism)
	b[32] = server
	return string(b)
}

func wireCases() (all []wireCase) {
	large := strings.Repeat("x", wireFrame+1)
	for _, k := range toBroker {
		for i, f := range k.form.fields {
			if i < 2 && k.form.name != "REQUEST" && k.form.name != "READY" {
				continue
			}
			frames := k.form.frames()
			frames[i] = large
			all = append(all, wireCase{string(k.from) + " " + k.form.name + "/" + f.name + " over MaxFrame", true, zmtp(0, frames...), false, true})
		}
	}
	all = append(all, wireCase{"an envelope over MaxFrame", true, zmtp(0, string(envelope("C", "2", "echo", "1", large))), false, true})
	for _, n := range []uint64{wireFrame + 1, 1 << 31, 1 << 32, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		all = append(all, wireCase{fmt.Sprintf("a frame that is said to have %d bytes", n), true, "\x02" + string(binary.BigEndian.AppendUint64(nil, n)), false, true})
	}
	const good = "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"
	hands := greeting(good, "\x03\x00", "NULL", 0)
	return append(all, []wireCase{
		{"a message that never ends, of empty frames", true, zmtp(1, make([]string, 5000)...), true, false},
		{"a message without its last frame", true, zmtp(1, "C", "2", "echo"), true, false},
		{"a frame without its last byte", true, strings.TrimSuffix(zmtp(0, "C", "2", "echo", "1", "x"), "x"), true, false},
		{"a length without its last byte", true, "\x02\x00\x00\x00\x00\x00\x00\x00", true, false},
		{"flags alone", true, "\x00", true, false},
		{"a command of no bytes", true, "\x04\x00", false, false},
		{"a command without a name", true, "\x04\x01\x00", false, false},
		{"a command shorter than its name", true, "\x04\x03\x7fAB", false, false},
		{"a command of an unknown name", true, zmtpCommand("\x07UNKNOWN"), false, false},
		{"a second READY", true, zmtpReady("Socket-Type", "DEALER"), false, false},
		{"a PING without a TTL", true, zmtpCommand("\x04PING"), false, false},
		{"a PONG to nothing", true, zmtpCommand("\x04PONGx"), false, false},
		{"an ERROR", true, zmtpCommand("\x05ERROR\x04fail"), false, false},
		{"nothing", false, "", true, false},
		{"HTTP", false, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", false, true},
		{"TLS", false, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false, true},
		{"half a greeting", false, hands[:30], true, false},
		{"a greeting alone", false, hands, true, false},
		{"the mechanism XXXX", false, greeting(good, "\x03\x00", "XXXX", 0) + zmtpReady("Socket-Type", "DEALER"), false, true},
		{"the mechanism PLAIN", false, greeting(good, "\x03\x00", "PLAIN", 0) + zmtpCommand("\x05HELLO\x01u\x01p"), false, true},
		{"the mechanism CURVE", false, greeting(good, "\x03\x00", "CURVE", 0) + zmtpCommand("\x05HELLO"+strings.Repeat("c", 194)), false, true},
		{"no READY but a message", false, hands + zmtp(0, "C", "4", "1"), false, true},
		{"READY without a socket type", false, hands + zmtpReady(), false, false},
		{"READY of a PUB", false, hands + zmtpReady("Socket-Type", "PUB"), false, true},
		{"READY of an unknown socket", false, hands + zmtpReady("Socket-Type", "OMDP"), false, true},
		{"READY with a property cut", false, hands + zmtpCommand("\x05READY\x0bSocket-Type\x00\x00\x00\x06DEAL"), false, true},
		{"READY with a property of 4 GiB", false, hands + zmtpCommand("\x05READY\x0bSocket-Type\xff\xff\xff\xffDEALER"), false, true},
		{"READY with a name cut", false, hands + zmtpCommand("\x05READY\x7fSocket"), false, true},
		{"ERROR instead of READY", false, hands + zmtpCommand("\x05ERROR\x04fail"), false, true},
	}...)
}

func TestMalformedWire(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Heartbeat: patience, Limits: omdp.Limits{MaxFrame: wireFrame, Handshake: 300 * time.Millisecond}})
	addWorker(t, b, "echo", &omdp.WorkerConfig{Heartbeat: patience}, echo)
	c := addClient(t, b, &omdp.ClientConfig{Heartbeat: patience})
	for _, k := range wireCases() {
		t.Run(k.name, func(t *testing.T) {
			before, own := b.Stats(), map[string]uint64{}
			own["Accepted"], own["Dispatched"], own["Completed"] = 1, 1, 1
			var w *wire
			if k.hello {
				w = dialWire(t, b.Endpoint(), fmt.Sprint("wire-", endpointCount.Add(1)))
			} else {
				w = dialTCP(t, b.Endpoint())
			}
			w.Write([]byte(k.bytes)) // an error is a connection that was cut early
			switch {
			case k.leaves:
				w.Close()
			case k.cut:
				if _, err := io.Copy(io.Discard, w.r); err != nil && strings.Contains(err.Error(), "timeout") {
					t.Error("the connection is open, want it cut")
				}
			default:
				if !k.hello {
					io.ReadFull(w.r, make([]byte, 64))
					w.frame()
				}
				own["UnknownRequests"] = 1
				w.send("C", "4", "after")
				if m, err := w.next(); err != nil || strings.Join(m, "|") != `C|3|after|{"status":"LOST"}` {
					t.Errorf("got %q, %v; want the connection open and an answer", m, err)
				}
			}
			served(t, c, "echo")
			if got := moved(before, b.Stats(), own); got != "" {
				t.Errorf("counters moved: %s; want none", got)
			}
		})
	}
}
