package conformance

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// roleVariable makes the test's binary a worker under test, with the endpoint
// and the service as its arguments.
const roleVariable = "CONFORMANCE_TEST_ROLE"

// runRole is the other process; it ends as it is told to, or after a while if
// nobody is there to tell it.
func runRole() int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	w, err := omdp.NewWorker(os.Args[1], os.Args[2], &omdp.WorkerConfig{Heartbeat: ourBeat, ReconnectMin: 10 * time.Millisecond})
	if err == nil {
		err = w.OnRequest(serve)
	}
	if err == nil {
		err = w.Run(ctx)
	}
	if err != nil {
		return 1
	}
	return 0
}

// All scripts run at one broker that is reached by its endpoint alone: one that
// takes peers as they come, and those that speak one dialect each.
func TestForeignBroker(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for _, k := range []struct {
		dialect omdp.Dialect
		speaks  []string
		least   int
	}{{omdp.Auto, nil, 110}, {omdp.OMDP, []string{"omdp"}, 20}, {omdp.MDP02, []string{"mdp02"}, 40}, {omdp.MDP01, []string{"mdp01"}, 40}} {
		wg.Go(func() {
			b, err := omdp.NewBroker(anyPort, &omdp.BrokerConfig{Heartbeat: ourBeat, Dialect: k.dialect})
			if err == nil {
				err = b.Start()
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			d := &Foreign{Endpoint: b.Endpoint(), Heartbeat: ourBeat, Lost: ours{}.Expiry(), Dialects: k.speaks}
			if ran := atBroker(t, d); ran < k.least {
				t.Errorf("%v: only %d scripts were run", k.dialect, ran)
			}
		})
	}
	wg.Wait()
}

// atBroker runs all scripts that can be run and returns how many passed.
func atBroker(t *testing.T, d *Foreign) (ran int) {
	k, o := load(t), Options{Driver: d, Parallel: 64, Patience: patience, Trace: true}
	results := Run(t.Context(), k.Scripts, o)
	again(t, k, results, o)
	for _, r := range results {
		if r.Failed() != deviates(r.Script) && r.Skipped == "" {
			t.Errorf("%v: %s: line %d: %s\nwant %s\ngot  %s\n%s", d.Dialects, r.Script.Name, r.Line, r.Step, r.Want, r.Got, strings.Join(r.Trace, "\n"))
		}
		if r.Passed() {
			ran++
		}
		if r.Passed() && r.Script.Role != "broker" || d.Dialects == nil && r.Skipped != "" && r.Script.Role == "broker" && r.Script.Needs == nil {
			t.Errorf("%s: %s is under test, and it says %q", r.Script.Name, r.Script.Role, r.Skipped)
		}
	}
	return ran
}

// A worker that a command starts, for each script a process of its own.
func TestForeignWorker(t *testing.T) {
	t.Parallel()
	d := &Foreign{Command: []string{"env", roleVariable + "=worker", os.Args[0], "{endpoint}", "{service}"}, Heartbeat: ourBeat, Dialects: []string{"omdp"}, Has: []string{"hold"}}
	var scripts []*Script
	for _, s := range load(t).Scripts {
		if slices.Contains([]string{"omdp/worker-request", "omdp/worker-partials", "omdp/worker-request-heartbeats", "omdp/worker-twice", "rfc18/worker-request", "omdp/client-request"}, s.Name) {
			scripts = append(scripts, s)
		}
	}
	for _, r := range Run(t.Context(), scripts, Options{Driver: d, Parallel: 8, Patience: patience}) {
		want := ""
		switch r.Script.Name {
		case "omdp/worker-twice":
			want = `it needs "twice" of what is under test`
		case "rfc18/worker-request":
			want = "the dialect is not asked for"
		case "omdp/client-request":
			want = `it needs "results" of what is under test`
			d := &Foreign{At: anyPort}
			if got := d.Refuses("client", "omdp"); got != "no client is under test" {
				t.Errorf("a client without a command: got %q", got)
			}
			continue
		}
		if r.Skipped != want || r.Failed() {
			t.Errorf("%s: line %d: %s\nwant %s\ngot  %s; skipped %q, want %q", r.Script.Name, r.Line, r.Step, r.Want, r.Got, r.Skipped, want)
		}
	}
}

// A worker that runs already keeps its service, and registers anew with each script.
func TestForeignWorkerByHand(t *testing.T) {
	t.Parallel()
	h, err := bind(anyPort, func(*peer, []string) {}, nil) // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	h.close()
	w, err := startWorker(Start{Endpoint: h.endpoint, Service: "by-hand", Script: &Script{Dialects: []string{"omdp"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	k := load(t)
	scripts := slices.Concat(k.Select("omdp/worker-request"), k.Select("omdp/worker-partials"), k.Select("omdp/worker-request"))
	ran := 0
	for _, r := range Run(t.Context(), scripts, Options{Driver: &Foreign{At: h.endpoint, Heartbeat: ourBeat}, Patience: patience}) {
		if r.Failed() {
			t.Errorf("%s: line %d: %s\nwant %s\ngot  %s", r.Script.Name, r.Line, r.Step, r.Want, r.Got)
		}
		if r.Passed() {
			ran++
		}
	}
	if ran < 3 {
		t.Errorf("only %d scripts were run", ran)
	}
}

// What can't be reached fails every script, within the patience.
func TestForeignNobody(t *testing.T) {
	t.Parallel()
	k := load(t)
	d := &Foreign{Endpoint: "ipc://" + t.TempDir() + "/nobody", Heartbeat: time.Millisecond}
	scripts := k.Select("rfc18/broker-request")
	results := Run(t.Context(), scripts, Options{Driver: d, Parallel: 4, Patience: time.Millisecond})
	var b strings.Builder
	if binding, other := k.Print(&b, results, false); binding != len(scripts) || other != 0 {
		t.Errorf("got %d and %d failures, want %d and 0", binding, other, len(scripts))
	}
	if out := b.String(); !strings.Contains(out, "got  nothing\n") || !strings.Contains(out, "FAIL  rfc18/broker-request ") || !strings.HasSuffix(out, " not run\n") {
		t.Errorf("got %s", out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range Run(ctx, scripts, Options{Driver: d}) {
		if r.Skipped != context.Canceled.Error() {
			t.Errorf("got %q after the end of ctx", r.Skipped)
		}
	}
}
