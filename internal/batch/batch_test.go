package batch

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// messages reads everything in b, copied.
func messages(b []byte) [][]string {
	in := In{B: b}
	var all [][]string
	for m := in.Next(); m != nil; m = in.Next() {
		frames := make([]string, len(m))
		for i, f := range m {
			frames[i] = string(f)
		}
		all = append(all, frames)
	}
	return all
}

func put(o *Out, frames ...string) {
	o.Begin()
	for _, f := range frames {
		o.FrameString(f)
	}
	o.End()
}

func wantMessages(t *testing.T, b []byte, want ...[]string) {
	t.Helper()
	got := messages(b)
	if len(got) != len(want) {
		t.Fatalf("got %d messages %q, want %d", len(got), got, len(want))
	}
	for i := range want {
		if strings.Join(got[i], "|") != strings.Join(want[i], "|") || len(got[i]) != len(want[i]) {
			t.Errorf("message %d: got %q, want %q", i, got[i], want[i])
		}
	}
}

func TestOutIsReadByIn(t *testing.T) {
	var o Out
	put(&o, "id", "", "body")
	o.Begin()
	o.Frame([]byte("x"))
	o.OpenFrame()
	o.B = append(o.B, "opened"...)
	o.CloseFrame()
	o.OpenFrame()
	o.CloseFrame()
	o.End()
	put(&o, "")

	if o.Len() != 3 || len(o.Results) != 3 {
		t.Fatalf("got %d messages, %d results, want 3 and 3", o.Len(), len(o.Results))
	}
	wantMessages(t, o.B, []string{"id", "", "body"}, []string{"x", "opened", ""}, []string{""})
	wantMessages(t, o.Message(1), []string{"x", "opened", ""})
	wantMessages(t, o.Message(2), []string{""})
}

func TestFramesAreCopied(t *testing.T) {
	var o Out
	p := []byte("before")
	o.Begin()
	o.Frame(p)
	o.End()
	copy(p, "after!")
	wantMessages(t, o.B, []string{"before"})
}

func TestAppendPacked(t *testing.T) {
	var a, b Out
	put(&a, "1", "2")
	put(&a, "3")
	b.AppendPacked(a.Message(1))
	b.AppendPacked(a.Message(0))
	wantMessages(t, b.B, []string{"3"}, []string{"1", "2"})
	if b.Results[0] != Pending || len(b.Results) != 2 {
		t.Errorf("got results %v, want two Pending", b.Results)
	}
}

func TestDropFront(t *testing.T) {
	fill := func() *Out {
		var o Out
		for _, s := range []string{"a", "bb", "ccc", "dddd"} {
			put(&o, "id", s)
		}
		for i := range o.Results {
			o.Results[i] = Status(i)
		}
		return &o
	}
	for n := -1; n <= 5; n++ {
		o := fill()
		o.DropFront(n)
		left := 4 - min(max(n, 0), 4)
		if o.Len() != left || len(o.Results) != left {
			t.Fatalf("DropFront(%d): got %d messages, %d results, want %d", n, o.Len(), len(o.Results), left)
		}
		for i := range left {
			want := []string{"a", "bb", "ccc", "dddd"}[4-left+i]
			if got := messages(o.Message(i)); len(got) != 1 || got[0][1] != want {
				t.Errorf("DropFront(%d): message %d: got %q, want %q", n, i, got, want)
			}
			if o.Results[i] != Status(4-left+i) {
				t.Errorf("DropFront(%d): result %d: got %d, want %d", n, i, o.Results[i], 4-left+i)
			}
		}
		put(o, "new")
		if got := messages(o.Message(left)); got[0][0] != "new" {
			t.Errorf("DropFront(%d), append: got %q, want new", n, got)
		}
	}
}

func TestResetKeepsMemoryButNotALot(t *testing.T) {
	var o Out
	put(&o, "small")
	o.Reset()
	if o.Len() != 0 || len(o.B) != 0 || len(o.Results) != 0 || cap(o.B) == 0 {
		t.Errorf("got len %d, %d bytes, cap %d, want an empty batch with its memory", o.Len(), len(o.B), cap(o.B))
	}
	put(&o, strings.Repeat("x", 2<<20))
	o.Reset()
	if cap(o.B) > 1<<20 {
		t.Errorf("got cap %d after a large batch, want it freed", cap(o.B))
	}
}

func TestFrameCapacityEndsWithTheFrame(t *testing.T) {
	var o Out
	put(&o, "a", "b")
	in := In{B: o.B}
	m := in.Next()
	_ = append(m[0], "overwrites"...)
	if string(m[1]) != "b" {
		t.Errorf("got %q after an append to the frame before, want b", m[1])
	}
}

func TestInvalidateEmpties(t *testing.T) {
	var o Out
	put(&o, "secret")
	in := In{B: bytes.Clone(o.B)}
	room := cap(in.B)
	f := in.Next()[0]
	in.Invalidate()
	if !in.Empty() || in.Next() != nil || cap(in.B) < room {
		t.Errorf("got %d bytes, cap %d, want none and at least %d", len(in.B), cap(in.B), room)
	}
	if checkBorrows && !bytes.Equal(f, bytes.Repeat([]byte{0xDB}, len(f))) {
		t.Errorf("got %q in a frame that was borrowed before, want it overwritten", f)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if checkBorrows {
		t.Skip("the check of borrows allocates")
	}
	var o Out
	var in In
	body := []byte("0123456789abcdef")
	got := testing.AllocsPerRun(100, func() {
		o.Reset()
		for range 10 {
			o.Begin()
			o.Frame(body)
			o.FrameString("text")
			o.End()
		}
		in.Invalidate()
		in.B = append(in.B, o.B...)
		for m := in.Next(); m != nil; m = in.Next() {
			_ = m
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// FuzzRoundTrip cuts data into messages and frames, packs them, drops some from
// the front and reads the rest back.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("some bytes to cut up"), uint64(0x1234), 1)
	f.Add([]byte{}, uint64(0), 0)
	f.Add(bytes.Repeat([]byte{0}, 300), uint64(1<<63|77), 3)
	f.Fuzz(func(t *testing.T, data []byte, cuts uint64, drop int) {
		var o Out
		var want [][]string
		for len(data) > 0 || len(want) == 0 {
			var m []string
			for n := cuts%5 + 1; n > 0; n-- {
				cuts = cuts*6364136223846793005 + 1442695040888963407
				k := min(int(cuts>>33)%9, len(data))
				m = append(m, string(data[:k]))
				data = data[k:]
			}
			put(&o, m...)
			want = append(want, m)
		}
		total := 0
		for i := range o.Len() {
			total += len(o.Message(i))
		}
		if total != len(o.B) {
			t.Fatalf("messages have %d bytes, the batch %d", total, len(o.B))
		}
		drop = min(max(drop, 0), len(want))
		o.DropFront(drop)
		wantMessages(t, o.B, want[drop:]...)

		var again Out
		for i := range o.Len() {
			again.AppendPacked(o.Message(i))
		}
		if !bytes.Equal(again.B, o.B) {
			t.Errorf("packed again: got %x, want %x", again.B, o.B)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	var o Out
	body := []byte("0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		o.Reset()
		for range 100 {
			o.Begin()
			o.FrameString("routing id of 22 bytes")
			o.Frame(body)
			o.End()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/msg")
}

func BenchmarkNext(b *testing.B) {
	var o Out
	for range 100 {
		put(&o, "routing id of 22 bytes", "0123456789abcdef")
	}
	b.ReportAllocs()
	for b.Loop() {
		in := In{B: o.B}
		for m := in.Next(); m != nil; m = in.Next() {
			_ = m
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/msg")
}

// The layout is what exchange.c reads and writes.
func TestLayout(t *testing.T) {
	var o Out
	put(&o, "ab", "")
	var want []byte
	want = binary.NativeEndian.AppendUint32(want, 2)
	want = binary.NativeEndian.AppendUint32(want, 2)
	want = append(want, "ab"...)
	want = binary.NativeEndian.AppendUint32(want, 0)
	if !bytes.Equal(o.B, want) {
		t.Errorf("got %x, want %x", o.B, want)
	}
}

// An envelope is one frame on the wire, and unpacks to what was put in it.
func TestEnvelope(t *testing.T) {
	var o Out
	o.Begin()
	o.FrameString("id")
	o.Pack = true
	o.Envelope()
	o.FrameString("C")
	o.Frame(nil)
	o.OpenFrame()
	o.B = append(o.B, "opened"...)
	o.CloseFrame()
	o.End()
	o.Pack = false
	o.Begin()
	o.Envelope() // none
	o.FrameString("plain")
	o.End()
	in := In{B: o.B}
	m := in.Next()
	if len(m) != 2 || string(m[0]) != "id" {
		t.Fatalf("got frames %q, want the id and an envelope", m)
	}
	inner, ok := Unpack(m[1], nil, 3)
	if !ok || len(inner) != 3 || string(inner[0]) != "C" || len(inner[1]) != 0 || string(inner[2]) != "opened" {
		t.Errorf("got %q, %v, want C, an empty frame and opened", inner, ok)
	}
	if m := in.Next(); len(m) != 1 || string(m[0]) != "plain" {
		t.Errorf("got %q after it, want plain", m)
	}
}

// What is no envelope is refused, whatever it is; nothing is allocated for a claimed length.
func TestUnpackRefuses(t *testing.T) {
	for _, b := range []string{"", "C", "\x00", "\x01\x01", "\x01\x01\x00\x00\x00", "\x01\xff\xff\xff\xffx", "\x01\x01\x00\x00\x00ab"} {
		if f, ok := Unpack([]byte(b), nil, 16); ok {
			t.Errorf("Unpack(%q): got %q, want a refusal", b, f)
		}
	}
	if _, ok := Unpack([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00"), nil, 1); ok {
		t.Error("two frames where one is allowed: got them, want a refusal")
	}
	if f, ok := Unpack([]byte{Mark}, nil, 16); !ok || len(f) != 0 {
		t.Errorf("an empty envelope: got %q, %v, want no frames", f, ok)
	}
}
