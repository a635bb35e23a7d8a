package omdp

import (
	"fmt"
	"testing"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// BenchmarkCodec encodes and parses the messages of one request on its way
// from the client to the worker and back, in the two forms.
func BenchmarkCodec(b *testing.B) {
	for _, pack := range []bool{false, true} {
		for _, size := range []int{16, 4 << 10} {
			b.Run(fmt.Sprintf("pack=%v/size=%d", pack, size), func(b *testing.B) {
				var both [2]batch.Out // what was parsed last is borrowed from the other one
				o := &both[0]
				var in batch.In
				var m message
				data := appendJSONString(nil, string(make([]byte, size)))
				rid, token := "abcdefghijklmnopqrstuv-0000000000", "AAAAabcdefghijklmnopqrstuv"
				x := extra{remaining: 60000, attempt: 1, credit: 1 << 18, raw: true}
				parse := func(to func([][]byte, *message) bool, skip int) {
					in.Invalidate()
					in.B = o.B
					if f := in.Next(); !to(f[skip:], &m) {
						b.Fatalf("not understood: %q", f)
					}
					if o == &both[0] {
						o = &both[1]
					} else {
						o = &both[0]
					}
					o.Reset()
					o.Pack = pack
				}
				o.Pack = pack
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					appendClientRequest(o, "service", rid, data, nil, "")
					parse(parseAtBroker, 0)
					appendDispatch(o, "worker-identity-123456", []byte(token), []byte(rid), data, nil, "", &x)
					parse(parseAtWorker, 1)
					appendReplyJSON(o, opReply, token, rid, "200", data)
					parse(parseAtBroker, 0)
					appendToClient(o, "client-identity-123456", opReply, m.rid, m.body)
					parse(parseAtClient, 1)
				}
			})
		}
	}
}

// The codec allocates nothing once its buffers have grown.
func TestCodecAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var o batch.Out
	var m message
	var in batch.In
	data := []byte(`"0123456789abcdef"`)
	for _, pack := range []bool{false, true} {
		round := func() {
			o.Reset()
			o.Pack = pack
			appendClientRequest(&o, "service", "rid", data, nil, "")
			in.Invalidate()
			in.B = o.B
			if !parseAtBroker(in.Next(), &m) {
				t.Fatal("not understood")
			}
		}
		round()
		if n := testing.AllocsPerRun(100, round); n != 0 {
			t.Errorf("pack %v: %v allocations a message, want 0", pack, n)
		}
	}
}
