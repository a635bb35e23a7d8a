package omdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What scripts (testdata/scripts) can't say well: limits, long runs, costs.

func newTestScript(t *testing.T, change func(*limits)) *script {
	s := newScript(t)
	if change != nil {
		change(&s.d.lim)
	}
	return s
}

// do plays events and returns what was sent, a line each.
func (s *script) do(events string) []string {
	s.out.Reset()
	s.run(strings.TrimSpace(events))
	var all []string
	for line := range strings.Lines(s.out.String()) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			all = append(all, strings.TrimSuffix(text, "\n"))
		}
	}
	return all
}

func (s *script) expect(events string, want ...string) {
	s.t.Helper()
	if got := s.do(events); !slices.Equal(got, want) {
		s.t.Fatalf("%s\ngot  %q\nwant %q", events, got, want)
	}
}

// TestLimits: what a peer gets when each limit is hit (reliability.md, Limits).
func TestLimits(t *testing.T) {
	const over = `{"status":"OVERLOADED","executed":false}`
	for name, c := range map[string]struct {
		change func(*limits)
		events string
		want   []string
	}{
		"queue of a service": {func(l *limits) { l.serviceQueue = 1 }, "a> C|2|s|1|1\nb> C|2|s|1|1\nb> C|2|t|2|1", []string{"b< C|3|1|" + over}},
		"bytes of a service": {func(l *limits) { l.serviceBytes = 10 }, "a> C|2|s|1|1\na> C|2|s|2|123456789\na> C|2|s|3|1", []string{"a< C|3|2|" + over}},
		"queue in total":     {func(l *limits) { l.totalQueue = 2 }, "a> C|2|s|1|1\na> C|2|t|2|1\na> C|2|u|3|1", []string{"a< C|3|3|" + over}},
		"bytes in total":     {func(l *limits) { l.totalBytes = 10 }, "a> C|2|s|1|12345\na> C|2|t|2|12345", []string{"a< C|3|2|" + over}},
		"outstanding":        {func(l *limits) { l.outstanding = 2 }, "a> C|2|s|1|1\na> C|2|s|2|1\na> C|2|s|3|1\nb> C|2|s|3|1", []string{"a< C|3|3|" + over}},
		"services":           {func(l *limits) { l.services = 1 }, "a> C|2|s|1|1\na> C|2|t|2|1\nw> W|1|t", []string{"a< C|3|2|" + over, "w< W|5"}},
		"workers":            {func(l *limits) { l.workers = 1 }, "w> W|1|s\nv> W|1|s", []string{"v< W|5"}},
		"clients":            {func(l *limits) { l.clients = 1 }, "a> C|2|s|1|1\nb> C|2|s|1|1\nc> C|8|{\"v\":1,\"id\":\"c\",\"hb\":1000}", []string{"b< C|3|1|" + over}},
		"concurrency": {func(l *limits) { l.concurrency = 1 }, "w> W|1|s|{\"v\":1,\"id\":\"w\",\"hb\":2500,\"concurrency\":7}\na> C|2|s|1|1|{}\na> C|2|s|2|1|{}",
			[]string{`w< W|8|{"v":1,"id":"brokers-life","hb":2500}`, `w< W|2|T1|1|1|{}|{"remaining":60000,"attempt":1,"credit":0,"raw":false}`, "a< C|4|1"}},
		"timeout":    {func(l *limits) { l.maxTimeout = time.Second }, "a> C|2|s|1|1|{\"timeout\":-1}\na> C|2|s|2|1|{\"timeout\":5000}\n+999ms\n+1ms", []string{`a< C|3|1|{"status":"TIMEOUT","executed":false}`, `a< C|3|2|{"status":"TIMEOUT","executed":false}`}},
		"no timeout": {func(l *limits) { l.defaultTimeout = -1 }, "a> C|2|s|1|1\na> C|4\n+1s\n+10s", nil},
	} {
		t.Run(name, func(t *testing.T) { newTestScript(t, c.change).expect(c.events, c.want...) })
	}
}

// TestOutboxLimit: I4: a client that does not read is owed what waits for it,
// in order, then SLOW_CLIENT; its worker is told, and nothing of others is lost.
func TestOutboxLimit(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.outbox = 3 })
	s.do(`w> W|1|s|{"v":1,"id":"w","hb":2500,"concurrency":2}
a> C|8|{"v":1,"id":"a","hb":2500}
a> C|2|s|r1|1|{}
b> C|2|s|r1|1|{}
full a`)
	s.expect("w> W|6|T1|r1|b|1", "a< C|6|r1|b|1   (no room)")
	s.expect("w> W|6|T1|r1|b|2\nw> W|6|T1|r1|b|3")
	s.expect("w> W|6|T1|r1|b|4", "w< W|10|T1|r1|gone")
	s.expect("w> W|6|T1|r1|b|5\nw> W|3|T1|r1|b|6")
	s.expect("w> W|6|T2|r1|b|1", `b< C|6|r1|{"status":200,"msg":"1"}`)
	s.expect("a> C|2|s|r2|1|{}") // refused; the answer waits with the rest
	// It can't make the broker remember without bound.
	for i := range 1000 {
		s.do(fmt.Sprintf("a> C|4|x%d\na> C|8|{\"v\":1,\"id\":\"a\",\"hb\":2500}", i))
	}
	if n := s.d.outboxBytes; n > 2000 {
		t.Errorf("%d bytes wait for a client that does not read", n)
	}
	got := s.do("ok a\n+50ms")
	want := []string{"a< C|6|r1|b|1", "a< C|6|r1|b|2", "a< C|6|r1|b|3", "a< C|6|r1|b|4", `a< C|3|r1|{"status":"SLOW_CLIENT"}`, `a< C|3|r2|{"status":"OVERLOADED","executed":false}`}
	if len(got) < 6 || !slices.Equal(got[:6], want) {
		t.Errorf("got %q, want first %q", got, want)
	}
	if s.expect("a> C|2|t|r3|1|{}"); s.d.stats.SlowClients != 1 {
		t.Errorf("counted %d slow clients", s.d.stats.SlowClients)
	}
}

// TestStuckPeersCostLittle: one whose pipe is full is tried with one message,
// not with its whole backlog, and its client is not told of each try.
func TestStuckPeersCostLittle(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("w> W|1|s\nfull w")
	s.expect("a> C|2|s|r1|1|{\"timeout\":10000}", "w< W|2|T1|r1|1|{\"timeout\":10000}   (no room)", "a< C|4|r1")
	before := s.d.stats.Again
	s.expect("+1s")
	if n := s.d.stats.Again - before; n > 300 {
		t.Errorf("tried %d times in a second", n)
	}
	s.do("ok w\n+10ms\nfull a")
	for range 200 {
		s.do("w> W|6|T2|r1|{\"status\":200,\"msg\":1}")
	}
	before = s.d.stats.Again
	s.expect("+1s")
	if n := s.d.stats.Again - before; n > 800 { // the first try is with all
		t.Errorf("%d messages tried in a second", n)
	}
}

// TestNobodyTakesAllRoom: a client that claims an absurd window and does not
// read leaves room for others; beats can't fill a stuck worker's outbox.
func TestNobodyTakesAllRoom(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.outboxBytes, l.totalOutbox = 1000, 8000 })
	s.do(`w> W|1|s|{"v":1,"id":"w","hb":2500,"concurrency":2}
a> C|8|{"v":1,"id":"a","hb":2500,"credit":1000000000000}
a> C|2|s|r1|1|{}
b> C|2|s|r1|1|{}
full a
full b`)
	for range 40 {
		s.do("w> W|6|T1|r1|b|" + strings.Repeat("x", 100))
	}
	if n := s.d.outboxBytes; n > 2500 {
		t.Errorf("one client has %d of 8000 bytes", n)
	}
	if s.do("w> W|6|T2|r1|b|1"); s.d.stats.SlowClients != 1 {
		t.Errorf("%d clients were too slow", s.d.stats.SlowClients)
	}
	s.do("full w\n+2.5s")
	for range 2000 {
		s.do("b> C|4|r1")
	}
	if s.d.workers != 1 {
		t.Error("a client's beats cost another's worker")
	}
}

// TestSilentClientIsLostInTime: I17, also of a client that beat only after its
// first message.
func TestSilentClientIsLostInTime(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("w> W|1|s|{\"v\":1,\"id\":\"w\",\"hb\":10000}\na> C|2|s|r1|1|{\"timeout\":-1}\na> C|4")
	if got := s.do("+15s"); !slices.Contains(got, "w< W|10|T1|r1|gone") {
		t.Errorf("the worker was not told within 15 s: %q", got)
	}
}

// TestUnderTheSameTurn: a request that is dispatched and cancelled, and a
// worker that leaves, before anything could be sent.
func TestUnderTheSameTurn(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("w> W|1|s|{\"v\":1,\"id\":\"w\",\"hb\":2500}\nfull w")
	s.do("same {\na> C|2|s|r1|1|{}\na> C|10|r1\na> C|2|s|r2|2|{}\n}")
	if s.d.queued != 1 || s.d.requests.n != 1 {
		t.Fatalf("%d queued, %d requests", s.d.queued, s.d.requests.n)
	}
	got := s.do("ok w\n+1ms")
	if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "w< W|2|T2|r2|2|{}") }) {
		t.Errorf("the second was not dispatched: %q", got)
	}
	s.do("same {\na> C|2|s|r3|3|{}\nw> W|5\n}")
	s.do("a> C|10|r3")
}

// TestNeverAfterTheDeadline: I11, also when messages are taken before the timers.
func TestNeverAfterTheDeadline(t *testing.T) {
	s := newTestScript(t, nil)
	s.do(`a> C|2|s|r1|1|{"timeout":1000}`)
	s.now = time.Second
	m := message{worker: true, op: opReady, service: []byte("s")}
	s.d.receive(s.now, 0, []byte("w"), &m)
	s.flush()
	if got := s.out.String(); strings.Contains(got, "W|2") || !strings.Contains(got, `a< C|3|r1|{"status":"TIMEOUT","executed":false}`) {
		t.Errorf("got %s", got)
	}
}

// TestTokens: I7: 128 random bits each, and none twice in 100,000.
func TestTokens(t *testing.T) {
	r := newCoreRig(1, 1, 0)
	seen := map[string]bool{}
	for range 100_000 {
		h := r.held[r.at]
		if seen[string(h.token)] {
			t.Fatalf("token %q was used twice", h.token)
		}
		seen[string(h.token)] = true
		for _, c := range h.token {
			if base64value[c] == 255 {
				t.Fatalf("token %q is not printable", h.token)
			}
		}
		r.step()
	}
}

// TestStepsStayFlat: a request and its reply cost the same however many
// services, workers and queued requests there are; the timers, the only part
// that is not O(1), at most the logarithm.
func TestStepsStayFlat(t *testing.T) {
	steps := func(services, workers, queued int) float64 {
		r := newCoreRig(services, workers, queued)
		const n = 2000
		before := r.d.timers.steps
		for range n {
			r.step()
		}
		if err := r.d.check(); err != nil {
			t.Fatal(err)
		}
		return float64(r.d.timers.steps-before) / n
	}
	base := steps(1, 1, 0)
	for _, n := range []int{1000, 100_000} {
		if n > 1000 && (raceEnabled || testing.Short()) {
			continue
		}
		for name, got := range map[string]float64{"services": steps(n, 1, 0), "workers": steps(1, n, 0), "queued": steps(1, 1, n)} {
			t.Logf("%s=%d: %.1f moves in the heap, %.1f with none", name, n, got, base)
			if got > base+12 { // 2·log4(100,000) = 17 in the worst case; in order of arrival far fewer
				t.Errorf("%s=%d: %.1f moves in the heap for a request, %.1f with none", name, n, got, base)
			}
		}
	}
}

// TestCoreAllocates nothing in the steady state, also with a queue.
func TestCoreAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations mean nothing under the race detector")
	}
	for _, c := range []struct{ services, workers, queued int }{{1, 1, 0}, {1024, 1, 0}, {1, 1000, 0}, {1, 1, 1000}} {
		r := newCoreRig(c.services, c.workers, c.queued)
		for range 3 * (c.workers + c.queued + 100) {
			r.step()
		}
		if n := testing.AllocsPerRun(1000, r.step); n != 0 {
			t.Errorf("%+v: %v allocations for a request and its reply", c, n)
		}
	}
}

// TestParseAllocates nothing.
func TestParseAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations mean nothing under the race detector")
	}
	request, reply := split(`C|2|echo|r1|"x"|{"timeout":1000}`), split(`W|3|token|r1|{"status":200,"msg":"x"}`)
	x := []byte(`{"remaining":812,"attempt":1,"credit":262144,"raw":true}`)
	var m message
	var o batch.Out
	if n := testing.AllocsPerRun(100, func() {
		if !parseAtBroker(request, &m) || !parseAtBroker(reply, &m) {
			t.Fatal("refused")
		}
		if _, ok := parseExtra(x); !ok {
			t.Fatal("refused")
		}
		if _, ok := parseOptions(request[5]); !ok {
			t.Fatal("refused")
		}
		o.Reset()
		appendReplyRaw(&o, opReply, "token", "r1", rawMark, request[4])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTimers: the heap gives what was armed, in order, however it was moved.
func TestTimers(t *testing.T) {
	var h timers
	all := make([]timer, 500)
	x := uint64(1)
	next := func() int { x = x*6364136223846793005 + 1442695040888963407; return int(x >> 40) }
	for range 20_000 {
		tm := &all[next()%len(all)]
		if next()%3 == 0 {
			h.remove(tm)
		} else {
			h.set(tm, instant(next()%1000))
		}
	}
	want := 0
	for i := range all {
		if all[i].armed() {
			want++
		}
	}
	last := instant(0)
	for n := 0; ; n++ {
		tm := h.due(never)
		if tm == nil {
			if n != want {
				t.Errorf("%d came out, want %d", n, want)
			}
			break
		}
		if tm.at < last || h.next() != tm.at {
			t.Fatalf("%v came after %v", tm.at, last)
		}
		last = tm.at
		h.remove(tm)
	}
}

// TestManyQueuedOfEqualIDs: request ids of many clients collide and never meet.
func TestManyQueuedOfEqualIDs(t *testing.T) {
	s := newTestScript(t, nil)
	for i := range 300 {
		s.do(fmt.Sprintf("c%d> C|2|s|r|%d|{}", i, i))
	}
	for i := range 300 {
		s.do(fmt.Sprintf("c%d> C|10|r", i))
		if s.d.requests.n != 299-i {
			t.Fatalf("%d requests after %d cancels", s.d.requests.n, i+1)
		}
	}
}
