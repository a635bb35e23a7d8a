package conformance

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// tinyPeer is a worker or a client of MDP as short as can be, with faults to
// choose from.
type tinyPeer struct {
	calls
	start   Start
	fault   string
	version string
	stop    chan struct{}
	done    sync.WaitGroup

	mu    sync.Mutex
	p     *peer     // the socket in use
	two   *peer     // one too many
	heard time.Time // something of the broker
	told  time.Time // something to the broker
	asked []string  // the names of the calls, the one in progress first
	data  map[string]string
}

type tinyPeerDriver struct{ tinyDriver }

// It misses its broker after 20 beats.
func (d tinyPeerDriver) Expiry() time.Duration { return 24 * d.Beat() }

func (tinyPeerDriver) Refuses(role, dialect string) string {
	if role == "broker" || dialect == "omdp" {
		return "it is a worker and a client of MDP"
	}
	return ""
}

func (d tinyPeerDriver) Start(s Start) (Subject, error) {
	x := &tinyPeer{start: s, fault: d.fault, version: s.Script.Dialects[0][3:], stop: make(chan struct{}), data: map[string]string{}}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.open(); err != nil {
		return nil, err
	}
	if s.Script.Role == "worker" {
		x.done.Go(x.beat)
	}
	return x, nil
}

// open goes on with a new socket.
func (x *tinyPeer) open() error {
	x.heard = time.Now()
	if x.p != nil && x.fault == "keeps its socket" {
		x.say("ready", x.start.Service)
		return nil
	}
	keep := func(p *peer, m []string) { p.in.put(m) }
	p, err := dial("tiny", x.start.Endpoint, keep)
	if err != nil {
		return err
	}
	x.p = p
	x.done.Go(func() { x.hear(p) })
	if x.start.Script.Role == "worker" {
		x.say("ready", x.start.Service)
	}
	if x.fault == "opens two sockets" && x.two == nil {
		if x.two, err = dial("tiny", x.start.Endpoint, keep); err == nil {
			x.two.send([]string{"MDPW02", "\x05"})
		}
	}
	return err
}

// say sends a worker's command.
func (x *tinyPeer) say(command string, more ...string) {
	if x.fault == "says nothing of "+command {
		return
	}
	m := []string{"MDPW" + x.version, string(rune(slices.Index(tinyCommands[x.version], command)))}
	if x.version == "01" && x.fault != "sends no first empty frame" {
		m = append([]string{""}, m...)
	}
	x.p.send(append(m, more...))
	x.told = time.Now()
}

// hear takes what comes on a socket until it is another's turn.
func (x *tinyPeer) hear(p *peer) {
	for {
		m := p.in.next(time.Now().Add(tinyBeat(x.fault) / 2))
		x.mu.Lock()
		if p != x.p {
			x.mu.Unlock()
			p.shut()
			return
		}
		if len(m) > 0 && m[0] == "" {
			m = m[1:]
		}
		if len(m) > 1 && len(m[0]) == 6 && (m[0][4:] == x.version || x.fault == "takes any version") {
			if x.start.Script.Role == "worker" {
				x.work(m[1:])
			} else {
				x.answered(m[1:])
			}
		}
		x.mu.Unlock()
	}
}

func (x *tinyPeer) work(m []string) {
	command := tinyCommands[x.version][m[0][0]]
	if command == "beat" || x.fault != "hears heartbeats alone" {
		x.heard = time.Now()
	}
	switch {
	case command == "bye" && x.fault != "hears no DISCONNECT":
		_ = x.open()
	case command == "request" && len(m) >= 4 && m[2] == "":
		x.serve(m[1], m[3:])
	}
}

func (x *tinyPeer) serve(address string, body []string) {
	switch x.fault {
	case "changes the address":
		address += "x"
	case "adds an address":
		address, body = address+"x", append([]string{address, ""}, body...)
	}
	answer := func(command string, body ...string) {
		m := append([]string{address, ""}, body...)
		if x.fault == "sends no empty frame" {
			m = slices.Delete(m, 1, 2)
		}
		x.say(command, m...)
	}
	switch body[0] {
	case `"hold"`:
		return
	case `"twice"`:
		answer("final", `"once"`)
		if x.fault == "replies twice" {
			answer("final", `"twice"`)
		}
		return
	case `"partials"`:
		if x.version == "02" {
			for i := range 3 {
				answer("partial", fmt.Sprintf(`"partials-%d"`, i))
			}
			body = []string{`"partials-final"`}
		}
	}
	answer("final", body...)
}

func (x *tinyPeer) beat() {
	every := tinyBeat(x.fault)
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-x.stop:
			return
		case <-tick.C:
		}
		x.mu.Lock()
		if x.p == nil {
			x.mu.Unlock()
			return
		}
		if time.Since(x.told) > every*3/4 || x.fault == "beats by the clock" {
			x.say("beat")
		}
		if x.fault == "says READY again" {
			x.say("ready", x.start.Service)
		}
		if time.Since(x.heard) > 20*every && x.fault != "misses nobody" {
			_ = x.open()
		}
		x.mu.Unlock()
	}
}

func (*tinyPeer) Endpoint() string { return "" }

func (x *tinyPeer) Stop() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.say("bye")
	return nil
}

func (x *tinyPeer) Close() {
	close(x.stop)
	x.mu.Lock()
	x.p = nil
	x.mu.Unlock()
	x.done.Wait()
	if x.two != nil {
		x.two.shut()
	}
}

// Call asks at once, or when the calls before have ended.
func (x *tinyPeer) Call(name, data string, _ time.Duration) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.data[name] = data
	x.asked = append(x.asked, name)
	if len(x.asked) == 1 || x.fault == "asks while it waits" {
		x.ask(name)
	}
	return nil
}

func (x *tinyPeer) ask(name string) {
	m := []string{"MDPC02", "\x01", x.start.Service, x.data[name]}
	if x.version == "01" {
		m = []string{"", "MDPC01", x.start.Service, x.data[name]}
	}
	switch {
	case x.fault == "is a REQ" && x.version == "02":
		m = append([]string{""}, m...)
	case x.fault == "sends no first empty frame" && x.version == "01":
		m = m[1:]
	}
	x.p.send(m)
}

func (x *tinyPeer) answered(m []string) {
	final := x.version == "01" || m[0] == "\x03"
	if x.version == "02" {
		m = m[1:]
	}
	if len(x.asked) == 0 || len(m) < 2 || !final && x.fault == "drops partials" {
		return
	}
	if !final && x.fault != "takes a partial for the final" {
		x.of(x.asked[0]).put([]string{"partial", m[1]})
		return
	}
	x.of(x.asked[0]).put([]string{"final", m[1]})
	if x.asked = x.asked[1:]; len(x.asked) > 0 {
		x.ask(x.asked[0])
	}
}

// Every fault of a worker or a client is found, by the script that it concerns.
func TestWrongPeer(t *testing.T) {
	t.Parallel()
	findFaults(t, func(fault string) Driver { return tinyPeerDriver{tinyDriver{fault}} }, []fault{
		{"", ""},
		{"says nothing of ready", "rfc18/worker-ready"},
		{"says nothing of beat", "rfc7/worker-heartbeats"},
		{"says nothing of bye", "rfc18/worker-stop"},
		{"says nothing of partial", "rfc18/worker-partials"},
		{"says nothing of final", "rfc7/worker-request"},
		{"says READY again", "rfc18/worker-one-socket"},
		{"opens two sockets", "rfc18/worker-one-socket"},
		{"keeps its socket", "rfc7/worker-on-disconnect"},
		{"hears no DISCONNECT", "rfc18/worker-on-disconnect"},
		{"hears heartbeats alone", "rfc18/worker-requests-are-heartbeats"},
		{"beats by the clock", "rfc7/worker-no-idle-heartbeats"},
		{"misses nobody", "rfc7/worker-silent-broker"},
		{"changes the address", "rfc18/worker-request"},
		{"adds an address", "rfc7/worker-request"},
		{"sends no empty frame", "rfc18/worker-request"},
		{"sends no first empty frame", "rfc7/worker-ready"},
		{"replies twice", "rfc18/worker-twice"},
		{"takes any version", "rfc18/worker-invalid"},
		{"takes any version", "rfc18/client-invalid"},
		{"sends no first empty frame", "rfc7/client-request"},
		{"is a REQ", "rfc18/client-request"},
		{"asks while it waits", "rfc7/client-sync"},
		{"drops partials", "rfc18/client-partials"},
		{"takes a partial for the final", "rfc18/client-partials"},
	})
}

// A fault and the script that has to find it.
type fault struct{ name, found string }

// findFaults runs, for each fault, the script that has to fail, and those that
// must pass without one. They mostly wait, so all do it at the same time.
func findFaults(t *testing.T, driver func(fault string) Driver, faults []fault) {
	t.Helper()
	k := load(t)
	results := make([][]Result, len(faults))
	var wg sync.WaitGroup
	for i, f := range faults {
		wg.Go(func() {
			o := Options{Driver: driver(f.name), Parallel: 16, Patience: patience}
			if f.name != "" {
				o.Patience = 500 * time.Millisecond
			}
			results[i] = Run(t.Context(), k.Select(f.found), o)
			if f.name == "" {
				again(t, k, results[i], o)
			}
		})
	}
	wg.Wait()
	for i, f := range faults {
		t.Run(f.name+" "+f.found, func(t *testing.T) { judge(t, results[i], f.found) })
	}
}

// judge checks that one script fails, or, if none is named, that all pass.
func judge(t *testing.T, results []Result, found string) {
	t.Helper()
	ran := 0
	for _, r := range results {
		if r.Skipped == "" && (found == "" || r.Script.Name == found) {
			ran++
			if r.Failed() != (found != "") {
				t.Errorf("%s: line %d: %s\nwant %s\ngot  %s", r.Script.Name, r.Line, r.Step, r.Want, r.Got)
			}
		}
	}
	if ran == 0 {
		t.Error("no script was run")
	}
}
