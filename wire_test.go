package omdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// replay feeds the core what the recorded client and worker sent, at their
// times, and collects what it sends, to hold it against what the Node broker
// sent. Tokens are named as the recording named the client's address.
type replay struct {
	d     *dispatcher
	now   instant
	t     testing.TB
	token string   // ours
	cid   string   // theirs
	got   []string // "client C|3|…", in order
}

func (r *replay) send(rec record) {
	r.wait(time.Duration(rec.MS) * time.Millisecond)
	var f [][]byte
	for _, s := range rec.Frames {
		if s == r.cid && r.cid != "" && rec.From == "worker" {
			s = r.token
		}
		f = append(f, []byte(s))
	}
	var m message
	if !r.d.read(0, []byte(rec.From), f, &m) {
		r.t.Fatalf("%s %q is malformed to us", rec.Scenario, rec.Frames)
	}
	r.d.receive(r.now, 0, []byte(rec.From), &m)
	r.flush()
}

func (r *replay) wait(until instant) {
	for due := r.d.deadline(); due <= until; due = r.d.deadline() {
		r.now = max(due, r.now)
		r.d.expire(r.now)
		r.flush()
	}
	r.now = max(until, r.now)
}

func (r *replay) flush() {
	for r.d.pending(0) {
		out := r.d.take(0)
		for i := range out.Results {
			f := frameStrings(out.Message(i))
			out.Results[i] = batch.Sent
			if f[1] == "W" && f[2] == "2" {
				r.token = f[3]
			}
			text := strings.Join(f, "|")
			if r.token != "" {
				text = strings.ReplaceAll(text, r.token, r.cid)
			}
			r.got = append(r.got, text)
		}
		r.d.settle(r.now, 0)
		if err := r.d.check(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// onPurpose is every difference between what the Node broker sent and what
// ours sends in the recorded scenarios, with its reason.
var onPurpose = []struct {
	scenarios string // "*": all
	reason    string
	mend      func(node, ours []string) ([]string, []string)
}{
	{"*", "our broker beats every 2.5 s, zmq-omdp's last interval; the recordings used 5 s and 0.5 s (W|4 without a request)",
		func(node, ours []string) ([]string, []string) {
			return without(node, "worker|W|4"), without(ours, "worker|W|4")
		}},
	{"*", "REQUEST and the notification C|4 of one dispatch go to two peers at once: their order is chance",
		func(node, ours []string) ([]string, []string) { return split2(node), split2(ours) }},
	{"timeout_noworker", "a deadline is checked when it is due, not on a tick; and we say that nothing was executed",
		func(node, ours []string) ([]string, []string) {
			return node, replaced(ours, `{"status":"TIMEOUT","executed":false}`, `{"status":"TIMEOUT"}`)
		}},
	{"timeout_noworker", "a client that beats for its request before any worker has it: both brokers are silent", nil},
	{"timeout_silent", "our deadline holds after dispatch too: TIMEOUT to the client at 1,000 ms, and LOST for its later beats; the Node broker passes beats on for ever",
		func(node, ours []string) ([]string, []string) { return cutAfterTimeout(node, ours) }},
	{"wstop crash", "W_ERROR comes from our broker within the liveness of a peer that told no interval, 15 s; the recordings were made at 0.5 s × 3, and end before that",
		func(node, ours []string) ([]string, []string) {
			return without(without(node, "W_ERROR"), "worker|W|5"), without(without(ours, "W_ERROR"), "worker|W|5")
		}},
	{"stopclient", "the recording ends with a worker's beat, before the Node broker passed it on",
		func(node, ours []string) ([]string, []string) {
			i := slices.IndexFunc(ours, func(s string) bool { return strings.HasPrefix(s, "worker") })
			return node, slices.Delete(slices.Clone(ours), i-1, i)
		}},
	{"stopclient vanish vanish2", "a client that said nothing for 15 s is gone: its worker is told; the recordings end before that", nil},
}

func without(all []string, part string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		return s == part || strings.Contains(part, "_") && strings.Contains(s, part)
	})
}

func replaced(all []string, old, to string) []string {
	all = slices.Clone(all)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], old, to)
	}
	return all
}

// split2 puts what went to the client before what went to the worker.
func split2(all []string) []string {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(a[:6], b[:6]) })
	return all
}

// cutAfterTimeout: up to our TIMEOUT both say the same; after it ours answers
// LOST, and nothing else.
func cutAfterTimeout(node, ours []string) ([]string, []string) {
	at := func(s string) bool { return strings.Contains(s, `"TIMEOUT"`) }
	count := func(all []string, prefix string, end int) int {
		n := 0
		for _, s := range all[:end] {
			if strings.HasPrefix(s, prefix) {
				n++
			}
		}
		return n
	}
	i := slices.IndexFunc(ours, at)
	if i < 0 {
		return node, ours
	}
	for _, s := range ours[i+1:] {
		if strings.HasPrefix(s, "client") && !strings.Contains(s, `"LOST"`) {
			return node, ours
		}
	}
	toClient, toWorker := count(ours, "client", i), count(ours, "worker", len(ours))
	short := func(all []string) []string {
		var keep []string
		c, w := 0, 0
		for _, s := range all {
			switch {
			case strings.HasPrefix(s, "client") && c < toClient:
				c++
				keep = append(keep, s)
			case strings.HasPrefix(s, "worker") && w < toWorker:
				w++
				keep = append(keep, s)
			}
		}
		return keep
	}
	return short(node), short(ours)
}

// TestRecordedTraffic: what the Node broker sent, ours sends, but for the
// differences in onPurpose; and Node peers are sent nothing of our extensions.
func TestRecordedTraffic(t *testing.T) {
	byName := map[string][]record{}
	var names []string
	for _, r := range recorded(t) {
		if byName[r.Scenario] == nil {
			names = append(names, r.Scenario)
		}
		byName[r.Scenario] = append(byName[r.Scenario], r)
	}
	if len(names) < 20 {
		t.Fatalf("only %d scenarios", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			r := &replay{d: newDispatcher(testLimits(), caps{V: 1, ID: "b", HB: 2500}, [32]byte{5}, 1), t: t}
			var node []string
			last := 0
			for _, rec := range byName[name] {
				if rec.From == "broker" && rec.Frames[0] == "W" && rec.Frames[1] == "2" {
					r.cid = rec.Frames[2]
				}
			}
			for _, rec := range byName[name] {
				last = rec.MS
				if rec.From == "broker" {
					node = append(node, rec.To+"|"+strings.Join(rec.Frames, "|"))
				} else {
					r.send(rec)
				}
			}
			r.wait(time.Duration(last) * time.Millisecond)
			ours := r.got
			for _, s := range ours {
				if f := strings.SplitN(s, "|", 4); len(f[2]) > 1 || f[2] > "6" || strings.Contains(s, "|b|") {
					t.Errorf("an extension for a Node peer: %s", s)
				}
				if strings.HasPrefix(s, "worker|W|2|") && strings.Count(s, "|") != 6 {
					t.Errorf("a REQUEST with other frames than the client's: %s", s)
				}
			}
			for _, p := range onPurpose {
				if p.mend != nil && (p.scenarios == "*" || slices.Contains(strings.Fields(p.scenarios), name)) {
					node, ours = p.mend(node, ours)
				}
			}
			if !slices.Equal(node, ours) {
				t.Errorf("the Node broker sent\n  %s\nours sends\n  %s", strings.Join(node, "\n  "), strings.Join(ours, "\n  "))
			}
		})
	}
}

// TestRecordedRoundTrip: every recorded message is read by the peer that it
// was sent to, and a value or an error comes of every reply.
func TestRecordedRoundTrip(t *testing.T) {
	for _, rec := range recorded(t) {
		var f [][]byte
		for _, s := range rec.Frames {
			f = append(f, []byte(s))
		}
		var m message
		if !parsers[rec.To](f, &m) {
			t.Errorf("%s at %d ms: the %s can't read %q", rec.Scenario, rec.MS, rec.To, rec.Frames)
			continue
		}
		if m.body == nil || rec.To != "client" {
			continue
		}
		want := map[string]string{
			"error": "omdp: service echo: 418: TEAPOT", "error2": "omdp: service echo: 500: SOMETHING_FAILED", "undef": "omdp: service echo: 500: ERR_MSG_PARSE",
			"timeout_noworker": "omdp: call echo: request timed out (may have executed)", "wstop": "omdp: call echo: worker lost: W_ERROR (may have executed)",
			"crash": "omdp: call echo: worker lost: W_ERROR (may have executed)",
		}[rec.Scenario]
		if got := parseReply("echo", m.body); fmt.Sprint(got.err) != want && (got.err != nil || want != "") {
			t.Errorf("%s: got %v, want %s", rec.Scenario, got.err, want)
		}
	}
}

// TestRecordedBytes: our client and worker send the bytes that Node peers do.
func TestRecordedBytes(t *testing.T) {
	for _, rec := range recorded(t) {
		var f [][]byte
		switch s := rec.Frames; {
		case rec.From == "client" && s[1] == "2":
			data, options := []byte(s[4]), []byte(s[5])
			f = packed(func(o *batch.Out) { appendClientRequest(o, s[2], s[3], data, options, "") })
		case rec.From == "client" && len(s) == 3:
			f = packed(func(o *batch.Out) { appendClientCommand(o, opHeartbeat, s[2]) })
		case rec.From == "client":
			f = packed(func(o *batch.Out) { appendClientCommand(o, opHeartbeat, "") })
		case rec.From == "worker" && (s[1] == "3" || s[1] == "6"):
			r := parseReply("", [][]byte{[]byte(s[4])})
			code, value := "200", []byte(r.msg.JSON())
			if e, ok := r.err.(*Error); ok {
				code, value = e.wire()
			}
			f = packed(func(o *batch.Out) { appendReplyJSON(o, op(s[1][0]-'0'), s[2], s[3], code, value) })
		case rec.From == "worker" && s[1] == "4" && len(s) == 4:
			f = packed(func(o *batch.Out) { appendWorkerCommand(o, opHeartbeat, s[2], s[3]) })
		case rec.From == "worker" && s[1] == "5":
			f = packed(func(o *batch.Out) { appendWorkerCommand(o, opDisconnect, "", "") })
		default: // READY: ours adds one frame, which Node brokers were seen to ignore
			continue
		}
		if got, want := fmt.Sprintf("%q", f), fmt.Sprintf("%q", rec.Frames); got != want {
			t.Errorf("%s at %d ms: we send %s, Node sent %s", rec.Scenario, rec.MS, got, want)
		}
	}
}
