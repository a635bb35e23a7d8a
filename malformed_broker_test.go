package omdp_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/zmq-omdp/omdp"
)

// Malformed messages to a live broker. In every case a client has a request in
// progress at a worker, both by hand, on a broker that also has an honest
// client and worker. One of the two, or a third peer, sends what is malformed;
// then it is seen what each of them was told, which counters moved and by how
// much, how the request in progress ended, and that the honest are served.

// sender is who sends the malformed message.
type sender string

const (
	theClient   sender = "client"       // whose request is in progress
	theWorker   sender = "worker"       // that holds it
	newClient   sender = "new client"   // has said nothing before
	newWorker   sender = "new worker"   // has not sent READY
	otherClient sender = "other client" // has said HELLO
	sameClient  sender = "same client"  // has said HELLO with the life of the client, from a socket of its own
	otherWorker sender = "other worker" // serves something else
	leftWorker  sender = "left worker"  // has registered and said DISCONNECT
)

func (s sender) worker() bool {
	return s == theWorker || s == newWorker || s == otherWorker || s == leftWorker
}

// state is how a sending worker stands with the broker afterwards.
type state uint8

const (
	unknown    state = iota // told so by DISCONNECT
	advertised              // registered
	foreign                 // registered without capabilities
)

type brokerCase struct {
	name string
	from sender
	send [][]string
	want brokerWant
	pack func(frames []string) []string // done to each message before it is sent
}

type brokerWant struct {
	moves   string   // counters, besides what the test itself does
	answers []string // to the sender
	worker  []string // what the worker of the request in progress is sent
	client  []string // what its client is sent, before the end of it
	lost    bool     // it ends with W_ERROR, else with the worker's final
	ended   bool     // the message ended it
	after   state    // of a sending worker
	queued  string   // id of a request that waits, which the client cancels in the end
}

const malformedStatus = `{"status":"MALFORMED","executed":false}`

// refused is what is to be expected of a malformed message if nothing else is
// said: it is counted, a worker is told to start anew, and nobody else notices.
// Of a stranger it must be plain that it was to be a worker's.
func refused(from sender, frames ...string) brokerWant {
	if header, answer := otherDialect(frames); header {
		want := refused(from)
		want.moves += ", WrongDialect 1"
		if from != theWorker && from != otherWorker && answer != "" {
			want.answers = []string{answer}
		}
		return want
	}
	switch {
	case from == theWorker:
		return brokerWant{moves: "Malformed 1, WorkerLost 1", answers: []string{"W|5"}, lost: true}
	case from == otherWorker, from.worker() && len(frames) > 1 && len(frames) <= 16 && frames[0] == "W":
		return brokerWant{moves: "Malformed 1", answers: []string{"W|5"}}
	}
	return brokerWant{moves: "Malformed 1"}
}

// otherDialect tells whether frames begin as those of another dialect, and what
// a stranger who says so is answered in it.
func otherDialect(frames []string) (yes bool, answer string) {
	header := strings.Join(frames[:min(len(frames), 2)], "|")
	for start, answer := range map[string]string{"MDPC02": "", "MDPW02": "MDPW02|\x06", "|MDPC01": "", "|MDPW01": "|MDPW01|\x05"} {
		if header == start || start[0] != '|' && strings.HasPrefix(header, start+"|") {
			return true, answer
		}
	}
	return false, ""
}

// accepted: the client's REQUEST goes to the worker with these frames.
func accepted(rid, data, options string) brokerWant {
	return brokerWant{moves: "Accepted 1, Completed 1, Dispatched 1", worker: []string{strings.Join([]string{"W|2|*", rid, data, options, `{"remaining":N,"attempt":1,"credit":0,"raw":true}`}, "|")}}
}

func waits(rid string) brokerWant {
	return brokerWant{moves: "Accepted 1, Canceled 1", queued: rid}
}

// forwarded: the worker's PARTIAL or REPLY goes to the client as it is.
func forwarded(command string, payload ...string) brokerWant {
	w := brokerWant{moves: "Partials 1", client: []string{"C|" + command + "|{LIVE}|" + strings.Join(payload, "|")}, after: advertised}
	if command == "3" {
		w.moves, w.ended = "Completed 1", true
	}
	return w
}

var (
	forged    = brokerWant{moves: "Forged 1, WorkerLost 1", answers: []string{"W|5"}, lost: true}
	early     = brokerWant{moves: "Unregistered 1", answers: []string{"W|5"}}
	beat4     = brokerWant{client: []string{"C|4|{LIVE}"}, after: advertised}
	canceled  = brokerWant{moves: "Canceled 1", worker: []string{"W|10|{TOKEN}|{LIVE}|client"}, ended: true}
	nothing   = brokerWant{}
	stays     = brokerWant{after: advertised}
	registers = brokerWant{answers: []string{"W|8|*"}, after: advertised}
)

var longData = `"` + strings.Repeat("data", 20) + `"` // too long for an id

const (
	goodOptions = `{"timeout":60000}`
	goodPayload = `{"status":200,"msg":"x"}`
)

func fields(header, command string, more ...field) []field {
	return append([]field{{"header", kindHeader, header}, {"command", kindCommand, command}}, more...)
}

var (
	theService = field{"service", kindService, "{SERVICE}"}
	theRID     = field{"rid", kindRID, "{LIVE}"}
	theToken   = field{"token", kindToken, "{TOKEN}"}
	theCaps    = field{"caps", kindCaps, goodCaps}
	theAmount  = field{"amount", kindAmount, "1000"}
	theWindow  = field{"window", kindAmount, "2000"}
	thePayload = field{"payload", kindPayload, goodPayload}
)

// toBroker is every form of what clients and workers send, what it does when
// it is as it should be, and whatever a spoiled one does but be refused.
var toBroker = []struct {
	form form
	from sender
	fine brokerWant
	but  map[string]brokerWant
}{
	{form{"REQUEST", fields("C", "2", theService, field{"rid", kindRID, "{NEW}"}, field{"data", kindData, longData}, field{"options", kindOptions, goodOptions})}, theClient,
		accepted("{NEW}", longData, goodOptions), func() map[string]brokerWant {
			but := map[string]brokerWant{ // what can't be told from a request that somebody means
				"service binary": waits("{NEW}"), "service __proto__": waits("{NEW}"), "service toString": waits("{NEW}"), "service of 255 bytes": waits("{NEW}"), "service and rid swapped": waits("{SERVICE}"),
				"rid binary": accepted("\x00\xff\xfe", longData, goodOptions), "rid unknown": accepted("unknown", longData, goodOptions), "rid of 64 bytes": accepted(strings.Repeat("r", 64), longData, goodOptions),
				"data missing": accepted("{NEW}", goodOptions, "{}"), "options missing": accepted("{NEW}", longData, "{}"), "options empty": accepted("{NEW}", longData, ""), "options huge": accepted("{NEW}", longData, huge[kindOptions]),
				"data and options swapped": {moves: "Malformed 1", answers: []string{"C|3|{NEW}|" + malformedStatus}},
			}
			for _, v := range append(variantsOf(field{kind: kindData}), variant{"empty", "", true}, variant{"huge", huge[kindData], true}) { // the broker does not read it
				but["data "+v.name] = accepted("{NEW}", v.value, goodOptions)
			}
			for _, v := range optionsVariants { // read, and passed on untouched
				but["options "+v.name] = brokerWant{moves: "Malformed 1", answers: []string{"C|3|{NEW}|" + malformedStatus}}
				if v.fine {
					but["options "+v.name] = accepted("{NEW}", longData, v.value)
				}
			}
			return but
		}()},
	{form{"HEARTBEAT", fields("C", "4")}, theClient, nothing, map[string]brokerWant{
		"command doubled": {moves: "UnknownRequests 1", answers: []string{`C|3|4|{"status":"LOST"}`}},
	}},
	{form{"HEARTBEAT of a request", fields("C", "4", theRID)}, theClient, brokerWant{worker: []string{"W|4|{TOKEN}|{LIVE}"}}, map[string]brokerWant{
		"rid missing": nothing, "rid binary": lostAs("\x00\xff\xfe"), "rid unknown": lostAs("unknown"), "rid of 64 bytes": lostAs(strings.Repeat("r", 64)),
	}},
	{form{"HELLO", fields("C", "8", theCaps)}, theClient, brokerWant{answers: []string{"C|8|*"}}, nil},
	{form{"CREDIT", fields("C", "9", theRID, theAmount)}, theClient, credited("1000"), map[string]brokerWant{
		"rid binary": stray, "rid unknown": stray, "rid of 64 bytes": stray, "amount doubled": credited("1000"),
	}},
	{form{"CREDIT with a window", fields("C", "9", theRID, theAmount, theWindow)}, theClient, credited("1000"), map[string]brokerWant{ // its windows don't grow
		"rid binary": stray, "rid unknown": stray, "rid of 64 bytes": stray, "window missing": credited("1000"), "amount missing": credited("2000"), "rid missing": stray,
		"amount zero": nothing, "amount minus zero": nothing, "amount and window swapped": credited("2000"),
	}},
	{form{"raw REQUEST", fields("C", "2", theService, field{"rid", kindRID, "{NEW}"}, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, rawData}, field{"options", kindOptions, goodOptions})}, theClient,
		accepted("{NEW}", asText(rawData), goodOptions), rawRequests()},
	{form{"PIECE", fields("C", "13", theRID, field{"bytes", kindPayload, "\xff\x00"})}, theClient, overdrawn(theClient), pieces(theClient, map[string]brokerWant{
		"rid binary": stray, "rid unknown": stray, "rid of 64 bytes": stray, "rid missing": stray, "rid and bytes swapped": stray, "bytes missing": overdrawn(theClient),
	})},
	{form{"BLOCKED", fields("C", "12", theRID)}, theClient, nothing, map[string]brokerWant{"rid binary": stray, "rid unknown": stray, "rid of 64 bytes": stray}},
	{form{"CANCEL", fields("C", "10", theRID)}, theClient, canceled, map[string]brokerWant{
		"rid binary": stray, "rid unknown": stray, "rid of 64 bytes": stray,
	}},

	{form{"READY", fields("W", "1", theService, theCaps)}, newWorker, registers, map[string]brokerWant{
		"service missing": {after: foreign}, "caps missing": {after: foreign}, // it serves what the caps say
		"service binary": registers, "service __proto__": registers, "service toString": registers, "service of 255 bytes": registers,
	}},
	{form{"PARTIAL", fields("W", "6", theToken, theRID, thePayload)}, theWorker, forwarded("6", goodPayload), replies("6")},
	{form{"REPLY", fields("W", "3", theToken, theRID, thePayload)}, theWorker, forwarded("3", goodPayload), replies("3")},
	{form{"raw PARTIAL", fields("W", "6", theToken, theRID, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, "\xff\x00"})}, theWorker, forwarded("6", "b", "\xff\x00"), rawReplies("6")},
	{form{"raw REPLY", fields("W", "3", theToken, theRID, field{"type", kindPayload, "b"}, field{"bytes", kindPayload, "\xff\x00"})}, theWorker, forwarded("3", "b", "\xff\x00"), rawReplies("3")},
	{form{"HEARTBEAT", fields("W", "4")}, theWorker, stays, nil},
	{form{"HEARTBEAT of a request", fields("W", "4", theToken, theRID)}, theWorker, beat4, withForged(map[string]brokerWant{"cut after the command": stays})},
	{form{"BLOCKED", fields("W", "12", theToken, theRID)}, theWorker, stays, withForged(map[string]brokerWant{})},
	{form{"CREDIT", fields("W", "9", theToken, theRID, theAmount)}, theWorker, brokerWant{moves: "Stray 1", after: advertised}, withForged(map[string]brokerWant{})},
	{form{"PIECE", fields("W", "13", theToken, theRID, field{"bytes", kindPayload, "\xff\x00"})}, theWorker, overdrawn(theWorker), pieces(theWorker, withForged(map[string]brokerWant{"rid and bytes swapped": forged}))},
	{form{"DISCONNECT", fields("W", "5")}, theWorker, brokerWant{moves: "WorkerLost 1", lost: true}, nil},
	{form{"HELLO", fields("W", "8", theCaps)}, theWorker, stays, nil},
	{form{"DRAIN", fields("W", "11")}, theWorker, brokerWant{answers: []string{"W|11"}, after: foreign}, nil}, // it is told once
}

func credited(n string) brokerWant { return brokerWant{worker: []string{"W|9|{TOKEN}|{LIVE}|" + n}} }

// overdrawn: it is a piece where none may be sent: the request alone ends.
func overdrawn(from sender) brokerWant {
	client, worker := []string{`C|3|{LIVE}|{"status":"PROTOCOL"}`}, []string{"W|10|{TOKEN}|{LIVE}|protocol"}
	if from == theWorker {
		return brokerWant{moves: "Overdrawn 1", answers: worker, client: client, ended: true, after: advertised}
	}
	return brokerWant{moves: "Overdrawn 1", answers: client, worker: worker, ended: true}
}

// stray: it is for a request that its sender does not have.
var stray = brokerWant{moves: "Stray 1"}

func lostAs(rid string) brokerWant {
	return brokerWant{moves: "UnknownRequests 1", answers: []string{"C|3|" + rid + `|{"status":"LOST"}`}}
}

// withForged adds that a token which the worker does not hold, or not for this
// id, is a forgery.
func withForged(but map[string]brokerWant) map[string]brokerWant {
	for _, k := range []kind{kindToken, kindRID} {
		for _, v := range variantsOf(field{kind: k}) {
			but[map[kind]string{kindToken: "token ", kindRID: "rid "}[k]+v.name] = forged
		}
	}
	but["token and rid swapped"] = forged
	return but
}

// pieces adds that the bytes of a piece may be any.
func pieces(from sender, but map[string]brokerWant) map[string]brokerWant {
	for _, v := range payloadVariants {
		but["bytes "+v.name] = overdrawn(from)
	}
	but["bytes huge"] = overdrawn(from)
	return but
}

const rawData = "\xff\x00"

// asText is how raw data reaches a worker that does not read it.
func asText(data string) string {
	if !utf8.ValidString(data) {
		return strings.ReplaceAll(fmt.Sprintf(`{"type":"Buffer","data":%v}`, []byte(data)), " ", ",")
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(data) // a string encodes
	return strings.TrimSuffix(b.String(), "\n")
}

// rawRequests is what spoiled REQUESTs with raw data do: the worker gets JSON,
// as it did not say that it reads more.
func rawRequests() map[string]brokerWant {
	text, malformed := asText(rawData), brokerWant{moves: "Malformed 1", answers: []string{"C|3|{NEW}|" + malformedStatus}}
	but := map[string]brokerWant{
		"service binary": waits("{NEW}"), "service __proto__": waits("{NEW}"), "service toString": waits("{NEW}"), "service of 255 bytes": waits("{NEW}"), "service and rid swapped": waits("{SERVICE}"), "service missing": waits("b"),
		"rid binary": accepted("\x00\xff\xfe", text, goodOptions), "rid unknown": accepted("unknown", text, goodOptions), "rid of 64 bytes": accepted(strings.Repeat("r", 64), text, goodOptions),
		"rid missing": accepted("b", rawData, goodOptions), "type missing": accepted("{NEW}", rawData, goodOptions), "bytes missing": accepted("{NEW}", "b", goodOptions), "bytes empty": accepted("{NEW}", `""`, goodOptions),
		"bytes huge": accepted("{NEW}", asText(huge[kindPayload]), goodOptions), "options empty": accepted("{NEW}", text, ""), "options huge": accepted("{NEW}", text, huge[kindOptions]),
		"options missing": malformed, "bytes and options swapped": malformed,
	}
	for _, v := range payloadVariants {
		but["bytes "+v.name] = accepted("{NEW}", asText(v.value), goodOptions)
	}
	for _, v := range optionsVariants {
		but["options "+v.name] = malformed
		if v.fine {
			but["options "+v.name] = accepted("{NEW}", text, v.value)
		}
	}
	return but
}

func replies(command string) map[string]brokerWant {
	but := withForged(map[string]brokerWant{
		"payload empty": forwarded(command, ""), "payload doubled": forwarded(command, goodPayload, goodPayload), "payload huge": forwarded(command, huge[kindPayload]),
		"rid doubled": forwarded(command, "{LIVE}", goodPayload), "token doubled": forged, "command doubled": forged, "rid and payload swapped": forged,
	})
	for _, v := range payloadVariants { // it passes them on
		but["payload "+v.name] = forwarded(command, v.value)
	}
	return but
}

func rawReplies(command string) map[string]brokerWant {
	raw := "\xff\x00"
	but := withForged(map[string]brokerWant{
		"type missing": forwarded(command, raw), "type empty": forwarded(command, "", raw), "type huge": forwarded(command, huge[kindPayload], raw), "type and bytes swapped": forwarded(command, raw, "b"),
		"bytes missing": forwarded(command, "b"), "bytes empty": forwarded(command, "b", ""), "bytes huge": forwarded(command, "b", huge[kindPayload]),
		"token missing": forged, "rid missing": forged, "rid and type swapped": forged,
	})
	for _, v := range payloadVariants {
		but["type "+v.name], but["bytes "+v.name] = forwarded(command, v.value, raw), forwarded(command, "b", v.value)
	}
	return but
}

// brokerCases is the table.
func brokerCases() (all []brokerCase) {
	for _, k := range toBroker {
		unused := maps.Clone(k.but)
		for _, s := range k.form.spoil() {
			want := refused(k.from, s.frames...)
			if s.fine {
				want = k.fine
			}
			name := strings.TrimPrefix(s.name, k.form.name+"/")
			if but, ok := k.but[name]; ok {
				want = but
				delete(unused, name)
			}
			all = append(all, brokerCase{string(k.from) + " " + s.name, k.from, [][]string{s.frames}, want, nil})
		}
		if len(unused) > 0 {
			panic(fmt.Sprintf("%s: exceptions for what is not in the table: %q", k.form.name, slices.Collect(maps.Keys(unused))))
		}
	}
	return slices.Concat(all, wrongPeerCases(), envelopeCases())
}

// stage is what the cases of one broker share.
type stage struct {
	b *omdp.Broker
	c *omdp.Client // honest
}

var remaining = regexp.MustCompile(`"remaining":-?\d+`)

// seen makes what differs from run to run the same: tokens of new requests,
// the time that remains, and the broker's capabilities.
func seen(m []string) string {
	m = slices.Clone(m)
	switch {
	case len(m) == 7 && m[0] == "W" && m[1] == "2":
		m[2], m[6] = "*", remaining.ReplaceAllString(m[6], `"remaining":N`)
	case len(m) == 3 && m[1] == "8":
		m[2] = "*"
	}
	return strings.Join(m, "|")
}

// until reads up to the message last, and says what came before it.
func (p *rawPeer) until(t testing.TB, last string) (before []string) {
	t.Helper()
	for {
		m := seen(p.next(t))
		if m == last {
			return before
		}
		before = append(before, m)
	}
}

func TestMalformedBroker(t *testing.T) {
	t.Parallel()
	cases := brokerCases()
	for _, transport := range []string{"inproc", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Heartbeat: patience, Dialect: omdp.OMDP})
			config := &omdp.WorkerConfig{Heartbeat: patience}
			addWorker(t, b, "echo", config, echo)
			s := stage{b, addClient(t, b, &omdp.ClientConfig{Heartbeat: patience})}
			for _, k := range toBroker { // first what is as it should be
				good := brokerCase{"good " + k.form.name, k.from, [][]string{k.form.frames()}, k.fine, nil}
				t.Run(string(k.from)+" "+good.name, func(t *testing.T) { s.play(t, good) })
			}
			for i, c := range cases {
				if transport != "inproc" && i%8 != 0 { // frames are frames, whatever brought them
					continue
				}
				t.Run(c.name, func(t *testing.T) { s.play(t, c) })
			}
		})
	}
}

// act is one case while it is played.
type act struct {
	*testing.T
	b       *omdp.Broker
	w, c, p *rawPeer // the worker, its client, and the sender, which may be one of the two
	put     func(string) string
	own     map[string]uint64 // counters that the test itself moves
}

// play runs one case.
func (s stage) play(t *testing.T, k brokerCase) {
	a := &act{T: t, b: s.b, own: map[string]uint64{}}
	a.begin(k.from)
	before := s.b.Stats()
	for _, frames := range k.send {
		frames = slices.Clone(frames)
		for i := range frames {
			frames[i] = a.put(frames[i])
		}
		if k.pack != nil {
			frames = k.pack(frames)
		}
		a.p.send(frames...)
	}

	end := []string{`C|3|{LIVE}|{"status":200,"msg":"end"}`}
	holds := [][]string{{a.put("{TOKEN}"), a.put("{LIVE}")}}
	switch {
	case k.want.lost:
		end, holds = []string{`C|3|{LIVE}|{"status":"W_ERROR"}`}, nil
	case k.want.ended:
		end, holds = nil, nil
	default:
		a.own["Completed"]++
	}
	if k.from == theWorker {
		a.leaves(a.w, k.want, holds)
	} else {
		switch {
		case k.from.worker():
			a.leaves(a.p, k.want, nil)
		case k.want.queued != "":
			a.c.send("C", "10", a.put(k.want.queued))
			fallthrough
		default:
			a.check("sender", a.p.until(t, a.fence(a.p)), k.want.answers)
		}
		for _, rid := range a.finish(k.want.worker, holds) {
			end = append(end, "C|3|"+rid+`|{"status":200,"msg":"end"}`)
		}
	}
	a.check("client", a.c.until(t, a.fence(a.c)), slices.Concat(k.want.client, end))
	if got := moved(before, s.b.Stats(), a.own); got != k.want.moves {
		t.Errorf("counters moved: %s; want %s", got, k.want.moves)
	}
	served(t, s.c, "echo")
	if t.Failed() {
		t.Logf("sent by the %s: %s", k.from, excerpt(k.send[len(k.send)-1]))
	}
}

// begin sets the act up to where the request is in progress.
func (a *act) begin(from sender) {
	n := strconv.FormatUint(endpointCount.Add(1), 10)
	names := []string{"{SERVICE}", "raw-" + n, "{LIVE}", "live-" + n, "{NEW}", "new-" + n, "{LIFE}", "life-" + n}
	put := strings.NewReplacer(names...).Replace
	dial := func() *rawPeer { return dialRawRoom(a, a.b.Endpoint(), 100) }
	a.w, a.c = dial(), dial()
	a.w.send("W", "1", put("{SERVICE}"), put(goodCaps))
	a.c.send("C", "8", put(goodCaps))
	a.c.send("C", "2", put("{SERVICE}"), put("{LIVE}"), `"live"`)
	a.c.until(a, "C|8|*")
	m := a.w.next(a)
	for ; m[1] != "2"; m = a.w.next(a) {
	}
	a.put = strings.NewReplacer(append(names, "{TOKEN}", m[2], "{TOKEN:25}", m[2][:25])...).Replace

	switch from {
	case theClient:
		a.p = a.c
		return
	case theWorker:
		a.p = a.w
		return
	}
	a.p = dial()
	switch from {
	case sameClient:
		a.p.send("C", "8", put(goodCaps))
		a.p.until(a, "C|8|*")
	case otherClient:
		a.p.send("C", "8", strings.Replace(put(goodCaps), "life-", "other-", 1))
		a.p.until(a, "C|8|*")
	case otherWorker, leftWorker:
		a.p.send("W", "1", put("other-{NEW}"), put(goodCaps))
		a.p.until(a, "W|8|*")
		if from == leftWorker {
			a.p.say("W|5")
		}
	}
}

// fence sends what is answered when all before it was done, and tells by what.
func (a *act) fence(p *rawPeer) (last string) {
	a.own["UnknownRequests"]++
	rid := fmt.Sprint("fence-", endpointCount.Add(1))
	p.send("C", "4", rid)
	return "C|3|" + rid + `|{"status":"LOST"}`
}

func (a *act) check(who string, got, want []string) {
	a.Helper()
	want = slices.Clone(want)
	for i := range want {
		want[i] = a.put(want[i])
	}
	if !slices.Equal(got, want) {
		a.Errorf("the %s got %s, want %s", who, excerpt(got), excerpt(want))
	}
}

// leaves: the worker that sent the message says DRAIN, which is answered in one
// way if it is registered and in another if not; answers what it holds; goes.
func (a *act) leaves(p *rawPeer, want brokerWant, holds [][]string) {
	answers := want.answers
	switch want.after {
	case advertised:
		answers = append(slices.Clone(answers), "W|11")
	case unknown:
		answers = append(slices.Clone(answers), "W|5")
		a.own["Unregistered"]++
	}
	p.say("W|11")
	for _, m := range holds {
		p.send("W", "3", m[0], m[1], `{"status":200,"msg":"end"}`)
	}
	p.say("W|5")
	a.check("sender", p.until(a, a.fence(p)), answers)
}

// finish: a worker that did not send the message has what is due to it, answers
// all that it holds, and goes. It returns the ids of requests that it was given
// meanwhile.
func (a *act) finish(want []string, holds [][]string) (more []string) {
	a.w.say("W|11")
	var got []string
	for m := a.w.next(a); seen(m) != "W|11"; m = a.w.next(a) {
		got = append(got, seen(m))
		if m[1] == "2" {
			holds, more = append(holds, []string{m[2], m[3]}), append(more, m[3])
		}
	}
	a.check("worker", got, want)
	for _, m := range holds {
		a.w.send("W", "3", m[0], m[1], `{"status":200,"msg":"end"}`)
	}
	a.w.say("W|5")
	a.check("worker at its end", a.w.until(a, a.fence(a.w)), nil)
	return more
}
