package conformance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// dialect is what the kit itself has to know of one: how to keep a connection
// alive, and what may come at any time.
type dialect struct {
	ready []string // what READY begins with
	beat  []string // a worker's heartbeat and a broker's to it
	bye   []string // DISCONNECT, both ways
	skip  []string // messages that may come before any other
}

var wires = map[string]dialect{
	"mdp01": {[]string{"", "MDPW01", "\x01"}, []string{"", "MDPW01", "\x04"}, []string{"", "MDPW01", "\x05"}, []string{`"" | MDPW01 | 0x04`}},
	"mdp02": {[]string{"MDPW02", "\x01"}, []string{"MDPW02", "\x05"}, []string{"MDPW02", "\x06"}, []string{`MDPW02 | 0x05`}},
	// A heartbeat may be about a request. 8 is what a client of this library says to any broker.
	"omdp": {[]string{"W", "1"}, []string{"W", "4"}, []string{"W", "5"}, []string{"W | 4", "W | 4 | _ | _", "C | 4", "C | 4 | _", "C | 8 | _"}},
}

// A Result is what became of a script.
type Result struct {
	Script  *Script
	Skipped string // why it was not run
	Line    int    // where it failed; 0: it did not
	Step    string // that line
	Want    string
	Got     string
	Took    time.Duration
	Trace   []string // the messages, if they were asked for
}

// Passed tells whether the script ran to its end.
func (r *Result) Passed() bool { return r.Line == 0 && r.Skipped == "" }

// Failed tells whether the subject did something else than the script wants.
func (r *Result) Failed() bool { return r.Line != 0 }

// Options say how scripts are run.
type Options struct {
	Driver   Driver
	Parallel int           // scripts at a time, default 1
	Patience time.Duration // how long an answer may take, besides the driver's expiry; default 3 s
	Trace    bool          // keep the messages

	matched func(x *exchange, s *step, m []string) // the tests': is told of each message that a step expected, before it binds
}

// Run runs scripts and returns their results, in the same order. When ctx is
// over, so is Run with the steps in progress: what had not ended counts as skipped.
func Run(ctx context.Context, scripts []*Script, o Options) []Result {
	if o.Patience == 0 {
		o.Patience = 3 * time.Second
	}
	results := make([]Result, len(scripts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(o.Parallel, 1) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(scripts); i = int(next.Add(1)) - 1 {
				results[i] = o.run(ctx, scripts[i])
			}
		})
	}
	wg.Wait()
	return results
}

// services numbers the services, so that scripts that run at the same broker,
// also one after the other, have nothing to do with one another.
var services atomic.Int64

func (o *Options) run(ctx context.Context, s *Script) (r Result) {
	r.Script = s
	if r.Skipped = skips(ctx, o.Driver, s); r.Skipped != "" {
		return r
	}
	start := time.Now()
	x := &exchange{Options: o, script: s, peers: map[string]*peer{}, beatEvery: o.Driver.Beat()}
	x.vars = vars{}
	if name := o.Driver.Service(fmt.Sprintf("conformance-%d-%d", start.UnixMilli()%1e9, services.Add(1))); name != "" {
		x.vars["service"] = name
	}
	for _, d := range s.Dialects {
		for _, text := range wires[d].skip {
			frames, err := parseMessage(text)
			if err != nil {
				panic("conformance: BUG: " + err.Error())
			}
			x.skip = append(x.skip, frames)
		}
	}
	if f := x.play(ctx); f != nil {
		r.Line, r.Step, r.Want, r.Got = f.line, f.step, f.want, f.got
	}
	if err := context.Cause(ctx); err != nil { // what it was waiting for does not count
		r = Result{Script: s, Skipped: err.Error()}
	}
	r.Took, r.Trace = time.Since(start), x.trace
	return r
}

// skips tells why a script can't be run.
func skips(ctx context.Context, d Driver, s *Script) string {
	if err := context.Cause(ctx); err != nil {
		return err.Error()
	}
	for _, dialect := range s.Dialects {
		if why := d.Refuses(s.Role, dialect); why != "" {
			return why
		}
	}
	for _, need := range s.Needs {
		if !d.Offers(s.Role, need) {
			return fmt.Sprintf("it needs %q of what is under test", need)
		}
	}
	return ""
}

// failure is a step that did not go as it is written.
type failure struct {
	line            int
	step, want, got string
}

// exchange is a script that runs.
type exchange struct {
	*Options
	script    *Script
	skip      [][]frame // what may come at any time
	vars      vars
	beatEvery time.Duration
	subject   Subject
	hub       *hub

	mu    sync.Mutex // guards peers and trace
	peers map[string]*peer
	trace []string
}

// play is over early when ctx is.
func (x *exchange) play(ctx context.Context) (f *failure) {
	first := &x.script.steps[0]
	stop := make(chan struct{})
	var beating sync.WaitGroup
	defer func() {
		close(stop)
		beating.Wait()
		x.close()
	}()
	if err := x.open(); err != nil {
		return &failure{first.line, first.text, "what is under test starts", err.Error()}
	}
	beating.Go(func() { x.keepAlive(stop) })
	if x.script.Role != "broker" && !slices.ContainsFunc(x.script.steps, func(s step) bool { return s.verb == "start" }) {
		if err := x.start(); err != nil {
			return &failure{first.line, first.text, "what is under test starts", err.Error()}
		}
	}
	for i := range x.script.steps {
		s := &x.script.steps[i]
		if ctx.Err() != nil {
			return nil
		}
		if want, got := x.step(s); want != "" {
			return &failure{s.line, s.text, want, got}
		}
	}
	return nil
}

// open starts the broker under test, or binds the kit's own.
func (x *exchange) open() (err error) {
	if x.script.Role == "broker" {
		return x.start()
	}
	endpoint, runs := x.Driver.Listen()
	var greet func(m []string) (away []string)
	if runs {
		greet = x.greet
	}
	x.hub, err = bind(endpoint, x.received, greet)
	return err
}

func (x *exchange) start() (err error) {
	at := Start{Script: x.script, Service: x.vars["service"]}
	if x.hub != nil {
		at.Endpoint = x.hub.endpoint
	}
	x.subject, err = x.Driver.Start(at)
	return err
}

func (x *exchange) close() {
	for _, p := range x.peers {
		if p.shut != nil {
			p.shut()
		}
	}
	if x.subject != nil {
		x.subject.Close()
	}
	if x.hub != nil {
		x.hub.close()
	}
}

// greet sends a worker away that does not begin with READY: it was here
// before, and registers anew then.
func (x *exchange) greet(m []string) (away []string) {
	for _, d := range x.script.Dialects {
		if begins(m, wires[d].ready) {
			return nil
		}
		away = wires[d].bye
	}
	return away
}

// keepAlive sends the heartbeats that are due.
func (x *exchange) keepAlive(stop <-chan struct{}) {
	tick := time.NewTicker(x.beatEvery / 2)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for _, p := range x.everybody() {
			p.beat()
		}
	}
}

func (x *exchange) everybody() (all []*peer) {
	if x.hub != nil {
		return x.hub.all()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.peers {
		all = append(all, p)
	}
	return all
}

func begins(m, with []string) bool {
	return len(m) >= len(with) && slices.Equal(m[:len(with)], with)
}

// received sees to the heartbeats and passes a message on.
func (x *exchange) received(p *peer, m []string) {
	x.note(p, "<", m)
	x.follow(p, m, x.hub != nil)
	p.in.put(m)
}

// follow switches a peer's heartbeats on behind READY, which the worker said,
// and off with DISCONNECT.
func (x *exchange) follow(p *peer, m []string, worker bool) {
	for _, d := range x.script.Dialects {
		switch w := wires[d]; {
		case slices.Equal(m, w.bye):
			p.leave()
		case worker && begins(m, w.ready):
			p.greeted(w.beat)
		}
	}
}

func (x *exchange) note(p *peer, direction string, m []string) {
	if !x.Trace {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	name := p.name
	if name == "" {
		name = "(" + showFrame(p.id) + ")"
	}
	x.trace = append(x.trace, fmt.Sprintf("%s %s %s", name, direction, show(m)))
}
