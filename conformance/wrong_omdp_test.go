package conformance

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// spoils makes of a message what a wrong peer would have said; none: nothing.
// toBroker is its direction.
type spoils func(toBroker bool, m []string) [][]string

// spoiler is this library's broker, worker or client behind a relay that
// spoils what passes.
type spoiler struct {
	Subject
	hub    *hub
	target string
	spoil  spoils

	up map[*peer]*peer // a socket to the target for each peer of the hub; the hub's goroutine's

	mu sync.Mutex // guards what spoil remembers
}

func newSpoiler(f spoils, target string) (*spoiler, error) {
	s := &spoiler{target: target, spoil: f, up: map[*peer]*peer{}}
	var err error
	s.hub, err = bind(anyPort, s.received, nil)
	return s, err
}

func (s *spoiler) received(p *peer, m []string) {
	up := s.up[p]
	if up == nil {
		var err error
		if up, err = dial("relay", s.target, func(_ *peer, m []string) { s.pass(fromBroker, m, p) }); err != nil {
			panic(err)
		}
		s.up[p] = up
	}
	s.pass(toBroker, m, up)
}

// pass sends without the lock: a socket that sends may deliver as well.
func (s *spoiler) pass(direction bool, m []string, to *peer) {
	s.mu.Lock()
	all := s.spoil(direction, m)
	s.mu.Unlock()
	for _, m := range all {
		to.send(m)
	}
}

func (s *spoiler) Endpoint() string { return s.hub.endpoint }

func (s *spoiler) Close() {
	if s.Subject != nil {
		s.Subject.Close()
	}
	s.hub.close()
	for _, p := range s.up { // the hub was their only user
		p.shut()
	}
}

// spoilerDriver starts one for each script.
type spoilerDriver struct {
	ours
	fault func() spoils // nil: nothing is spoiled
}

// Expiry matters to those that are to pass.
func (d spoilerDriver) Expiry() time.Duration {
	if d.fault == nil {
		return d.ours.Expiry()
	}
	return ourBeat
}

func (d spoilerDriver) Start(at Start) (Subject, error) {
	f := func(_ bool, m []string) [][]string { return [][]string{m} }
	if d.fault != nil {
		f = d.fault()
	}
	if at.Script.Role != "broker" {
		s, err := newSpoiler(f, at.Endpoint)
		if err == nil {
			at.Endpoint = s.hub.endpoint
			s.Subject, err = d.ours.Start(at)
		}
		return s, err
	}
	c := &omdp.BrokerConfig{Heartbeat: ourBeat}
	if slices.Contains(at.Script.Needs, "timeout") {
		c.Timeout = ourTimeout
	}
	b, err := omdp.NewBroker(anyPort, c)
	if err == nil {
		err = b.Start()
	}
	if err != nil {
		return nil, err
	}
	s, err := newSpoiler(f, b.Endpoint())
	if err == nil {
		s.Subject = &ourBroker{b: b}
	}
	return s, err
}

// What a spoiler does with the messages that begin with head, in one direction.
const (
	toBroker   = true
	fromBroker = false
)

func on(direction bool, head string, do func(m []string) [][]string) func() spoils {
	with := strings.Split(head, "|")
	return func() spoils {
		return func(to bool, m []string) [][]string {
			if to == direction && begins(m, with) {
				return do(slices.Clone(m))
			}
			return [][]string{m}
		}
	}
}

func drop(direction bool, head string) func() spoils {
	return on(direction, head, func([]string) [][]string { return nil })
}

// dropLong leaves alone what is no longer than the head.
func dropLong(direction bool, head string) func() spoils {
	return on(direction, head, func(m []string) [][]string {
		if len(m) > strings.Count(head, "|")+1 {
			return nil
		}
		return [][]string{m}
	})
}

func twice(direction bool, head string) func() spoils {
	return on(direction, head, func(m []string) [][]string { return [][]string{m, m} })
}

// change replaces in one frame, counted from 0, or from the end.
func change(direction bool, head string, i int, old, new string) func() spoils {
	return on(direction, head, func(m []string) [][]string {
		at := i
		if i < 0 {
			at += len(m)
		}
		m[at] = strings.ReplaceAll(m[at], old, new)
		return [][]string{m}
	})
}

// nth passes only those of a head for which keep holds; n counts from 0, for each last frame.
func nth(direction bool, head string, keep func(n int) bool) func() spoils {
	return func() spoils {
		seen := map[string]int{}
		return on(direction, head, func(m []string) [][]string {
			n := seen[m[len(m)-1]]
			seen[m[len(m)-1]]++
			if !keep(n) {
				return nil
			}
			return [][]string{m}
		})()
	}
}

// deafAfter hears nothing any more behind a message with such a last frame but one.
func deafAfter(frame string) func() spoils {
	return func() spoils {
		deaf := false
		return func(to bool, m []string) [][]string {
			if to && deaf {
				return nil
			}
			deaf = deaf || to && len(m) > 1 && m[len(m)-2] == frame
			return [][]string{m}
		}
	}
}

// Every fault of a peer of OMDP is found, by the scripts that it concerns; they
// pass where the relay changes nothing.
func TestWrongOMDP(t *testing.T) {
	t.Parallel()
	k := load(t)
	faults := []struct {
		name   string
		fault  func() spoils
		shows  []string
		before string // of each script's name
	}{
		{"it tells nobody of a dispatch", nth(fromBroker, "C|4", func(n int) bool { return n > 0 }), []string{"notify"}, "broker-"},
		{"it passes no heartbeat on to a client", nth(fromBroker, "C|4", func(n int) bool { return n == 0 }), []string{"forward-worker"}, "broker-"},
		{"it passes no heartbeat on to a worker", dropLong(fromBroker, "W|4"), []string{"forward-client", "forward-client-queued"}, "broker-"},
		{"it has no heartbeats", drop(fromBroker, "W|4"), []string{"heartbeats"}, "broker-"},
		{"it has options of its own", change(fromBroker, "W|2", -1, "60000", "1000"), []string{"request"}, "broker-"},
		{"it changes data", change(fromBroker, "W|2", 4, "null", `""`), []string{"request"}, "broker-"},
		{"it drops partials", drop(fromBroker, "C|6"), []string{"partials"}, "broker-"},
		{"it makes finals of partials", change(fromBroker, "C|6", 1, "6", "3"), []string{"partials"}, "broker-"},
		{"it tells nobody that time is over", change(fromBroker, "C|3", -1, "TIMEOUT", "OTHER"), []string{"timeout", "default-timeout"}, "broker-"},
		{"it tells nobody of a lost worker", change(fromBroker, "C|3", -1, "W_ERROR", "OTHER"), []string{"worker-quits"}, "broker-"},
		{"it sends nobody away", drop(fromBroker, "W|5"), []string{"error-forged", "error-heartbeat-before-ready", "error-heartbeat-without-request", "error-partial-before-ready", "error-reply-before-ready", "error-reply-without-request", "error-second-ready"}, "broker-"},
		{"it says all twice", twice(fromBroker, "C|3"), []string{"one-reply", "error-forged"}, "broker-"},
		{"it gives ids of its own", change(fromBroker, "C|3", 2, "rid-", "id-"), []string{"multi", "worker-quits"}, "broker-"},
		{"it is lost by what is no JSON", deafAfter("undefined"), []string{"not-json"}, "broker-"},
		{"its MDP/0.2 has no partials", drop(fromBroker, "MDPC02|\x02"), []string{"mdp02-client"}, "broker-"},
		{"its MDP/0.2 has no FINAL", change(fromBroker, "MDPC02|\x03", 1, "\x03", "\x02"), []string{"mdp02-client"}, "broker-"},
		{"it sends MDP/0.2 what is OMDP's", change(fromBroker, "MDPW02|\x02", 4, "hello", "bye"), []string{"mdp02-worker"}, "broker-"},

		{"it has no heartbeats", drop(toBroker, "W|4"), []string{"heartbeats", "request-heartbeats"}, "worker-"},
		{"it has none for its requests", dropLong(toBroker, "W|4"), []string{"request-heartbeats"}, "worker-"},
		{"it says READY with each heartbeat", on(toBroker, "W|4", func(m []string) [][]string { return [][]string{{"W", "1", "s"}, m} }), []string{"living-broker"}, "worker-"},
		{"it drops partials", drop(toBroker, "W|6"), []string{"partials"}, "worker-"},
		{"it makes finals of partials", change(toBroker, "W|6", 1, "6", "3"), []string{"partials"}, "worker-"},
		{"it replies twice", twice(toBroker, "W|3"), []string{"twice", "partials"}, "worker-"},
		{"it has one code for all errors", change(toBroker, "W|3", -1, "418", "500"), []string{"error"}, "worker-"},
		{"it answers nothing to what is no JSON", drop(toBroker, "W|3|client-1|rid-1"), []string{"not-json"}, "worker-"},
		{"it changes the client", change(toBroker, "W|3", 2, "client-2", "client-1"), []string{"request", "object"}, "worker-"},
		{"it changes the id", change(toBroker, "W|3", 3, "rid-1", "rid-0"), []string{"request", "twice"}, "worker-"},
		{"it changes values", change(toBroker, "W|3", -1, "null", "0"), []string{"object"}, "worker-"},
		{"it hears no DISCONNECT", drop(fromBroker, "W|5"), []string{"on-disconnect"}, "worker-"},
		{"it holds what nobody wants", drop(toBroker, "W|3|client-1"), []string{"stops-inactive"}, "worker-"},

		{"it has no heartbeats for its requests", dropLong(toBroker, "C|4"), []string{"heartbeats"}, "client-"},
		{"it asks for something else", change(toBroker, "C|2", 4, "hello", "bye"), []string{"request"}, "client-"},
		{"it tells no timeout", change(toBroker, "C|2", 5, "timeout", "time"), []string{"timeout"}, "client-"},
		{"it drops partials", drop(fromBroker, "C|6"), []string{"partials"}, "client-"},
		{"it takes a partial for the final", change(fromBroker, "C|6", 1, "6", "3"), []string{"partials"}, "client-"},
		{"it takes the final for a partial", change(fromBroker, "C|3", 1, "3", "6"), []string{"request"}, "client-"},
		{"it takes errors for values", change(fromBroker, "C|3", -1, "418", "200"), []string{"error"}, "client-"},
		{"it hears of no lost worker", drop(fromBroker, "C|3"), []string{"worker-lost", "error"}, "client-"},
		{"it asks the same again", change(toBroker, "C|2", 4, "two", "one"), []string{"multi"}, "client-"},
	}
	var wg sync.WaitGroup
	results := make([][]Result, len(faults))
	named := map[string]bool{}
	for i, f := range faults {
		var scripts []*Script
		for _, s := range f.shows {
			named["omdp/"+f.before+s] = true
			j := slices.IndexFunc(k.Scripts, func(x *Script) bool { return x.Name == "omdp/"+f.before+s })
			scripts = append(scripts, k.Scripts[j])
		}
		wg.Go(func() {
			results[i] = Run(t.Context(), scripts, Options{Driver: spoilerDriver{fault: f.fault}, Parallel: 8, Patience: time.Second})
		})
	}
	var right []Result
	wg.Go(func() {
		var scripts []*Script
		for _, s := range k.Scripts {
			if named[s.Name] {
				scripts = append(scripts, s)
			}
		}
		right = Run(t.Context(), scripts, Options{Driver: spoilerDriver{}, Parallel: 32, Patience: patience})
		again(t, k, right, Options{Driver: spoilerDriver{}, Patience: patience})
	})
	wg.Wait()
	for i, f := range faults {
		for _, r := range results[i] {
			if !r.Failed() {
				t.Errorf("%s: %s passes (%s)", f.name, r.Script.Name, r.Skipped)
			}
		}
	}
	for _, r := range right {
		if !r.Passed() {
			t.Errorf("nothing is spoiled, and %s fails: line %d: %s\nwant %s\ngot  %s", r.Script.Name, r.Line, r.Step, r.Want, r.Got)
		}
	}
}
