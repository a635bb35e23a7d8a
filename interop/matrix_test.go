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
)

// takeover is how long the client of a worker that was killed may wait for its
// error from our broker.
const takeover = 2 * time.Second

// slots bound how many cells run at a time: each has three processes.
var slots = make(chan struct{}, 3)

// table is a matrix under way: what each cell came to, and why it differs.
type table struct {
	title, corner string

	mu    sync.Mutex
	cells map[[2]string]result // by row and column
}

type result struct {
	state string
	why   []string
}

func (m *table) set(row, column string, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cells[[2]string{row, column}] = r
}

// print writes the rows and columns, and the reasons by their numbers. README.md
// has the same.
func (m *table) print(t *testing.T, rows, columns []string) {
	t.Helper()
	text := m.text(rows, columns)
	fmt.Println("\n" + text)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !t.Failed() && !strings.Contains(string(readme), text) {
		t.Error("README.md has another matrix: put this one there")
	}
}

func (m *table) text(rows, columns []string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var reasons []string
	b := &strings.Builder{}
	row := func(cells []string) {
		var text strings.Builder
		for i, c := range cells {
			fmt.Fprintf(&text, " %-*s", []int{15, 13}[min(i, 1)], c)
		}
		b.WriteString("\n " + strings.TrimRight(text.String(), " "))
	}
	b.WriteString(m.title)
	row(append([]string{m.corner}, columns...))
	for _, r := range rows {
		cells := []string{r}
		for _, c := range columns {
			cell := m.cells[[2]string{r, c}]
			var text strings.Builder
			text.WriteString(cell.state)
			for _, w := range cell.why {
				if !slices.Contains(reasons, w) {
					reasons = append(reasons, w)
				}
				fmt.Fprintf(&text, " %d", slices.Index(reasons, w)+1)
			}
			cells = append(cells, text.String())
		}
		row(cells)
	}
	for i, why := range reasons {
		fmt.Fprintf(b, "\n  %d: %s", i+1, why)
	}
	return b.String()
}

// scene is one cell: a client, two workers, and what may differ there.
type scene struct {
	client, worker             string // their kinds
	clientCommand, workCommand []string
	slots                      chan struct{}
	said                       said // by the client
	except                     []exception
	heldTimeout                int           // ms of the request whose worker is killed
	takeover                   time.Duration // how long its client may wait for the error; 0 is no bound
}

// node is the command of a foreign peer.
func node(kind, role, endpoint string, more ...string) []string {
	return append([]string{"node", filepath.Join("js", kind+"-"+role+".js"), "--endpoint", endpoint}, more...)
}

// play runs every check with a client and two workers, of which one is killed.
// It returns why it differs from what was asked for, where it may.
func (s scene) play(t *testing.T) (reasons []string) {
	service := "echo-" + s.client + "-" + s.worker
	var peers []*proc
	for i := range 2 {
		peers = append(peers, start(t, fmt.Sprintf("worker %d, %s", i+1, s.worker), append(slices.Clone(s.workCommand), "--service", service)))
	}
	workers := peers[:2]
	for _, w := range workers {
		w.want("ready")
	}
	c := start(t, "client, "+s.client, append(slices.Clone(s.clientCommand), "--service", service, "--stdin"))
	for _, check := range checks {
		want, why := expected(s, check)
		since := time.Now()
		if check.name != held {
			c.tell(check.ask)
		} else {
			check.ask.Timeout = s.heldTimeout
			c.tell(check.ask)
			since = killHolder(t, workers)
		}
		got := c.answers()
		if diff := difference(got, want); diff != "" {
			t.Errorf("%s: %s", check.name, diff)
		} else if why != "" && !slices.Contains(reasons, why) {
			reasons = append(reasons, why)
		}
		if took := time.Since(since); check.name == held && s.takeover > 0 && took > s.takeover {
			t.Errorf("%s: the error came after %v, want %v at most", held, took, s.takeover)
		}
	}
	// What a foreign peer does not understand it says on standard error.
	for _, p := range append(peers, c) {
		if notes := p.notes(); notes != "" && p.cmd.Args[0] == "node" {
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
	peer, endpoints := buildPeer(t), startBroker(t)
	m := &table{title: "Through omdp's broker", corner: `client \ worker`, cells: map[[2]string]result{}}
	command := func(k kind, role string, more ...string) []string {
		if k.name == "omdp" {
			return []string{peer, role, "--endpoint", endpoints[k.dialect]}
		}
		return node(k.name, role, endpoints[k.dialect], more...)
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	t.Run("cells", func(t *testing.T) {
		for _, c := range kinds {
			for _, w := range kinds {
				m.run(t, c.name, w.name, scene{
					client: c.name, clientCommand: command(c, "client", c.client...),
					worker: w.name, workCommand: command(w, "worker"),
					said: errorsOf[c.name], except: exceptions, heldTimeout: 60000, takeover: takeover, slots: slots,
				})
			}
		}
	})
	m.print(t, names, names)
}

// run plays the scene of one cell beside others.
func (m *table) run(t *testing.T, row, column string, s scene) {
	t.Run(row+"/"+column, func(t *testing.T) {
		t.Parallel()
		s.slots <- struct{}{}
		var reasons []string
		defer func() {
			<-s.slots
			state := "ok"
			if t.Failed() {
				state = "FAIL"
			}
			m.set(row, column, result{state, reasons})
		}()
		reasons = s.play(t)
	})
}

// startBroker returns the endpoint of a broker for each dialect.
func startBroker(t *testing.T) map[omdp.Dialect]string {
	t.Helper()
	const free = "tcp://127.0.0.1:*"
	config := &omdp.BrokerConfig{Heartbeat: 500 * time.Millisecond, Dialect: omdp.OMDP}
	for d := omdp.OMDPFinal; d <= omdp.MDP01; d++ {
		config.Listeners = append(config.Listeners, omdp.Listener{Endpoint: free, Dialect: d})
	}
	b, err := omdp.NewBroker(free, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	endpoints := map[omdp.Dialect]string{}
	for i, e := range b.Endpoints() {
		endpoints[omdp.OMDP+omdp.Dialect(i)] = e
	}
	return endpoints
}

// A listener that is not told a dialect: the Majordomo peers name theirs, a
// PIGATO worker shows it, others are omdp's.
func TestAuto(t *testing.T) {
	needPeers(t)
	peer := buildPeer(t)
	b, err := omdp.NewBroker("tcp://127.0.0.1:*", &omdp.BrokerConfig{Heartbeat: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	m := &table{cells: map[[2]string]result{}}
	command := func(kind, role string) []string {
		if kind == "omdp" {
			return []string{peer, role, "--endpoint", b.Endpoint()}
		}
		return node(kind, role, b.Endpoint())
	}
	for _, p := range [][2]string{{"omdp", "mdp02"}, {"omdp-spec", "mdp01"}, {"mdp01", "omdp"}, {"mdp02", "pigato"}} {
		m.run(t, p[0], p[1], scene{
			client: p[0], clientCommand: command(p[0], "client"), worker: p[1], workCommand: command(p[1], "worker"),
			said: errorsOf[p[0]], except: exceptions, heldTimeout: 60000, takeover: takeover, slots: slots,
		})
	}
}
