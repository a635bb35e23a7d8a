package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// message is one as it is put into an Out.
type sent struct {
	id     string
	frames []string
	pack   bool
	bundle bool
}

func (s *sent) put(o *Out) {
	o.Pack, o.Bundle = s.pack, s.bundle
	o.Begin()
	if s.id != "" {
		o.FrameString(s.id)
	}
	o.Envelope()
	for _, f := range s.frames {
		o.FrameString(f)
	}
	o.End()
}

// What goes in comes out, whatever is put together on the way: message by
// message, in order, each behind its own id, and never more of them than there were.
func TestBundleProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []sent
		var o Out
		router := rapid.Bool().Draw(t, "router")
		joined := 0
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			s := sent{pack: rapid.Bool().Draw(t, "pack"), bundle: rapid.Bool().Draw(t, "bundle")}
			if router {
				s.id = rapid.SampledFrom([]string{"a", "b", "\x02a"}).Draw(t, "id")
			}
			for range rapid.IntRange(3, 5).Draw(t, "frames") {
				s.frames = append(s.frames, rapid.StringN(0, 1200, 1200).Draw(t, "frame"))
			}
			all = append(all, s)
			before := o.Len()
			s.put(&o)
			if o.Len() == before {
				joined++
			}
			if len(o.Results) != o.Len() {
				t.Fatalf("%d results for %d messages", len(o.Results), o.Len())
			}
		}
		if o.Len()+joined != len(all) {
			t.Fatalf("%d messages and %d joined, of %d", o.Len(), joined, len(all))
		}
		var in In
		for i := range o.Len() {
			in.B = append(in.B, o.Message(i)...)
		}
		for i, s := range all {
			f := in.Next()
			if router {
				if len(f) == 0 || string(f[0]) != s.id {
					t.Fatalf("message %d: %q, want one of %q", i, f, s.id)
				}
				f = f[1:]
			}
			if s.pack {
				if len(f) != 1 {
					t.Fatalf("message %d: %d frames, want an envelope", i, len(f))
				}
				var ok bool
				if f, ok = Unpack(f[0], nil, 16); !ok {
					t.Fatalf("message %d is no envelope", i)
				}
			}
			got := make([]string, len(f))
			for j := range f {
				got[j] = string(f[j])
			}
			if !slices.Equal(got, s.frames) {
				t.Fatalf("message %d: %q, want %q", i, got, s.frames)
			}
		}
		if f := in.Next(); f != nil {
			t.Fatalf("one more: %q", f)
		}
	})
}

// Only what may be joined is, and no frame gets too large.
func TestBundleBounds(t *testing.T) {
	var o Out
	small := sent{id: "a", frames: []string{"C", "6", "r", "x"}, pack: true, bundle: true}
	for range 1000 {
		small.put(&o)
	}
	for i := range o.Len() {
		if n := len(o.Message(i)); n > maxBundle+20 {
			t.Errorf("a message of %d bytes", n)
		}
	}
	if o.Len() > 5 {
		t.Errorf("%d messages for a thousand small ones", o.Len())
	}
	for name, two := range map[string][2]sent{
		"another peer's":        {small, {id: "b", frames: small.frames, pack: true, bundle: true}},
		"the first may not":     {{id: "a", frames: small.frames, pack: true}, small},
		"the second may not":    {small, {id: "a", frames: small.frames, pack: true}},
		"the first no envelope": {{id: "a", frames: small.frames, bundle: true}, small},
	} {
		var o Out
		two[0].put(&o)
		two[1].put(&o)
		if o.Len() != 2 {
			t.Errorf("%s: joined", name)
		}
	}
	var p, q Out
	small.put(&p)
	q.AppendPacked(p.Message(0))
	small.put(&q)
	if q.Len() != 2 {
		t.Error("joined to what was packed before")
	}
	q.DropFront(1)
	small.put(&q)
	if q.Len() != 2 {
		t.Errorf("after the first was dropped: %d messages, want 2", q.Len())
	}
}

// A frame that is not just a bundle of envelopes is given as it came, once.
func TestBundleMalformed(t *testing.T) {
	entry := func(b string) string {
		return string(binary.LittleEndian.AppendUint32(nil, uint32(len(b)))) + b
	}
	envelope := "\x01" + entry("C") + entry("4")
	for name, f := range map[string]string{
		"empty":                  "\x02",
		"a length cut":           "\x02\x05\x00",
		"cut":                    "\x02" + entry(envelope)[:8],
		"an empty message":       "\x02" + entry(""),
		"no envelope":            "\x02" + entry("C"),
		"a bundle in it":         "\x02" + entry("\x02"+entry(envelope)),
		"a good one and garbage": "\x02" + entry(envelope) + "\xff",
		"too large":              "\x02" + entry("\x01"+string(make([]byte, mostBundle))),
		"a length over all":      "\x02\xff\xff\xff\xff" + envelope,
	} {
		for _, id := range []string{"", "id"} {
			var o Out
			o.Begin()
			if id != "" {
				o.FrameString(id)
			}
			o.FrameString(f)
			o.End()
			in := In{B: slices.Clone(o.B)}
			got := in.Next()
			if len(got) == 0 || string(got[len(got)-1]) != f || in.Next() != nil {
				t.Errorf("%s: not given as it came", name)
			}
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x02\x01\x00\x00\x00\x01"), true)
	f.Fuzz(func(t *testing.T, b []byte, id bool) {
		var o Out
		o.Begin()
		if id {
			o.FrameString("id")
		}
		o.Frame(b)
		o.End()
		in := In{B: bytes.Clone(o.B)}
		total := 0
		for f := in.Next(); f != nil; f = in.Next() {
			total += len(f[len(f)-1])
		}
		if total > len(b) {
			t.Fatal(fmt.Sprint(total, " bytes of ", len(b)))
		}
	})
}
