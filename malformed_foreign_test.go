package omdp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// Malformed messages from brokers of other dialects, to our client and worker.
// Each of them is counted, and nothing else comes of it: what is in progress goes
// on, and the next message is taken.

// toForeignClient and toForeignWorker are all that brokers say, as
// dialectMessages are all that peers do. R is the id of the request in progress.
var toForeignClient = map[Dialect][]dialectMessage{
	MDP02: {
		fieldsOf("PARTIAL", false, "header=MDPC02|byte=\x02|service=s|body=x"),
		fieldsOf("FINAL", false, "header=MDPC02|byte=\x03|service=s|body=x"),
	},
	MDP01: {fieldsOf("REPLY", false, "blank=|header=MDPC01|service=s|body=x")},
	OMDPFinal: {
		fieldsOf("PARTIAL", false, "letter=C|digit=6|rid=R|status=0|body=1"),
		fieldsOf("REPLY", false, "letter=C|digit=3|rid=R|status=0|body=1"),
		fieldsOf("HEARTBEAT", false, "letter=C|digit=4"),
	},
	PIGATO: {
		fieldsOf("PARTIAL", false, "letter=C|digit=6|blank=|rid=R|status=0|body=1|?|options={}"),
		fieldsOf("REPLY", false, "letter=C|digit=3|blank=|rid=R|status=0|body=1|?|options={}"),
		fieldsOf("HEARTBEAT", false, "letter=C|digit=4"),
	},
}

var toForeignWorker = map[Dialect][]dialectMessage{
	MDP02: {
		fieldsOf("REQUEST", true, "header=MDPW02|byte=\x02|token=T|blank=|body=x"),
		fieldsOf("HEARTBEAT", true, "header=MDPW02|byte=\x05"),
		fieldsOf("DISCONNECT", true, "header=MDPW02|byte=\x06"),
	},
	MDP01: {
		fieldsOf("REQUEST", true, "blank=|header=MDPW01|byte=\x02|token=T|blank=|body=x"),
		fieldsOf("HEARTBEAT", true, "blank=|header=MDPW01|byte=\x04"),
		fieldsOf("DISCONNECT", true, "blank=|header=MDPW01|byte=\x05"),
	},
	OMDPFinal: {
		fieldsOf("REQUEST", true, "letter=W|digit=2|token=T|rid=R|data=1"),
		fieldsOf("HEARTBEAT", true, "letter=W|digit=4"),
		fieldsOf("HEARTBEAT for a request", true, "letter=W|digit=4|token=T|rid=R"),
		fieldsOf("DISCONNECT", true, "letter=W|digit=5"),
	},
	PIGATO: {
		fieldsOf("REQUEST", true, "letter=W|digit=2|token=T|service=s|blank=|rid=R|data=1|?|options={}"),
		fieldsOf("READY", true, "letter=W|digit=1"),
		fieldsOf("HEARTBEAT", true, "letter=W|digit=4"),
		fieldsOf("HEARTBEAT for a request", true, "letter=W|digit=4|token=T|blank=|rid=R"),
		fieldsOf("DISCONNECT", true, "letter=W|digit=5"),
	},
}

// foreignCases are those of wrongCases, and what is right for others alone.
func foreignCases(x Dialect, messages map[Dialect][]dialectMessage, parse func([][]byte, *message) bool) []dialectCase {
	all := wrongCases(x, messages, parse)
	seen := map[string]bool{}
	for _, c := range all {
		seen[strings.Join(c.frames, "|")] = true
	}
	add := func(name string, frames ...string) {
		var m message
		var f [][]byte
		for _, s := range frames {
			f = append(f, []byte(s))
		}
		if key := strings.Join(frames, "|"); !seen[key] && !parse(f, &m) {
			seen[key] = true
			all = append(all, dialectCase{name: name, frames: frames})
		}
	}
	for role, table := range map[string]map[Dialect][]dialectMessage{"broker": dialectMessages, "client": toForeignClient, "worker": toForeignWorker} {
		for d := OMDPFinal; d.valid(); d++ {
			for _, m := range table[d] {
				add(fmt.Sprintf("to a %s of %v: %s", role, d, m.name), m.frames()...)
			}
		}
	}
	for _, m := range messages[x] {
		good := m.frames()
		for i, f := range good {
			add(fmt.Sprintf("%s: frame %d twice", m.name, i), slices.Insert(slices.Clone(good), i, f)...)
			if i > 0 {
				swapped := slices.Clone(good)
				swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
				add(fmt.Sprintf("%s: frames %d and %d swapped", m.name, i-1, i), swapped...)
			}
			add(fmt.Sprintf("%s: frame %d of 1 MiB", m.name, i), slices.Replace(slices.Clone(good), i, i+1, strings.Repeat("x", 1<<20))...)
		}
		head := good[:min(len(good), 2)]
		if x == MDP01 {
			head = good[:min(len(good), 3)]
		}
		for n := range 32 {
			add(fmt.Sprintf("%s: byte %d alone", m.name, n), append(slices.Clone(head[:len(head)-1]), string(rune(n)))...)
			add(fmt.Sprintf("%s: number %d alone", m.name, n), append(slices.Clone(head[:len(head)-1]), fmt.Sprint(n))...)
		}
	}
	for name, f := range map[string]string{"empty": "", "a letter": "C", "a byte": "\x02", "JSON": `{"a":1}`, "of 64 KiB": strings.Repeat("\x00", 1<<16)} {
		add("one frame "+name, f)
		add("two frames "+name, f, f)
		add("twenty frames "+name, slices.Repeat([]string{f}, 20)...)
	}
	for _, m := range []string{"C|8|{\"v\":1,\"id\":\"x\",\"hb\":2500}", "W|8|{\"v\":1,\"id\":\"x\",\"hb\":2500}", "C|9|R|5", "W|9|T|R|5", "C|11", "W|11", "C|12|R", "W|12|T|R", "C|13|R|x", "W|13|T|R|x", "W|10|T|R|client",
		"C|3|R|{\"status\":200,\"msg\":1}", "C|3|R|b|x", `W|2|T|R|1|{}|{"remaining":1,"attempt":1,"credit":0,"raw":false}`, `W|2|T|R|b|x|{}|{"remaining":1,"attempt":1,"credit":0,"raw":false}`} {
		add("OMDP's own: "+m, strings.Split(m, "|")...)
		add("OMDP's own, in an envelope: "+m, string(pack(strings.Split(m, "|")...)))
	}
	slices.SortFunc(all, func(a, b dialectCase) int { return strings.Compare(a.name, b.name) })
	return all
}

// pack makes an envelope.
func pack(frames ...string) []byte {
	l := new(fakeLink)
	l.inbox.Pack = true
	l.inbox.Begin()
	l.inbox.Envelope()
	for _, f := range frames {
		l.inbox.FrameString(f)
	}
	l.inbox.End()
	in := l.inbox.Message(0)
	return in[8:]
}

// What is wrong with a field is seen, whatever it is: no parser takes what the
// table says is none.
func TestMalformedForeignFields(t *testing.T) {
	for _, w := range foreignWires() {
		for role, p := range map[string]struct {
			messages map[Dialect][]dialectMessage
			parse    func([][]byte, *message) bool
		}{"client": {toForeignClient, w.parseAtClient}, "worker": {toForeignWorker, w.parseAtWorker}} {
			for _, m := range p.messages[w.dialect] {
				for i, field := range m.fields {
					for name, value := range wrongFields[field.kind] {
						var f [][]byte
						for _, s := range m.frames() {
							f = append(f, []byte(s))
						}
						f[i] = []byte(value)
						var got message
						if p.parse(f, &got) {
							t.Errorf("%v: the %s takes %s with a %s that is %s: %q", w.dialect, role, m.name, field.kind, name, f)
						}
					}
				}
			}
		}
	}
}

func TestMalformedForeignClient(t *testing.T) {
	for x := range toForeignClient {
		t.Run(x.String(), func(t *testing.T) {
			cases := foreignCases(x, toForeignClient, wires[x].parseAtClient)
			t.Logf("%d malformed messages", len(cases))
			if len(cases) < 100 {
				t.Errorf("only %d cases", len(cases))
			}
			synctest.Test(t, func(t *testing.T) {
				said := make(chan error, len(cases))
				c, n := fakeDialect(t, x, &ClientConfig{MaxConnections: 1, OnError: func(err error) { said <- err }})
				defer c.Close()
				l := n.next(t)
				prefix := strings.Replace(requestPrefix[x], "echo", "s", 1)
				for i, k := range cases {
					parts := make(chan string, 10)
					end := make(chan result, 1)
					if err := c.Request(t.Context(), "s", i, func(m Message) { parts <- m.String() }, func(m Message, err error) { end <- result{m: m, err: err} }); err != nil {
						t.Fatal(err)
					}
					m := l.awaitPrefix(t, prefix)
					before := c.Stats()
					frames := slices.Clone(k.frames)
					if wires[x].numbered {
						for j := range frames {
							if frames[j] == "R" {
								frames[j] = ridOf(m)
							}
						}
					}
					l.say(frames...)
					synctest.Wait()
					after := c.Stats()
					before.Malformed++
					if after != before || len(parts) > 0 || len(end) > 0 {
						t.Errorf("%s: %.200q: got %+v, want %+v; %d partials, %d ends", k.name, k.frames, after, before, len(parts), len(end))
					}
					l.answer(x, m, fmt.Sprint(i))
					if r := <-end; r.err != nil || r.m.String() != fmt.Sprint(i) {
						t.Fatalf("%s: the request got %q, %v", k.name, r.m, r.err)
					}
				}
				synctest.Wait()
				if len(said) != 1 || c.Stats().Connections != 1 {
					t.Errorf("it was reported %d times, and there were %d connections", len(said), c.Stats().Connections)
				}
			})
		})
	}
}

// work says a REQUEST of a dialect to a worker, with the data 1.
func (l *fakeLink) work(d Dialect, token, rid string) {
	switch d {
	case OMDPFinal:
		l.say("W", "2", token, rid, "1")
	case PIGATO:
		l.say("W", "2", token, "s", "", rid, "1", "{}")
	case MDP02:
		l.say("MDPW02", "\x02", token, "", "1")
	case MDP01:
		l.say("", "MDPW01", "\x02", token, "", "1")
	}
}

// final is how a worker of a dialect answers it with 1.
func foreignFinal(d Dialect, token, rid string) string {
	return map[Dialect]string{
		OMDPFinal: "W|3|" + token + "|" + rid + "|0|1", PIGATO: "W|3|" + token + "||" + rid + "|0|1|{}",
		MDP02: "MDPW02|\x04|" + token + "||1", MDP01: "|MDPW01|\x03|" + token + "||1",
	}[d]
}

// fakeDialectWorker is a worker of service s whose links are fake.
func fakeDialectWorker(t testing.TB, d Dialect, config *WorkerConfig, h Handler) (*Worker, *fakeNet) {
	t.Helper()
	n := newFakeNet()
	return stagedWorker(t, n, d, config, h), n
}

// stagedWorker is one on links of n.
func stagedWorker(t testing.TB, n *fakeNet, d Dialect, config *WorkerConfig, h Handler) *Worker {
	t.Helper()
	f := WorkerConfig{}
	if config != nil {
		f = *config
	}
	f.Dialect = d
	w, err := NewWorker("tcp://127.0.0.1:5555", "s", &f)
	if err != nil {
		t.Fatal(err)
	}
	w.conns[0].session.dial = n.dial
	if err := w.OnRequest(h); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestMalformedForeignWorker(t *testing.T) {
	for x := range toForeignWorker {
		t.Run(x.String(), func(t *testing.T) {
			cases := foreignCases(x, toForeignWorker, wires[x].parseAtWorker)
			t.Logf("%d malformed messages", len(cases))
			if len(cases) < 100 {
				t.Errorf("only %d cases", len(cases))
			}
			synctest.Test(t, func(t *testing.T) {
				said, free := make(chan error, len(cases)), make(chan struct{})
				w, n := fakeDialectWorker(t, x, &WorkerConfig{Concurrency: 2, OnError: func(err error) { said <- err }}, func(ctx context.Context, req *Request, res *Response) error {
					<-free
					return res.End(req.Message())
				})
				defer w.Close()
				l := n.next(t)
				for i, k := range cases {
					l.work(x, fmt.Sprint("T", i), fmt.Sprint("R", i))
					synctest.Wait()
					l.sent()
					before := w.Stats()
					frames := slices.Clone(k.frames)
					for j := range frames {
						switch frames[j] {
						case "T":
							frames[j] = fmt.Sprint("T", i)
						case "R":
							frames[j] = fmt.Sprint("R", i)
						}
					}
					l.say(frames...)
					synctest.Wait()
					after := w.Stats()
					before.Malformed++
					if sent := l.sent(); after != before || len(sent) > 0 {
						t.Errorf("%s: %.200q: got %+v, want %+v; sent %q", k.name, k.frames, after, before, sent)
					}
					free <- struct{}{}
					synctest.Wait()
					l.work(x, fmt.Sprint("next", i), fmt.Sprint("N", i))
					free <- struct{}{}
					synctest.Wait()
					sent := l.sent()
					if want := []string{foreignFinal(x, fmt.Sprint("T", i), fmt.Sprint("R", i)), foreignFinal(x, fmt.Sprint("next", i), fmt.Sprint("N", i))}; !slices.Equal(sent, want) {
						t.Fatalf("%s: sent %q, want %q", k.name, sent, want)
					}
				}
				if len(said) != 1 || w.Stats().Connections != 1 {
					t.Errorf("it was reported %d times, and there were %d connections", len(said), w.Stats().Connections)
				}
			})
		})
	}
}
