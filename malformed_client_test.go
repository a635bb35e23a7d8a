package omdp_test

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Malformed messages to a live client, from a broker by hand. In every case a
// request is in progress; then comes what is malformed, and then the reply to
// another call. It is seen how the request ends, what came of it to its
// callbacks, what the client says, and which counters moved.

type clientCase struct {
	name string
	send [][]string
	want clientWant
	pack func(frames []string) []string
}

type clientWant struct {
	moves   string // counters, besides what the test itself does
	end     error  // of the request in progress
	value   string // its final, if what was sent is one
	partial string // what was sent is one
	says    string // by the client
	lost    bool   // the connection: a new one is made
}

var (
	clientRefuses  = clientWant{moves: "Malformed 1"}
	clientIgnores  = clientWant{moves: "Late 1"}
	clientProtocol = clientWant{end: omdp.ErrProtocol}
	clientAborts   = clientWant{moves: "Partials 1", end: omdp.ErrProtocol, says: "C|10|{LIVE}"}
)

// errHandler stands for an *omdp.Error: CODE|text in two frames, which
// zmq-omdp 955b90d sends, can't be told from it.
var errHandler = errors.New("what the handler said")

// toClient is every form of what brokers send to clients, as toBroker is.
var toClient = []struct {
	form form
	fine clientWant
	but  map[string]clientWant
}{
	{form{"PARTIAL", fields("C", "6", theRID, thePayload)}, clientWant{moves: "Partials 1", partial: "x"}, ends(false)},
	{form{"REPLY", fields("C", "3", theRID, thePayload)}, clientWant{value: "x"}, ends(true)},
	{form{"raw PARTIAL", fields("C", "6", theRID, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, "\xff\x00"})}, clientWant{moves: "Partials 1", partial: "\xff\x00"}, rawEnds(false)},
	{form{"raw REPLY", fields("C", "3", theRID, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, "\xff\x00"})}, clientWant{value: "\xff\x00"}, rawEnds(true)},
	{form{"HEARTBEAT", fields("C", "4")}, clientWant{}, map[string]clientWant{"command doubled": {}}},
	{form{"HEARTBEAT of a request", fields("C", "4", theRID)}, clientWant{}, map[string]clientWant{"rid missing": {}, "rid binary": {}, "rid unknown": {}, "rid of 64 bytes": {}}},
	{form{"BLOCKED", fields("C", "12", theRID)}, clientWant{says: "C|9|{LIVE}|0|2097152"}, map[string]clientWant{"rid binary": {}, "rid unknown": {}, "rid of 64 bytes": {}}},
	{form{"CREDIT", fields("C", "9", theRID, theAmount)}, clientWant{}, map[string]clientWant{"rid binary": {}, "rid unknown": {}, "rid of 64 bytes": {}}},
	{form{"PIECE", fields("C", "13", theRID, field{"bytes", kindPayload, rawData})}, clientWant{}, pieceEnds()},
	{form{"HELLO", fields("C", "8", theCaps)}, clientWant{}, nil},
	{form{"DRAIN", fields("C", "11")}, clientWant{}, nil},
}

// value is what a good payload does.
func value(final bool, v string) clientWant {
	if final {
		return clientWant{value: v}
	}
	return clientWant{moves: "Partials 1", partial: v}
}

// bad is what a payload that can't be read does.
func bad(final bool) clientWant {
	if final {
		return clientProtocol
	}
	return clientAborts
}

// word is what a word in a frame before the payload does: in a final it is what
// a handler said, but no handler ends by a partial.
func word(final bool) clientWant {
	w := bad(final)
	if final {
		w.end = errHandler
	}
	return w
}

func ends(final bool) map[string]clientWant {
	but := map[string]clientWant{
		"payload empty": bad(final), "payload doubled": bad(final), "payload huge": value(final, strings.Repeat("p", bulk)), "rid and payload swapped": clientIgnores,
		"rid binary": clientIgnores, "rid unknown": clientIgnores, "rid of 64 bytes": clientIgnores, "rid doubled": word(final), "command doubled": clientIgnores,
	}
	for _, v := range payloadVariants {
		but["payload "+v.name] = bad(final)
	}
	return but
}

// pieceEnds is what spoiled PIECEs do: their bytes may be any.
func pieceEnds() map[string]clientWant {
	but := map[string]clientWant{"rid binary": clientIgnores, "rid unknown": clientIgnores, "rid of 64 bytes": clientIgnores, "rid and bytes swapped": clientIgnores}
	for _, v := range payloadVariants {
		but["bytes "+v.name] = clientWant{}
	}
	but["bytes huge"] = clientWant{}
	return but
}

func rawEnds(final bool) map[string]clientWant {
	but := map[string]clientWant{
		"type missing": bad(final), "type empty": bad(final), "type huge": bad(final), "bytes missing": bad(final), "bytes empty": value(final, ""), "bytes huge": value(final, huge[kindPayload]), "type and bytes swapped": bad(final),
		"rid missing": clientIgnores, "rid binary": clientIgnores, "rid unknown": clientIgnores, "rid of 64 bytes": clientIgnores, "rid and type swapped": clientIgnores,
	}
	for _, v := range payloadVariants {
		but["bytes "+v.name] = value(final, v.value) // bytes are bytes
		but["type "+v.name] = bad(final)
	}
	but["type a number"] = value(final, "\xff\x00") // 200
	but["type a word"], but["type null"] = word(final), word(final)
	return but
}

// clientCases is the table.
func clientCases() (all []clientCase) {
	f := func(text string) []string { return strings.Split(text, "|") }
	add := func(name string, want clientWant, send ...[]string) {
		all = append(all, clientCase{name, send, want, nil})
	}
	wrap := func(frames []string) []string { return []string{string(envelope(frames...))} }
	for _, k := range toClient {
		for _, s := range k.form.spoil() {
			want := clientRefuses
			if s.fine {
				want = k.fine
			}
			if but, ok := k.but[strings.TrimPrefix(s.name, k.form.name+"/")]; ok {
				want = but
			}
			add(s.name, want, s.frames)
			if common(s.name) {
				all = append(all, clientCase{s.name + ", in an envelope", [][]string{s.frames}, want, wrap})
			}
		}
		for _, w := range wrongEnvelopes {
			all = append(all, clientCase{k.form.name + ": its envelope " + w.name, [][]string{k.form.frames()}, clientRefuses, func(frames []string) []string { return w.pack(wrap(frames)[0]) }})
		}
	}
	for _, k := range toWorker {
		add("as to a worker: "+k.form.name, clientRefuses, k.form.frames())
	}
	for _, k := range toBroker {
		if k.from == theClient && (k.form.name == "HELLO" || k.form.name == "CREDIT" || k.form.name == "BLOCKED" || k.form.name == "PIECE" || strings.HasPrefix(k.form.name, "HEARTBEAT")) {
			continue // the same both ways
		}
		add("as to a broker: "+string(k.from)+" "+k.form.name, clientRefuses, k.form.frames())
	}
	for _, m := range oneFrames {
		add("one frame: "+m.name, clientRefuses, []string{m.frame})
	}
	for _, command := range bare("4", "11") {
		add("bare C|"+command, clientRefuses, []string{"C", command})
	}
	reply := f("C|3|{LIVE}|" + goodPayload)
	late := clientWant{moves: "Late 1", value: "x"}
	add("REPLY twice", late, reply, reply)
	add("REPLY twice, the second spoiled", late, reply, f("C|3|{LIVE}|x"))
	add("REPLY twice, the first spoiled", clientWant{moves: "Late 1", end: omdp.ErrProtocol}, f("C|3|{LIVE}|x"), reply)
	add("PARTIAL after REPLY", late, reply, f("C|6|{LIVE}|"+goodPayload))
	add("HEARTBEAT after REPLY", clientWant{value: "x"}, reply, f("C|4|{LIVE}"))
	add("REPLY after a spoiled PARTIAL", clientWant{moves: "Late 1, Partials 1", end: omdp.ErrProtocol, says: "C|10|{LIVE}"}, f("C|6|{LIVE}|x"), reply)
	for _, rid := range []string{"{LIVE}0", "{LIVE}x", "x{LIVE}", " {LIVE}", "{LIVE}\x00", "{LIVE}{LIVE}", "{LIVE:0}", "{LIVE:2^64}"} {
		add(fmt.Sprintf("REPLY to %q", rid), clientIgnores, f("C|3|"+rid+"|"+goodPayload))
	}
	for status, err := range map[string]error{
		"TIMEOUT": omdp.ErrTimeout, "W_ERROR": omdp.ErrWorkerLost, "OVERLOADED": omdp.ErrOverloaded, "DENIED": omdp.ErrDenied, "NO_WORKER": omdp.ErrNoWorker, "TOO_LARGE": omdp.ErrTooLarge, "SLOW_CLIENT": omdp.ErrSlowConsumer, "MALFORMED": omdp.ErrProtocol,
		"timeout": omdp.ErrProtocol, "LATE": omdp.ErrProtocol, " TIMEOUT": omdp.ErrProtocol, "TIMEOUT ": omdp.ErrProtocol,
	} {
		add(fmt.Sprintf("REPLY with the status %q", status), clientWant{end: err}, f(`C|3|{LIVE}|{"status":"`+status+`"}`))
	}
	add("HELLO of another broker", clientWant{moves: "Connections 1", end: omdp.ErrBrokerLost, lost: true}, []string{"C", "8", strings.Replace(goodCaps, "{LIFE}", "another", 1)})
	add("a hundred times", clientWant{moves: "Malformed 100"}, slices.Repeat([][]string{f("C|3")}, 100)...)
	slices.SortStableFunc(all, func(a, b clientCase) int { return strings.Compare(a.name, b.name) })
	return all
}

// clientStage is the client and its broker.
type clientStage struct {
	b  *rawBroker
	c  *omdp.Client
	id string // the client's routing id
}

// welcome answers the client's HELLO.
func (s *clientStage) welcome(t testing.TB) {
	t.Helper()
	s.id = s.b.next(t, "C", "8")[0]
	s.b.send(s.id, "C", "8", strings.Replace(goodCaps, "{LIFE}", workerLife, 1))
	ready(t, s.c)
}

func TestMalformedClient(t *testing.T) {
	t.Parallel()
	cases := clientCases()
	for _, transport := range []string{"inproc", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := &clientStage{b: bindRaw(t, newEndpoint(t, transport))}
			s.c = startClient(t, s.b.endpoint, &omdp.ClientConfig{Heartbeat: patience, Window: 1 << 20})
			s.welcome(t)
			for _, k := range toClient {
				if k.form.name != "DRAIN" { // which makes it look for another broker
					t.Run("good "+k.form.name, func(t *testing.T) { s.play(t, clientCase{"", [][]string{k.form.frames()}, k.fine, nil}) })
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

// request waits for the REQUEST of a service, and says what came before it.
func (s *clientStage) request(t testing.TB, service string) (rid string, before []string) {
	t.Helper()
	for {
		m := receive(t, "the REQUEST of "+service, s.b.in)
		if len(m) == 7 && m[2] == "2" && m[3] == service {
			return m[4], before
		}
		if m[2] != "8" { // HELLO, in place of heartbeats
			before = append(before, strings.Join(m[1:], "|"))
		}
	}
}

// play runs one case.
func (s *clientStage) play(t *testing.T, k clientCase) {
	partials, end := make(chan string, 10), make(chan result, 10)
	err := s.c.Request(within(t), "live", "x", func(m omdp.Message) { partials <- m.String() }, func(m omdp.Message, err error) { end <- result{m.String(), err} })
	if err != nil {
		t.Fatal(err)
	}
	live, _ := s.request(t, "live")
	before := s.c.Stats()
	prefix := strings.TrimRight(live, "0123456789") // the ids of a client end in a number
	number, _ := new(big.Int).SetString(live[len(prefix):], 10)
	wrapped := prefix + number.Add(number, new(big.Int).Lsh(big.NewInt(1), 64)).String()
	put := strings.NewReplacer("{LIVE:0}", prefix+"0"+live[len(prefix):], "{LIVE:2^64}", wrapped, "{SERVICE}", "live", "{LIVE}", live, "{NEW}", "new", "{LIFE}", workerLife, "{TOKEN}", strings.Repeat("t", 26), "{TOKEN:25}", strings.Repeat("t", 25)).Replace
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
	own := map[string]uint64{"Requests": 1, "Succeeded": 2}
	if k.want.lost {
		s.welcome(t)
	}
	other := goCall(t, s.c, "other", "x")
	rid, before1 := s.request(t, "other")
	s.b.send(s.id, "C", "3", rid, `{"status":200,"msg":"other"}`)
	if r := receive(t, "the other call's end", other); r != (result{"other", nil}) {
		t.Errorf("another call got %v, want its reply", r)
	}
	want := result{put(k.want.value), nil}
	switch {
	case k.want.end != nil:
		own["Succeeded"], own["Failed"] = 1, 1
	case k.want.value == "" && !k.final(): // it goes on
		want.msg = "end"
		s.b.send(s.id, "C", "3", live, `{"status":200,"msg":"end"}`)
	}
	got := receive(t, "the request's end", end)
	if _, ok := errors.AsType[*omdp.Error](got.err); ok && k.want.end == errHandler {
		got.err = errHandler
	}
	if k.want.end == nil && got != want || k.want.end != nil && !errors.Is(got.err, k.want.end) {
		t.Errorf("the request got %v, want %v, %v", got, want, k.want.end)
	}
	if len(partials) > 0 || k.want.partial != "" {
		if p := receive(t, "the partial", partials); p != put(k.want.partial) {
			t.Errorf("got the partial %.40q, want %.40q", p, k.want.partial)
		}
	}
	last := goCall(t, s.c, "last", "x") // all that the client had to say came before this
	rid, says := s.request(t, "last")
	s.b.send(s.id, "C", "3", rid, `{"status":200,"msg":"last"}`)
	if r := receive(t, "the last call's end", last); r != (result{"last", nil}) {
		t.Errorf("the last call got %v, want its reply", r)
	}
	own["Requests"]++
	own["Succeeded"]++
	if says = append(before1, says...); strings.Join(says, " ") != put(k.want.says) {
		t.Errorf("it said %.200q, want %q", says, put(k.want.says))
	}
	if len(end) > 0 || len(partials) > 0 {
		t.Errorf("%d more ends and %d more partials, want none", len(end), len(partials))
	}
	if got := moved(before, s.c.Stats(), own); got != k.want.moves {
		t.Errorf("counters moved: %s; want %s", got, k.want.moves)
	}
	if st := s.c.Stats(); st.State != omdp.Ready || st.Outstanding != 0 {
		t.Errorf("the client is %v with %d outstanding, want ready and none", st.State, st.Outstanding)
	}
	if t.Failed() {
		t.Logf("sent: %s", excerpt(k.send[len(k.send)-1]))
	}
}

// final tells whether what is sent ends the request with an empty value.
func (k clientCase) final() bool { return strings.Contains(k.name, "raw REPLY/bytes empty") }
