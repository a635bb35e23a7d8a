package omdp

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newTestTable() *pendingTable { return newPendingTable("life-", 2500*time.Millisecond, 3) }

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

// A request that goes out gets the slack, one that waits again loses it.
func TestPendingSlack(t *testing.T) {
	table := newTestTable()
	table.opened()
	table.connected(0)
	p := &pending{n: 1, deadline: time.Second, slack: 50 * time.Millisecond}
	if !table.add(p) {
		t.Error("the first deadline does not move the alarm")
	}
	table.send(p, 0, 1)
	var w clientTurn
	if table.turn(time.Second, &w); len(w.expired) != 0 {
		t.Error("expired at its deadline though it is on a link")
	}
	if got, want := table.alarm, 1050*time.Millisecond; got != want {
		t.Errorf("alarm = %v, want %v", got, want)
	}
	if ended := table.lost(1); len(ended) != 0 {
		t.Errorf("%d ended, want none: message 1 was not sent", len(ended))
	}
	if table.turn(time.Second, &w); !slices.Equal(w.expired, []*pending{p}) {
		t.Errorf("%d expired, want the one that waits", len(w.expired))
	}
}

// What was sent ends with its link, in order; the rest waits, in order.
func TestPendingLost(t *testing.T) {
	table := newTestTable()
	table.opened()
	table.connected(0)
	all := make([]*pending, 6)
	for i := range all {
		all[i] = &pending{n: uint64(i), deadline: never}
		table.add(all[i])
		if i < 5 {
			table.send(all[i], 0, uint64(i+1))
		}
	}
	if got, want := table.lost(4), all[:3]; !slices.Equal(got, want) {
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
	const beat = 2500 * time.Millisecond
	table := newTestTable()
	table.opened()
	table.connected(0)
	old, young, waits := &pending{n: 1, deadline: never}, &pending{n: 2, deadline: never}, &pending{n: 3, deadline: never}
	for _, p := range []*pending{old, young, waits} {
		table.add(p)
	}
	table.send(old, 0, 1)
	table.send(young, beat/2, 2)
	var w clientTurn
	if table.turn(beat-1, &w); w.hello || table.alarm != beat {
		t.Errorf("before the beat: hello %v, alarm %v; want false, %v", w.hello, table.alarm, beat)
	}
	if table.turn(beat, &w); !w.hello || !slices.Equal(w.beats, []*pending{old}) {
		t.Errorf("at the beat: hello %v, %d beats; want true and the old one's", w.hello, len(w.beats))
	}
	if table.turn(2*beat, &w); !w.hello || !slices.Equal(w.beats, []*pending{old, young}) {
		t.Errorf("at the next: hello %v, %d beats; want true, 2", w.hello, len(w.beats))
	}
	table.lost(99)
	if table.turn(3*beat, &w); w.hello || table.alarm != never {
		t.Errorf("without a link: hello %v, alarm %v; want false, never", w.hello, table.alarm)
	}
}

// Silence counts once the broker told its interval, and not while this
// process itself was away.
func TestPendingBrokerSilence(t *testing.T) {
	const beat = 2500 * time.Millisecond
	run := func(table *pendingTable, from, to instant) (lost instant) {
		var w clientTurn
		for table.alarm = from; table.alarm <= to; {
			now := table.alarm
			if table.turn(now, &w); w.lost {
				return now
			}
		}
		return never
	}
	table := newTestTable()
	table.opened()
	table.connected(0)
	if got := run(table, 0, time.Hour); got != never {
		t.Errorf("a Node broker, which never answers HELLO, was given up at %v", got)
	}
	table = newTestTable()
	table.opened()
	table.connected(0)
	table.answered(0, time.Second)
	if got, want := run(table, 0, time.Hour), 3*time.Second; got != want {
		t.Errorf("given up at %v, want %v", got, want)
	}
	table = newTestTable()
	table.opened()
	table.connected(0)
	table.answered(0, beat)
	var w clientTurn
	table.turn(0, &w)
	if table.turn(time.Hour, &w); w.lost {
		t.Error("given up right after a pause of this process")
	}
	if got, want := run(table, table.alarm, 2*time.Hour), time.Hour+3*beat; got != want {
		t.Errorf("after the pause given up at %v, want %v", got, want)
	}
}

// A broker speaks to an idle client only when asked, so one that beats often
// is asked as often as it beats.
func TestPendingUnequalBeats(t *testing.T) {
	const beat = 2500 * time.Millisecond
	for _, told := range []time.Duration{beat / 5, beat, 5 * beat} {
		table := newTestTable()
		table.opened()
		table.connected(0)
		table.answered(0, told)
		var w clientTurn
		hellos := 0
		for now := instant(0); now < time.Minute; now = table.alarm {
			if table.turn(now, &w); w.hello {
				hellos++
				table.heard = now // the broker answers
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
		table := newTestTable()
		table.opened()
		table.connected(0)
		if tt.armed {
			table.answered(0, time.Hour)
		}
		p := &pending{n: 1, deadline: never}
		table.add(p)
		table.send(p, 0, 1)
		p.confirmed = tt.confirmed
		silent := 0
		var w clientTurn
		for table.alarm = 0; table.alarm < 20*time.Second; {
			now := table.alarm
			table.turn(now, &w)
			if silent += len(w.silent); len(w.silent) > 0 && now <= foreignLiveness {
				t.Errorf("%s: lost at %v, want after %v", tt.name, now, foreignLiveness)
			}
		}
		if silent != tt.want {
			t.Errorf("%s: %d lost, want %d", tt.name, silent, tt.want)
		}
	}
}

// Whatever happens, each request leaves the table once, none stays past its
// deadline and slack, and the table is consistent.
func TestPendingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newTestTable()
		var now instant
		var w clientTurn
		var n, seq uint64
		live := map[*pending]bool{}
		leave := func(p *pending) {
			if !live[p] {
				t.Fatalf("request %d left twice", p.n)
			}
			delete(live, p)
		}
		pick := func() *pending {
			if len(live) == 0 {
				return nil
			}
			want := rapid.IntRange(0, len(live)-1).Draw(t, "which")
			p := table.first
			for range want {
				p = p.next
			}
			return p
		}
		open := false
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n++
				p := &pending{n: n, deadline: never}
				if d := rapid.IntRange(-1, 5000).Draw(t, "ms"); d >= 0 {
					p.deadline, p.slack = now+instant(d)*time.Millisecond, instant(d)*time.Millisecond/10
				}
				before := table.alarm
				if sooner := table.add(p); sooner != (table.alarm < before) || p.deadline < table.alarm {
					t.Fatalf("sooner = %v, alarm %v → %v for a deadline at %v", sooner, before, table.alarm, p.deadline)
				}
				live[p] = true
				if table.up && rapid.Bool().Draw(t, "send") {
					seq++
					table.send(p, now, seq)
				}
			},
			"end": func(*rapid.T) {
				if p := pick(); p != nil {
					table.remove(p)
					leave(p)
				}
			},
			"open": func(t *rapid.T) {
				if !open {
					table.opened()
					open, seq = true, 0
				}
			},
			"up": func(t *rapid.T) {
				if !open || table.up {
					t.Skip()
				}
				table.connected(now)
				for p := range table.waiting {
					seq++
					table.send(p, now, seq)
				}
				if rapid.Bool().Draw(t, "ours") {
					table.answered(now, 2500*time.Millisecond)
				}
			},
			"lost": func(t *rapid.T) {
				if !open {
					t.Skip()
				}
				open = false
				sent := rapid.Uint64Range(0, seq+1).Draw(t, "sent")
				for _, p := range table.lost(sent) {
					if p.seq >= sent {
						t.Fatalf("request %d ended, but its message %d was not sent", p.n, p.seq)
					}
					leave(p)
				}
				if table.onLink != 0 {
					t.Fatalf("%d are on a link that is lost", table.onLink)
				}
			},
			"turn": func(t *rapid.T) {
				now += instant(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
				table.turn(now, &w)
				for _, p := range slices.Concat(w.expired, w.silent) {
					leave(p)
				}
				for p := range live {
					if p.deadline != never && p.deadline+p.slack <= now {
						t.Fatalf("request %d was due at %v and is here at %v", p.n, p.due, now)
					}
				}
				if table.alarm <= now && !w.lost {
					t.Fatalf("at %v the alarm is at %v", now, table.alarm)
				}
			},
			"": func(t *rapid.T) {
				if err := table.check(); err != nil {
					t.Fatal(err)
				}
				if len(live) != table.len() {
					t.Fatalf("%d live, table has %d", len(live), table.len())
				}
			},
		})
	})
}
