package omdp

import (
	"slices"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

const testBeat = 2500 * time.Millisecond

func newTestTable() *pendingTable {
	return newPendingTable(tableConfig{
		life: "life", prefix: "life-", beat: testBeat, liveness: 3, window: 1000, maxWindow: 5000,
		links: 2, maxAttempts: 3, budget: 10, random: func() uint64 { return 0 },
	})
}

// tableUp is a table with a connection, and it.
func tableUp() (*pendingTable, *tableLink) {
	t := newTestTable()
	l := &t.links[0]
	t.opened(l)
	t.connected(l, 0)
	return t, l
}

// sends puts p on l.
func (t *pendingTable) sends(p *pending, l *tableLink, now instant, seq uint64) string {
	var out batch.Out
	t.put(p, l, now, seq, &out)
	in := batch.In{B: out.B}
	return joinFrames(in.Next())
}

// answered: the broker told its interval.
func (t *pendingTable) answered(l *tableLink, now instant, told time.Duration) {
	var out batch.Out
	t.hears(l, now)
	t.onHello(now, l, &caps{ID: "broker", HB: told.Milliseconds()}, &out)
}

func TestPendingFind(t *testing.T) {
	table := newTestTable()
	p := &pending{n: 17, deadline: never}
	table.add(p)
	p.rid = string(table.appendRID(nil, p.n))
	if got := table.find([]byte(p.rid)); got != p {
		t.Errorf("find(%s) = %v, want the request", p.rid, got)
	}
	for _, rid := range []string{"", "life", "life-", "life-16", "life-017", "life-0", "life-17x", "life- 17", "other-17", "life--17", "life-+17",
		"life-18446744073709551633" /* 17 + 2^64 */, "life-99999999999999999999999999"} {
		if got := table.find([]byte(rid)); got != nil {
			t.Errorf("find(%q) = request %d, want none", rid, got.n)
		}
	}
	table.remove(p)
	if got := table.find([]byte(p.rid)); got != nil {
		t.Errorf("find after remove = request %d, want none", got.n)
	}
}

// turn is one turn of a connection's timers.
func (w *clientTurn) turn(t *pendingTable, now instant, l *tableLink) {
	w.reset()
	t.turn(now, l, w)
}

// A request that goes out gets the slack, one that waits again loses it.
func TestPendingSlack(t *testing.T) {
	table, l := tableUp()
	p := &pending{n: 1, deadline: time.Second, slack: 50 * time.Millisecond}
	table.add(p)
	if table.sends(p, l, 0, 1); !table.timing.sooner {
		t.Error("the first deadline does not move the alarm")
	}
	var w clientTurn
	if table.expire(time.Second, &w); len(w.expired) != 0 {
		t.Error("expired at its deadline though it is on a link")
	}
	if got, want := table.timing.alarm, 1050*time.Millisecond; got != want {
		t.Errorf("alarm = %v, want %v", got, want)
	}
	if ended := table.lost(time.Second, l, 1); len(ended) != 0 {
		t.Errorf("%d ended, want none: message 1 was not sent", len(ended))
	}
	if table.expire(time.Second, &w); !slices.Equal(w.expired, []*pending{p}) {
		t.Errorf("%d expired, want the one that waits", len(w.expired))
	}
}

// What was sent ends with its link, in order; the rest waits, in order.
func TestPendingLost(t *testing.T) {
	table, l := tableUp()
	all := make([]*pending, 6)
	for i := range all {
		all[i] = &pending{n: uint64(i), deadline: never}
		table.add(all[i])
		if i < 5 {
			table.sends(all[i], l, 0, uint64(i+1))
		}
	}
	if got, want := table.lost(0, l, 4), all[:3]; !slices.Equal(got, want) {
		t.Errorf("%d ended, want the first three", len(got))
	}
	if got, want := slices.Collect(table.waiting), all[3:]; !slices.Equal(got, want) {
		t.Errorf("%d wait, want the last three", len(got))
	}
	if err := table.check(); err != nil {
		t.Error(err)
	}
}

// "Client MAY send heartbeat for active request": HELLO every heartbeat, and
// one for each request that was out for as long.
func TestPendingBeats(t *testing.T) {
	const beat = testBeat
	table, l := tableUp()
	old, young, waits := &pending{n: 1, deadline: never}, &pending{n: 2, deadline: never}, &pending{n: 3, deadline: never}
	for _, p := range []*pending{old, young, waits} {
		table.add(p)
	}
	table.sends(old, l, 0, 1)
	table.sends(young, l, beat/2, 2)
	var w clientTurn
	if w.turn(table, beat-1, l); w.hello || l.alarm != beat {
		t.Errorf("before the beat: hello %v, alarm %v; want false, %v", w.hello, l.alarm, beat)
	}
	if w.turn(table, beat, l); !w.hello || !slices.Equal(w.beats, []*pending{old}) {
		t.Errorf("at the beat: hello %v, %d beats; want true and the old one's", w.hello, len(w.beats))
	}
	if w.turn(table, 2*beat, l); !w.hello || !slices.Equal(w.beats, []*pending{old, young}) {
		t.Errorf("at the next: hello %v, %d beats; want true, 2", w.hello, len(w.beats))
	}
	table.lost(2*beat, l, 99)
	if w.turn(table, 3*beat, l); w.hello || l.alarm != never {
		t.Errorf("without a link: hello %v, alarm %v; want false, never", w.hello, l.alarm)
	}
}

// Silence counts once the broker told its interval, and not while this
// process itself was away.
func TestPendingBrokerSilence(t *testing.T) {
	const beat = testBeat
	run := func(table *pendingTable, l *tableLink, from, to instant) (lost instant) {
		var w clientTurn
		for l.alarm = from; l.alarm <= to; {
			now := l.alarm
			if w.turn(table, now, l); w.lost {
				return now
			}
		}
		return never
	}
	table, l := tableUp()
	if got := run(table, l, 0, time.Hour); got != never {
		t.Errorf("a Node broker, which never answers HELLO, was given up at %v", got)
	}
	table, l = tableUp()
	table.answered(l, 0, time.Second)
	if got, want := run(table, l, 0, time.Hour), 3*time.Second; got != want {
		t.Errorf("given up at %v, want %v", got, want)
	}
	table, l = tableUp()
	table.answered(l, 0, beat)
	var w clientTurn
	w.turn(table, 0, l)
	if w.turn(table, time.Hour, l); w.lost {
		t.Error("given up right after a pause of this process")
	}
	if got, want := run(table, l, l.alarm, 2*time.Hour), time.Hour+3*beat; got != want {
		t.Errorf("after the pause given up at %v, want %v", got, want)
	}
}

// A broker speaks to an idle client only when asked, so one that beats often
// is asked as often as it beats.
func TestPendingUnequalBeats(t *testing.T) {
	const beat = testBeat
	for _, told := range []time.Duration{beat / 5, beat, 5 * beat} {
		table, l := tableUp()
		table.answered(l, 0, told)
		var w clientTurn
		hellos := 0
		for now := instant(0); now < time.Minute; now = l.alarm {
			if w.turn(table, now, l); w.hello {
				hellos++
				l.heard = now // the broker answers
			}
			if w.lost {
				t.Fatalf("told %v: given up at %v, though it answers", told, now)
			}
		}
		if want := int(time.Minute/min(told, beat)) - 1; hellos < want || hellos > want+1 {
			t.Errorf("told %v: %d HELLOs in a minute, want %d", told, hellos, want)
		}
	}
}

// "Client MAY decide to timeout an inactive Request (tracks liveness for
// Request)": with a foreign broker, once a worker was said to have it.
func TestPendingForeignWorkerSilence(t *testing.T) {
	for _, tt := range []struct {
		name             string
		confirmed, armed bool
		want             int
	}{
		{"queued at a foreign broker", false, false, 0},
		{"dispatched by a foreign broker", true, false, 1},
		{"our broker looks after it", true, true, 0},
	} {
		table, l := tableUp()
		if tt.armed {
			table.answered(l, 0, time.Hour)
		}
		p := &pending{n: 1, deadline: never}
		table.add(p)
		table.sends(p, l, 0, 1)
		p.confirmed = tt.confirmed
		silent := 0
		var w clientTurn
		for l.alarm = 0; l.alarm < 20*time.Second; {
			now := l.alarm
			w.turn(table, now, l)
			if silent += len(w.silent); len(w.silent) > 0 && now <= foreignLiveness {
				t.Errorf("%s: lost at %v, want after %v", tt.name, now, foreignLiveness)
			}
		}
		if silent != tt.want {
			t.Errorf("%s: %d lost, want %d", tt.name, silent, tt.want)
		}
	}
}
