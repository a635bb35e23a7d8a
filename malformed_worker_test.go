package omdp_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Malformed messages to a live worker, from a broker by hand. In every case the
// worker holds a request; then comes what is malformed, and then a request
// that has to be served. It is seen what the worker says, whether a handler
// ran, which counters moved, and what became of the request that it held.

type workerCase struct {
	name string
	send [][]string
	want workerWant
	pack func(frames []string) []string
}

type workerWant struct {
	moves    string // counters, besides what the test itself does
	says     string // one message, besides the two answers
	ran      int    // handlers for what was sent
	canceled bool   // the request that it holds
	cause    error  // … with this, or ErrCanceled
	lost     bool   // the connection: it registers anew
}

var (
	workerRefuses = workerWant{moves: "Malformed 1"}
	workerCancels = workerWant{moves: "Canceled 1", canceled: true}
	workerLost    = workerWant{moves: "Connections 1, Lost 1", lost: true}
	workerDrops   = workerWant{moves: "Dropped 1"}
)

// takes: a handler runs and echoes data.
func takes(token, rid, data string) workerWant {
	return workerWant{moves: "Requests 1, Succeeded 1", ran: 1, says: "W|3|" + token + "|" + rid + `|{"status":200,"msg":` + data + "}"}
}

// rawTaken is what spoiled REQUESTs with raw data do.
func rawTaken() map[string]workerWant {
	as, no := takes("t-{NEW}", "{NEW}", asText(rawData)), unreadable("t-{NEW}", "{NEW}")
	but := map[string]workerWant{
		"token and rid swapped": takes("{NEW}", "t-{NEW}", asText(rawData)), "bytes empty": takes("t-{NEW}", "{NEW}", `""`), "bytes huge": takes("t-{NEW}", "{NEW}", asText(huge[kindPayload])),
		"token missing": unreadable("{NEW}", "b"), "rid missing": unreadable("t-{NEW}", "b"),
		"type missing": no, "bytes missing": no, "options missing": no, "extra missing": {moves: "Failed 1, Malformed 1, Requests 1", says: no.says},
		"options empty": as, "options huge": as, "extra empty": doubtful(as), "extra huge": doubtful(as), "options and extra swapped": doubtful(as), "bytes and options swapped": takes("t-{NEW}", "{NEW}", asText(goodOptions)),
	}
	for _, v := range variantsOf(field{kind: kindToken}) {
		but["token "+v.name] = takes(v.value, "{NEW}", asText(rawData))
	}
	for _, v := range variantsOf(field{kind: kindRID}) {
		but["rid "+v.name] = takes("t-{NEW}", v.value, asText(rawData))
	}
	for _, v := range payloadVariants {
		but["bytes "+v.name] = takes("t-{NEW}", "{NEW}", asText(v.value))
	}
	for _, v := range optionsVariants {
		but["options "+v.name] = as
	}
	for _, v := range extraVariants {
		if but["extra "+v.name] = doubtful(as); v.fine {
			but["extra "+v.name] = as
		}
	}
	return but
}

// workerBreaches: what it was sent may not be.
var workerBreaches = workerWant{moves: "Canceled 1, Overdrawn 1", canceled: true, cause: omdp.ErrProtocol}

func anyBytes(want workerWant, but map[string]workerWant) map[string]workerWant {
	for _, v := range payloadVariants {
		but["bytes "+v.name] = want
	}
	but["bytes huge"], but["bytes missing"] = want, want
	return but
}

// unreadable: the client is told that its data is no JSON, and no handler runs.
func unreadable(token, rid string) workerWant {
	return workerWant{moves: "Failed 1, Requests 1", says: "W|3|" + token + "|" + rid + `|{"status":500,"msg":"ERR_MSG_PARSE"}`}
}

// doubtful: it is served, and what could not be read beside it is counted.
func doubtful(w workerWant) workerWant {
	w.moves = "Malformed 1, " + w.moves
	return w
}

// toWorker is every form of what brokers send to workers, as toBroker is.
var toWorker = []struct {
	form form
	fine workerWant
	but  map[string]workerWant
}{
	{form{"REQUEST", fields("W", "2", field{"token", kindToken, "t-{NEW}"}, field{"rid", kindRID, "{NEW}"}, field{"data", kindData, longData}, field{"options", kindOptions, goodOptions}, field{"extra", kindExtra, goodExtra})},
		takes("t-{NEW}", "{NEW}", longData), func() map[string]workerWant {
			as := takes("t-{NEW}", "{NEW}", longData)
			but := map[string]workerWant{
				"token and rid swapped": takes("{NEW}", "t-{NEW}", longData), "data missing": takes("t-{NEW}", "{NEW}", goodOptions), "data empty": unreadable("t-{NEW}", "{NEW}"), "data huge": takes("t-{NEW}", "{NEW}", huge[kindData]),
				"options missing": as, "options empty": as, "options huge": as, "data and options swapped": takes("t-{NEW}", "{NEW}", goodOptions),
				"extra missing": as, "extra empty": doubtful(as), "extra huge": doubtful(as), "options and extra swapped": doubtful(as),
			}
			for _, v := range variantsOf(field{kind: kindToken}) { // it echoes whatever it is given
				but["token "+v.name] = takes(v.value, "{NEW}", longData)
			}
			for _, v := range variantsOf(field{kind: kindRID}) {
				but["rid "+v.name] = takes("t-{NEW}", v.value, longData)
			}
			for _, v := range variantsOf(field{kind: kindData}) {
				but["data "+v.name] = unreadable("t-{NEW}", "{NEW}")
			}
			for _, v := range optionsVariants { // of no concern to it but for the deadline, which the extra frame tells
				but["options "+v.name] = as
			}
			for _, v := range extraVariants {
				if but["extra "+v.name] = doubtful(as); v.fine {
					but["extra "+v.name] = as
				}
			}
			return but
		}()},
	{form{"raw REQUEST", fields("W", "2", field{"token", kindToken, "t-{NEW}"}, field{"rid", kindRID, "{NEW}"}, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, "\xff\x00"}, field{"options", kindOptions, goodOptions}, field{"extra", kindExtra, goodExtra})},
		takes("t-{NEW}", "{NEW}", asText(rawData)), rawTaken()},
	{form{"BLOCKED", fields("W", "12", theToken, theRID)}, workerWant{}, notHeld(map[string]workerWant{})},
	{form{"PIECE", fields("W", "13", theToken, theRID, field{"bytes", kindPayload, rawData})}, workerBreaches, anyBytes(workerBreaches, notHeld(map[string]workerWant{"token missing": {}, "rid missing": {}, "rid and bytes swapped": {}}))},
	{form{"HEARTBEAT", fields("W", "4")}, workerWant{}, nil},
	{form{"HEARTBEAT of a request", fields("W", "4", theToken, theRID)}, workerWant{}, notHeld(map[string]workerWant{"cut after the command": {}})},
	{form{"DISCONNECT", fields("W", "5")}, workerLost, nil},
	{form{"HELLO", fields("W", "8", theCaps)}, workerWant{}, nil},
	{form{"CREDIT", fields("W", "9", theToken, theRID, theAmount)}, workerWant{}, notHeld(map[string]workerWant{"amount doubled": {}})},
	{form{"CREDIT with a window", fields("W", "9", theToken, theRID, theAmount, theWindow)}, workerWant{}, notHeld(map[string]workerWant{
		"token missing": {}, "rid missing": {}, "window missing": {}, "amount missing": {}, "amount zero": {}, "amount minus zero": {}, "amount and window swapped": {},
	})},
	{form{"CANCEL", fields("W", "10", theToken, theRID, field{"cause", kindCause, "client"})}, workerCancels, notHeld(map[string]workerWant{
		"cause empty": workerCancels, "cause huge": workerCancels, "cause unknown": workerCancels, "cause binary": workerCancels, "rid and cause swapped": {},
	})},
	{form{"DRAIN", fields("W", "11")}, workerWant{}, nil},
}

// notHeld adds that what names no request that is held changes nothing.
func notHeld(but map[string]workerWant) map[string]workerWant {
	for _, v := range variantsOf(field{kind: kindToken}) {
		but["token "+v.name] = workerWant{}
	}
	for _, v := range variantsOf(field{kind: kindRID}) {
		but["rid "+v.name] = workerWant{}
	}
	but["token and rid swapped"] = workerWant{}
	return but
}

// workerCases is the table.
func workerCases() (all []workerCase) {
	f := func(text string) []string { return strings.Split(text, "|") }
	add := func(name string, want workerWant, send ...[]string) {
		all = append(all, workerCase{name, send, want, nil})
	}
	wrap := func(frames []string) []string { return []string{string(envelope(frames...))} }
	for _, k := range toWorker {
		for _, s := range k.form.spoil() {
			want := workerRefuses
			if s.fine {
				want = k.fine
			}
			if but, ok := k.but[strings.TrimPrefix(s.name, k.form.name+"/")]; ok {
				want = but
			}
			add(s.name, want, s.frames)
			if common(s.name) {
				all = append(all, workerCase{s.name + ", in an envelope", [][]string{s.frames}, want, wrap})
			}
		}
		for _, w := range wrongEnvelopes {
			all = append(all, workerCase{k.form.name + ": its envelope " + w.name, [][]string{k.form.frames()}, workerRefuses, func(frames []string) []string { return w.pack(wrap(frames)[0]) }})
		}
	}
	for _, k := range toClient {
		add("as to a client: "+k.form.name, workerRefuses, k.form.frames())
	}
	for _, k := range toBroker {
		if k.form.name == "HELLO" || strings.HasPrefix(k.form.name, "HEARTBEAT") || k.form.name == "DISCONNECT" || k.form.name == "DRAIN" || k.form.name == "BLOCKED" || k.form.name == "CREDIT" || k.form.name == "PIECE" {
			if k.from != theClient {
				continue // the same both ways
			}
		}
		add("as to a broker: "+string(k.from)+" "+k.form.name, workerRefuses, k.form.frames())
	}
	for _, m := range oneFrames {
		add("one frame: "+m.name, workerRefuses, []string{m.frame})
	}
	for _, command := range bare("4", "5", "11") {
		add("bare W|"+command, workerRefuses, []string{"W", command})
	}
	add("REQUEST that it holds", workerDrops, f(`W|2|{TOKEN}|{LIVE}|"x"|{}|`+goodExtra))
	add("REQUEST that it holds, spoiled", workerDrops, f("W|2|{TOKEN}|{LIVE}|undefined|undefined|undefined"))
	add("REQUEST without options and extra", takes("t-{NEW}", "{NEW}", "1"), f("W|2|t-{NEW}|{NEW}|1"))
	add("CANCEL twice", workerCancels, f("W|10|{TOKEN}|{LIVE}|client"), f("W|10|{TOKEN}|{LIVE}|client"))
	add("CREDIT after CANCEL", workerCancels, f("W|10|{TOKEN}|{LIVE}|client"), f("W|9|{TOKEN}|{LIVE}|5"))
	add("CREDIT that adds up to 8 TiB", workerWant{}, slices.Repeat([][]string{f("W|9|{TOKEN}|{LIVE}|1099511627776")}, 8)...)
	add("HELLO of another broker", workerLost, []string{"W", "8", strings.Replace(goodCaps, "{LIFE}", "another", 1)})
	add("DISCONNECT twice", workerLost, f("W|5"), f("W|5"))
	add("a hundred times", workerWant{moves: "Malformed 100"}, slices.Repeat([][]string{f("W|2")}, 100)...)
	return all
}

// workerStage is the worker and its broker.
type workerStage struct {
	b     *rawBroker
	w     *omdp.Worker
	id    string // the worker's routing id
	ran   atomic.Int64
	began chan struct{}
	free  chan struct{}
	ended chan error
}

func (s *workerStage) handle(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	s.ran.Add(1)
	if req.Message().String() != "live" {
		return res.End(req.Message())
	}
	s.began <- struct{}{}
	select {
	case <-s.free:
		return res.End("end")
	case <-ctx.Done():
		s.ended <- context.Cause(ctx)
		return context.Cause(ctx)
	}
}

const workerLife = "the-brokers-life"

// welcome answers the worker's READY.
func (s *workerStage) welcome(t testing.TB) {
	t.Helper()
	s.id = s.b.next(t, "W", "1")[0]
	s.b.send(s.id, "W", "8", strings.Replace(goodCaps, "{LIFE}", workerLife, 1))
	ready(t, s.w)
}

func TestMalformedWorker(t *testing.T) {
	t.Parallel()
	cases := workerCases()
	for _, transport := range []string{"inproc", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := &workerStage{b: bindRaw(t, newEndpoint(t, transport)), began: make(chan struct{}, 10), free: make(chan struct{}), ended: make(chan error, 10)}
			s.w = startWorker(t, s.b.endpoint, "echo", &omdp.WorkerConfig{Heartbeat: patience, Concurrency: 8}, s.handle)
			s.welcome(t)
			for _, k := range toWorker {
				if k.form.name != "DRAIN" { // after which it would be another worker
					t.Run("good "+k.form.name, func(t *testing.T) { s.play(t, workerCase{"", [][]string{k.form.frames()}, k.fine, nil}) })
				}
			}
			for i, c := range cases {
				if transport == "inproc" || i%8 == 0 {
					t.Run(c.name, func(t *testing.T) { s.play(t, c) })
				}
			}
		})
	}
}

// play runs one case.
func (s *workerStage) play(t *testing.T, k workerCase) {
	n := strconv.FormatUint(endpointCount.Add(1), 10)
	token := fmt.Sprintf("%-26s", "token-"+n)
	token = strings.ReplaceAll(token, " ", ".")
	put := strings.NewReplacer("{SERVICE}", "echo", "{LIVE}", "live-"+n, "{NEW}", "new-"+n, "{LIFE}", workerLife, "{TOKEN}", token, "{TOKEN:25}", token[:25]).Replace
	s.b.send(s.id, "W", "2", token, put("{LIVE}"), `"live"`, "{}", goodExtra)
	receive(t, "the request before it", s.began)
	before, ran := s.w.Stats(), s.ran.Load()

	for _, frames := range k.send {
		frames = slices.Clone(frames)
		for i := range frames {
			frames[i] = put(frames[i])
		}
		if k.pack != nil {
			frames = k.pack(frames)
		}
		s.b.send(append([]string{s.id}, frames...)...)
	}
	own := map[string]uint64{"Requests": 1, "Succeeded": 1}
	want := map[string]bool{"W|3|fence|" + put("{NEW}") + `|{"status":200,"msg":"fence"}`: true}
	if k.want.says != "" {
		want[put(k.want.says)] = true
	}
	switch {
	case k.want.lost:
		if err := receive(t, "the end of the request's context", s.ended); !errors.Is(err, omdp.ErrBrokerLost) {
			t.Errorf("the request's context ended with %v, want %v", err, omdp.ErrBrokerLost)
		}
		s.welcome(t)
	case k.want.canceled:
		if err := receive(t, "the end of the request's context", s.ended); !errors.Is(err, cmp.Or(k.want.cause, omdp.ErrCanceled)) {
			t.Errorf("the request's context ended with %v, want %v", err, cmp.Or(k.want.cause, omdp.ErrCanceled))
		}
		own["Failed"]++
	}
	s.b.send(s.id, "W", "2", "fence", put("{NEW}"), `"fence"`, "{}", goodExtra)
	live := "W|3|" + token + "|" + put("{LIVE}") + "|"
	for ended := k.want.lost; len(want) > 0 || !ended; {
		m := receive(t, fmt.Sprintf("%d more answers", len(want)), s.b.in)
		text := strings.Join(m[1:], "|")
		switch {
		case want[text]:
			if delete(want, text); len(want) == 0 && !k.want.lost && !k.want.canceled { // the fence was served: what it holds is let go
				own["Succeeded"]++
				s.free <- struct{}{}
			}
		case !ended && strings.HasPrefix(text, live):
			ended = true
			if good := strings.HasSuffix(text, `{"status":200,"msg":"end"}`); good == k.want.canceled {
				t.Errorf("the request that it held was answered %s, canceled: %v", excerpt(m[5:]), k.want.canceled)
			}
		default:
			t.Errorf("it said %s", excerpt(m[1:]))
		}
	}
	if got := moved(before, s.w.Stats(), own); got != k.want.moves {
		t.Errorf("counters moved: %s; want %s", got, k.want.moves)
	}
	if got := int(s.ran.Load()-ran) - 1; got != k.want.ran {
		t.Errorf("%d handlers ran for it, want %d", got, k.want.ran)
	}
	if st := s.w.Stats(); st.State != omdp.Ready || st.Active != 0 {
		t.Errorf("the worker is %v and holds %d, want ready and none", st.State, st.Active)
	}
	if t.Failed() {
		t.Logf("sent: %s", excerpt(k.send[len(k.send)-1]))
	}
}
