package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tiny is a broker of MDP/0.1, MDP/0.2 and MMI as short as can be, with faults
// to choose from: without one every script passes, and with each of them the
// scripts fail that ask for what it spoils.
type tiny struct {
	noCalls
	hub   *hub
	fault string
	stop  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	workers []*tinyWorker // registered, the one that was free longest first
	queue   []*tinyRequest
	tokens  int
}

type tinyWorker struct {
	p       *peer
	version string
	service string
	seen    time.Time
	told    time.Time // when it was sent something
	has     *tinyRequest
	token   string
}

type tinyRequest struct {
	p       *peer
	version string
	service string
	body    []string
	at      time.Time
}

// silentAlone is to be told from who sends DISCONNECT for what was said.
const silentAlone = "sends DISCONNECT to the silent alone"

// tinyBeat is the interval. Who passes has to be on time also on a busy
// machine; to be found wrong needs no such care.
func tinyBeat(fault string) time.Duration {
	if fault == "" {
		return 200 * time.Millisecond
	}
	return 60 * time.Millisecond
}

// tinyDriver starts one for each script.
type tinyDriver struct{ fault string }

func (d tinyDriver) Beat() time.Duration       { return tinyBeat(d.fault) }
func (d tinyDriver) Expiry() time.Duration     { return 8 * d.Beat() }
func (tinyDriver) Service(fresh string) string { return fresh }
func (tinyDriver) Listen() (string, bool)      { return anyPort, false }
func (tinyDriver) Offers(string, string) bool  { return true }
func (tinyDriver) Refuses(role, dialect string) string {
	if role != "broker" || dialect == "omdp" {
		return "it is a broker of MDP"
	}
	return ""
}

func (d tinyDriver) Start(Start) (Subject, error) {
	b := &tiny{fault: d.fault, stop: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	if b.hub, err = bind(anyPort, b.received, nil); err == nil {
		b.done.Go(b.beat)
	}
	return b, err
}

func (b *tiny) Endpoint() string { return b.hub.endpoint }

func (b *tiny) Stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.workers {
		b.command(w.p, w.version, "bye")
	}
	b.workers = nil
	return nil
}

func (b *tiny) Close() {
	close(b.stop)
	b.done.Wait()
	b.hub.close()
}

// The commands of a worker; MDP/0.1 has no PARTIAL.
var tinyCommands = map[string][]string{
	"02": {"", "ready", "request", "partial", "final", "beat", "bye"},
	"01": {"", "ready", "request", "final", "beat", "bye"},
}

// command sends one to a worker.
func (b *tiny) command(p *peer, version, command string, more ...string) {
	m := []string{"MDPW" + version, string(rune(slices.Index(tinyCommands[version], command)))}
	if version == "01" {
		m = append([]string{""}, m...)
	}
	p.send(append(m, more...))
}

// answer sends a PARTIAL or a FINAL to a client.
func (b *tiny) answer(r *tinyRequest, final bool, body []string) {
	switch {
	case b.fault == "joins the body":
		body = []string{strings.Join(body, "")}
	case b.fault == "drops partials" && !final:
		return
	case b.fault == "drops empty frames":
		body = slices.DeleteFunc(slices.Clone(body), func(f string) bool { return f == "" })
	}
	m := []string{"MDPC02", "\x02", r.service}
	switch {
	case r.version == "01" && !final:
		return
	case r.version == "01":
		m = []string{"", "MDPC01", r.service}
	case final && b.fault != "finals are partials":
		m[1] = "\x03"
	}
	r.p.send(append(m, body...))
	if b.fault == "says all twice" {
		r.p.send(append(m, body...))
	}
}

func (b *tiny) received(p *peer, m []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(m) > 0 && m[0] == "" {
		m = m[1:]
	}
	if len(m) == 0 {
		return
	}
	switch header, rest := m[0], m[1:]; header {
	case "MDPC02":
		if len(rest) >= 3 && rest[0] == "\x01" || b.fault == "takes any client command" && len(rest) >= 3 {
			b.asked(&tinyRequest{p, "02", rest[1], rest[2:], time.Now()})
		}
	case "MDPC01":
		if len(rest) >= 2 {
			b.asked(&tinyRequest{p, "01", rest[0], rest[1:], time.Now()})
		}
	case "MDPW02", "MDPW01":
		b.worked(p, header[4:], rest)
	default:
		if b.fault == "takes any version" {
			b.worked(p, "02", rest)
		}
	}
	b.assign()
}

func (b *tiny) asked(r *tinyRequest) {
	if what, ok := strings.CutPrefix(r.service, "mmi."); ok && b.fault != "has no MMI" {
		code := "501"
		if b.fault == "404 for what is not implemented" {
			code = "404"
		}
		if what == "service" {
			code = "404"
			if slices.ContainsFunc(b.workers, func(w *tinyWorker) bool {
				return w.service == r.body[0] && (w.has == nil || b.fault != "404 for a busy worker") || b.fault == "200 for the beginning of a name" && strings.HasPrefix(w.service, r.body[0])
			}) {
				code = "200"
			}
		}
		b.answer(r, true, []string{code})
		return
	}
	if b.fault == "queues nothing" && !slices.ContainsFunc(b.workers, func(w *tinyWorker) bool { return w.service == r.service }) {
		return
	}
	if b.fault == "serves the last one first" {
		b.queue = slices.Insert(b.queue, 0, r)
		return
	}
	b.queue = append(b.queue, r)
}

func (b *tiny) worked(p *peer, version string, m []string) {
	if len(m) == 0 || len(m[0]) != 1 || int(m[0][0]) >= len(tinyCommands[version]) || m[0][0] == 0 {
		return
	}
	command := tinyCommands[version][m[0][0]]
	i := slices.IndexFunc(b.workers, func(w *tinyWorker) bool { return w.p == p })
	if command == "bye" {
		if i >= 0 && b.fault != "hears no DISCONNECT" {
			b.remove(i)
		}
		return
	}
	if command == "ready" && len(m) != 2 {
		return
	}
	answers := command == "partial" || command == "final"
	if answers && (len(m) < 4 || m[2] != "" && b.fault != "takes any frame for the empty one") {
		return
	}
	if i >= 0 && (command != "partial" || b.fault != "partials are no heartbeats") {
		b.workers[i].seen = time.Now()
	}
	switch {
	case i < 0 && command == "ready" && strings.HasPrefix(m[1], "mmi.") && b.fault != "registers mmi" && b.fault != silentAlone:
		b.command(p, version, "bye")
	case i < 0 && command == "ready":
		b.workers = append(b.workers, &tinyWorker{p: p, version: version, service: m[1], seen: time.Now()})
		if b.fault == "answers READY" {
			b.command(p, version, "ready", m[1])
		}
	case i >= 0 && command == "beat":
	case i >= 0 && answers && b.workers[i].has != nil && (b.workers[i].token == m[1] || b.fault == "believes any address"):
		b.replied(i, command == "final", m[3:])
	case i >= 0 && answers && b.fault == "passes on what is late" && b.workers[i].token == m[1]:
		b.answer(&tinyRequest{p: b.client(nil), version: version, service: b.workers[i].service}, command == "final", m[3:])
	case answers && b.fault == "lets others answer":
		for j, w := range b.workers {
			if w.has != nil && w.token == m[1] {
				b.replied(j, command == "final", m[3:])
			}
		}
	case b.fault != "bears the unexpected" && b.fault != silentAlone:
		b.command(p, version, "bye")
		if b.fault == "goes on after DISCONNECT" {
			break
		}
		if i >= 0 {
			b.remove(i)
		}
	}
}

// client is one that is connected and is not this one.
func (b *tiny) client(but *peer) *peer {
	for _, p := range b.hub.all() {
		if p != but && !slices.ContainsFunc(b.workers, func(w *tinyWorker) bool { return w.p == p }) {
			return p
		}
	}
	return nil
}

func (b *tiny) replied(i int, final bool, body []string) {
	w := b.workers[i]
	to := w.has
	if b.fault == "answers the wrong client" {
		if p := b.client(to.p); p != nil {
			to = &tinyRequest{p: p, version: to.version, service: to.service}
		}
	}
	b.answer(to, final, body)
	if final {
		w.has = nil
		b.workers = append(slices.Delete(b.workers, i, i+1), w)
	}
}

// remove takes a worker out; what it had comes first again.
func (b *tiny) remove(i int) {
	if r := b.workers[i].has; r != nil {
		b.queue = slices.Insert(b.queue, 0, r)
	}
	b.workers = slices.Delete(b.workers, i, i+1)
}

func (b *tiny) assign() {
	for i := 0; i < len(b.queue); i++ {
		r := b.queue[i]
		for _, w := range b.workers {
			fits := w.service == r.service || b.fault == "serves the beginning of a name" && strings.HasPrefix(w.service, r.service)
			if !fits || w.has != nil && b.fault != "gives a worker two" {
				continue
			}
			b.queue = slices.Delete(b.queue, i, i+1)
			i--
			b.tokens++
			w.has, w.token = r, fmt.Sprint("token-", b.tokens)
			m := append([]string{w.token, ""}, r.body...)
			if b.fault == "sends no empty frame" {
				m = slices.Delete(m, 1, 2)
			}
			b.command(w.p, w.version, "request", m...)
			w.told = time.Now()
			break
		}
	}
}

// beat sends heartbeats, and misses workers and requests.
func (b *tiny) beat() {
	every := tinyBeat(b.fault)
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
		b.mu.Lock()
		for i := len(b.workers) - 1; i >= 0; i-- {
			w := b.workers[i]
			if time.Since(w.seen) > 5*every && b.fault != "misses nobody" || b.fault == "misses everybody" && time.Since(w.seen) > 0 && n%10 == 9 {
				b.remove(i)
				if b.fault == silentAlone {
					b.command(w.p, w.version, "bye")
				}
			} else if (time.Since(w.told) > every*3/4 || b.fault == "beats by the clock" && n%2 == 0) && b.fault != "sends no heartbeats" {
				b.command(w.p, w.version, "beat")
				w.told = time.Now()
			}
		}
		if b.fault != "keeps requests for ever" {
			b.queue = slices.DeleteFunc(b.queue, func(r *tinyRequest) bool { return time.Since(r.at) > 6*every })
		}
		b.assign()
		b.mu.Unlock()
	}
}

// Every fault is found, and by the scripts that it concerns.
func TestWrongBroker(t *testing.T) {
	t.Parallel()
	findFaults(t, func(fault string) Driver { return tinyDriver{fault} }, []fault{
		{"", ""},
		{"joins the body", "rfc18/broker-body"},
		{"drops partials", "rfc18/broker-partial"},
		{"drops empty frames", "rfc7/broker-body"},
		{"finals are partials", "rfc18/broker-request"},
		{"says all twice", "rfc18/broker-reply-to-another"},
		{"takes any client command", "rfc18/broker-invalid-client-partial"},
		{"takes any version", "rfc18/broker-invalid-unknown-version"},
		{"takes any frame for the empty one", "rfc7/broker-reply-without-empty-frame"},
		{"has no MMI", "rfc8/broker-unimplemented-mdp01"},
		{"404 for what is not implemented", "rfc8/broker-unimplemented-mdp02"},
		{"404 for a busy worker", "rfc8/broker-service-busy-mdp01"},
		{"200 for the beginning of a name", "rfc8/broker-service-name-mdp02"},
		{"registers mmi", "rfc8/broker-register-mdp02"},
		{"queues nothing", "rfc7/broker-queue"},
		{"keeps requests for ever", "rfc18/broker-expire"},
		{"serves the last one first", "rfc18/broker-fair"},
		{"serves the beginning of a name", "rfc7/broker-name"},
		{"gives a worker two", "rfc18/broker-one-request"},
		{"answers READY", "rfc18/broker-ready-unanswered"},
		{"hears no DISCONNECT", "rfc7/broker-disconnect"},
		{"bears the unexpected", "rfc18/broker-final-before-ready"},
		{silentAlone, "rfc18/broker-second-ready"},
		{silentAlone, "rfc7/broker-second-reply"},
		{silentAlone, "rfc18/broker-reply-without-request"},
		{silentAlone, "rfc7/broker-request-from-worker"},
		{silentAlone, "rfc18/broker-ready-for-another"},
		{silentAlone, "rfc7/broker-reply-to-wrong-address"},
		{silentAlone, "rfc8/broker-register-mdp01"},
		{silentAlone, "rfc8/broker-register-unused-mdp02"},
		{"goes on after DISCONNECT", "rfc7/broker-second-ready"},
		{"passes on what is late", "rfc18/broker-nothing-after-final"},
		{"believes any address", "rfc18/broker-reply-to-wrong-address"},
		{"lets others answer", "rfc7/broker-reply-to-another"},
		{"answers the wrong client", "rfc18/broker-two-clients"},
		{"sends no empty frame", "rfc18/broker-address"},
		{"sends no heartbeats", "rfc7/broker-heartbeats"},
		{"beats by the clock", "rfc7/broker-no-idle-heartbeats"},
		{"misses nobody", "rfc18/broker-silent-worker"},
		{"misses everybody", "rfc18/broker-living-worker"},
		{"partials are no heartbeats", "rfc18/broker-partials-are-heartbeats"},
	})
}
