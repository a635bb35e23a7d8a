package interop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/interop/dialect"
)

// takeover is how long the client of a worker that was killed may wait for its
// error, where the broker gives one.
const takeover = 2 * time.Second

// slots bound how many cells run at a time: each has three processes.
var slots = make(chan struct{}, 3)

// table is a matrix under way: what each cell came to.
type table struct {
	mu    sync.Mutex
	title string
	cells map[[2]string]string
	notes []string // numbered from 1
}

// set notes what a cell came to: the reasons of what differs there.
func (m *table) set(client, worker, state string, why []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range why {
		i := slices.Index(m.notes, w)
		if i < 0 {
			i, m.notes = len(m.notes), append(m.notes, w)
		}
		state += fmt.Sprintf(" %d", i+1)
	}
	m.cells[[2]string{client, worker}] = state
}

// print writes the rows of clients and columns of workers, and the reasons.
func (m *table) print(clients, workers []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &strings.Builder{}
	row := func(first string, cell func(worker string) string) {
		fmt.Fprintf(b, "  %-20s", first)
		for _, w := range workers {
			fmt.Fprintf(b, " %-12s", cell(w))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "\n%s\n", m.title)
	row("client \\ worker", func(w string) string { return w })
	for _, c := range clients {
		row(c, func(w string) string { return m.cells[[2]string{c, w}] })
	}
	for i, why := range m.notes {
		fmt.Fprintf(b, "  %d: %s\n", i+1, why)
	}
	fmt.Fprint(os.Stdout, b.String())
}

// at tells where a kind finds its broker, and how its Go peer is to speak.
type at struct {
	endpoint, dialect string
}

// command is that of a client or a worker: in Go for omdp, else in JavaScript.
func command(t *testing.T, k kind, role, service string, a at) []string {
	t.Helper()
	args := []string{"--endpoint", a.endpoint, "--service", service}
	if role == "client" {
		args = append(append(args, "--stdin"), k.client...)
	}
	if k.name != "omdp" {
		return append([]string{"node", filepath.Join("js", k.name+"-"+role+".js")}, args...)
	}
	bin, err := goPeer()
	if err != nil {
		t.Fatal(err)
	}
	if a.dialect != "" {
		args = append(args, "--dialect", a.dialect)
	}
	return append([]string{bin, role}, args...)
}

// cell runs every check with a client and two workers, of which one is killed.
// It returns why it differs from what was asked for, where it may.
func cell(t *testing.T, client, worker kind, ca, wa at, except []exception) (reasons []string) {
	service := "echo-" + client.name + "-" + worker.name
	var workers []*proc
	for i := range 2 {
		workers = append(workers, start(t, fmt.Sprint("worker ", i+1), command(t, worker, "worker", service, wa)))
	}
	for _, w := range workers {
		w.want("ready")
	}
	c := start(t, "client", command(t, client, "client", service, ca))
	for _, check := range checks {
		want, why := expected(client.name, worker.name, check, except)
		c.tell(check.ask)
		since := time.Now()
		if check.name == held {
			since = killHolder(t, workers)
		}
		got := c.answers()
		if diff := difference(got, want); diff != "" {
			t.Errorf("%s: %s", check.name, diff)
		} else if why != "" && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
		if took := time.Since(since); check.name == held && why == "" && took > takeover {
			t.Errorf("%s: the error came after %v, want %v at most", held, took, takeover)
		}
	}
	// What a peer does not understand it says on standard error.
	for _, p := range append(workers, c) {
		if notes := p.notes(); client.name+worker.name != "" && notes != "" && !strings.HasPrefix(p.cmd.Path, os.TempDir()) {
			t.Errorf("%s noted\n%s", p.name, notes)
		}
	}
	return reasons
}

// killHolder kills the worker that says that it holds a request.
func killHolder(t *testing.T, workers []*proc) time.Time {
	t.Helper()
	var holder *proc
	var line string
	select {
	case line = <-workers[0].lines:
		holder = workers[0]
	case line = <-workers[1].lines:
		holder = workers[1]
	case <-time.After(limit):
		t.Fatalf("no worker took the request in %v", limit)
	}
	if line != "holding" {
		t.Fatalf("%s said %q, want holding", holder.name, line)
	}
	holder.kill()
	return time.Now()
}

// Every client with every worker through our broker, which has a listener for
// each dialect.
func TestMatrix(t *testing.T) {
	needPeers(t)
	endpoints := startBroker(t)
	m := &table{title: "Through omdp's broker", cells: map[[2]string]string{}}
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.name)
	}
	t.Run("cells", func(t *testing.T) {
		for _, c := range kinds {
			for _, w := range kinds {
				run(t, m, c, w, at{endpoint: endpoints[c.dialect]}, at{endpoint: endpoints[w.dialect]}, exceptions)
			}
		}
	})
	m.print(names, names)
}

// run runs one cell of a matrix beside others.
func run(t *testing.T, m *table, c, w kind, ca, wa at, except []exception) {
	t.Run(c.name+"→"+w.name, func(t *testing.T) {
		t.Parallel()
		if ca.endpoint == "" || wa.endpoint == "" {
			m.set(c.name, w.name, "-", nil)
			t.Skip("the broker has no such dialect")
		}
		slots <- struct{}{}
		var reasons []string
		defer func() {
			<-slots
			state := "ok"
			if t.Failed() {
				state = "FAIL"
			}
			m.set(c.name, w.name, state, reasons)
		}()
		reasons = cell(t, c, w, ca, wa, except)
	})
}

// startBroker returns the broker's endpoint for each dialect.
func startBroker(t *testing.T) map[string]string {
	t.Helper()
	const free = "tcp://127.0.0.1:*"
	config := &omdp.BrokerConfig{Heartbeat: 500 * time.Millisecond}
	listeners := []string{"OMDP"}
	for _, k := range kinds {
		if !slices.Contains(listeners, k.dialect) && dialect.Have() {
			listeners = append(listeners, k.dialect)
			if err := dialect.Listen(config, k.dialect, free); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := omdp.NewBroker(free, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	endpoints := map[string]string{}
	for i, e := range b.Endpoints() {
		endpoints[listeners[i]] = e
	}
	return endpoints
}
