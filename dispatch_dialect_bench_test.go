package omdp

import (
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// BenchmarkDialects is one request and its reply through the core, read and
// written in one dialect on both sides; "omdp" is what peers of the specification
// say, and "across" joins a client of MDP/0.2 and a worker of PIGATO.
func BenchmarkDialects(b *testing.B) {
	for _, c := range []struct {
		name           string
		client, worker Dialect
	}{
		{"omdp", OMDP, OMDP}, {"omdp-final", OMDPFinal, OMDPFinal}, {"pigato", PIGATO, PIGATO}, {"mdp02", MDP02, MDP02}, {"mdp01", MDP01, MDP01}, {"across", MDP02, PIGATO},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{1}, 2)
			d.dialects[0], d.dialects[1] = c.client, c.worker
			r := dialectRig{d: d, b: b}
			peer := map[Dialect]struct{ ready, ask, reply [][]byte }{
				OMDP:      {byteFrames("W", "1", "s"), byteFrames("C", "2", "s", "r", `"0123456789abcdef"`, "{}"), byteFrames("W", "3", "", "r", `{"status":200,"msg":"0123456789abcdef"}`)},
				OMDPFinal: {byteFrames("W", "1", "s"), byteFrames("C", "2", "s", "r", `"0123456789abcdef"`, `{"timeout":60000}`), byteFrames("W", "3", "", "r", "0", `"0123456789abcdef"`)},
				PIGATO:    {byteFrames("W", "1", "s"), byteFrames("C", "2", "s", "r", `"0123456789abcdef"`, `{"timeout":60000,"retry":0}`), byteFrames("W", "3", "", "", "r", "0", `"0123456789abcdef"`, "{}")},
				MDP02:     {byteFrames("MDPW02", "\x01", "s"), byteFrames("MDPC02", "\x01", "s", `"0123456789abcdef"`), byteFrames("MDPW02", "\x04", "", "", `"0123456789abcdef"`)},
				MDP01:     {byteFrames("", "MDPW01", "\x01", "s"), byteFrames("", "MDPC01", "s", `"0123456789abcdef"`), byteFrames("", "MDPW01", "\x03", "", "", `"0123456789abcdef"`)},
			}
			at := map[Dialect]int{OMDP: 2, OMDPFinal: 2, PIGATO: 2, MDP02: 2, MDP01: 3}[c.worker] // where the token stands
			ask, reply := peer[c.client].ask, peer[c.worker].reply
			r.say(1, "w", peer[c.worker].ready)
			var rid [8]byte
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if wires[c.client].numbered {
					for i, k := len(rid)-1, n; i >= 0; i, k = i-1, k/10 {
						rid[i] = byte('0' + k%10)
					}
					ask[3] = rid[:]
				}
				r.say(0, "c", ask)
				given := r.take(1)
				reply[at] = append(reply[at][:0], given[at+1]...)
				switch { // the rid as it was given
				case c.worker == PIGATO:
					reply[4] = append(reply[4][:0], given[6]...)
				case wires[c.worker].numbered:
					reply[3] = append(reply[3][:0], given[4]...)
				}
				r.say(1, "w", reply)
				r.take(0)
			}
			if d.stats.Completed == 0 || d.stats.Malformed != 0 {
				b.Fatalf("%+v", d.stats)
			}
		})
	}
}

func byteFrames(text ...string) (f [][]byte) {
	for _, s := range text {
		f = append(f, []byte(s))
	}
	return f
}

type dialectRig struct {
	d   *dispatcher
	b   *testing.B
	now instant
	m   message
	in  batch.In
}

func (r *dialectRig) say(l int, id string, f [][]byte) {
	r.now += time.Microsecond
	if !r.d.read(l, []byte(id), f, &r.m) {
		r.b.Fatalf("malformed: %q", f)
	}
	r.d.receive(r.now, l, []byte(id), &r.m)
}

// take reads what listener l sends, and returns the last message.
func (r *dialectRig) take(l int) (last [][]byte) {
	out := r.d.take(l)
	for i := range out.Results {
		out.Results[i] = batch.Sent
	}
	r.in = batch.In{B: append(r.in.B[:0], out.B...)}
	r.d.settle(r.now, l)
	for f := r.in.Next(); f != nil; f = r.in.Next() {
		last = f
	}
	return last
}
