package omdp_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// A broker in a process of its own, whose memory is its alone, and the bound that
// docs/limits.md states for it.

// limitsEnv gives its Limits, as JSON, to a child "limited ENDPOINT".
const limitsEnv = "OMDP_TEST_LIMITS"

// limited runs a broker until standard input ends. Each line of it is answered
// with what the broker holds.
func limited(endpoint string) {
	config := &omdp.BrokerConfig{}
	err := json.Unmarshal([]byte(os.Getenv(limitsEnv)), &config.Limits)
	var b *omdp.Broker
	if err == nil {
		b, err = omdp.NewBroker(endpoint, config)
	}
	if err == nil {
		err = b.Start()
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready", b.Endpoint())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line, _ := json.Marshal(holdings(b.Stats()))
		fmt.Printf("%s\n", line)
	}
}

// holding is what a broker's process holds, in bytes where nothing else is said.
type holding struct {
	RSS, Peak     int64 // of the process, and the most that it ever was
	Live          int64 // objects that the last collection found, and what came since
	Heap, Runtime int64 // taken from the system by Go's heap, and by all of Go
	Queued        int   // requests
	QueuedBytes   int64
	OutboxBytes   int64
	Clients       int
	SlowClients   uint64
	Overloaded    uint64
	Refused       uint64
	Dropped       uint64
	Completed     uint64
}

func holdings(s omdp.BrokerStats) (h holding) {
	h = holding{
		Queued: s.Queued, QueuedBytes: s.QueuedBytes, OutboxBytes: s.OutboxBytes, Clients: s.Clients,
		SlowClients: s.SlowClients, Overloaded: s.Overloaded, Refused: s.Refused, Dropped: s.Dropped, Completed: s.Completed,
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		var kb int64
		name, value, _ := strings.Cut(line, ":")
		fmt.Sscan(value, &kb)
		switch name {
		case "VmRSS":
			h.RSS = kb << 10
		case "VmHWM":
			h.Peak = kb << 10
		}
	}
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(m)
	v := func(i int) int64 { return int64(m[i].Value.Uint64()) }
	h.Live, h.Heap, h.Runtime = v(0), v(0)+v(3)+v(4), v(2)-v(1)
	return h
}

// limitedBroker is such a child.
type limitedBroker struct {
	cmd      *exec.Cmd
	endpoint string
	in       io.Writer
	out      *bufio.Reader
}

func startLimited(t testing.TB, endpoint string, limits omdp.Limits) *limitedBroker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(limits)
	if err != nil {
		t.Fatal(err)
	}
	b := &limitedBroker{cmd: exec.Command(self)}
	b.cmd.Env = append(os.Environ(), childEnv+"=limited "+endpoint, limitsEnv+"="+string(config))
	b.cmd.Stderr = os.Stderr
	in, err := b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.in, b.out = in, bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		b.cmd.Process.Kill()
		b.cmd.Wait()
	})
	line, err := b.out.ReadString('\n')
	bound, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		t.Fatalf("the broker said %q, %v", line, err)
	}
	b.endpoint = bound
	return b
}

// holds asks it what it holds.
func (b *limitedBroker) holds(t testing.TB) (h holding) {
	t.Helper()
	fmt.Fprintln(b.in)
	line, err := b.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &h)
	}
	if err != nil {
		t.Fatalf("the broker said %q, %v", line, err)
	}
	return h
}

// crowd is a broker with clients that never read: most are owed more replies
// than there is room for, and the others fill the queues.
type crowd struct {
	limits  omdp.Limits
	clients int
	queued  int // requests
	data    int // bytes of each
	reply   int // bytes of each partial
}

// bound is what docs/limits.md says that the broker's process takes at the
// most, in bytes.
func (c *crowd) bound() int64 {
	const (
		base     = 32 << 20 // the program, libzmq's threads, Go's runtime
		request  = 1 << 10  // besides its data
		client   = 48 << 10 // besides messages: libzmq's session, buffers and pipes, ours
		message  = 512      // in libzmq, besides its payload: four frames
		pipe     = 256      // messages in libzmq (SNDHWM)
		rounding = 5        // quarters: of what grows by appending
	)
	heap := c.limits.TotalBytes + int64(c.limits.TotalQueue)*request + 2*c.limits.TotalOutbox*rounding/4
	return base + 2*heap + int64(c.clients)*(client+pipe*int64(c.reply+message)) // 2: GOGC=100
}

// The figures of docs/limits.md. By default a tenth of it all is tested; make
// memory does the whole.
func TestMemory(t *testing.T) {
	if slices.Contains(buildSettings(), "-race=true") {
		t.Skip("the race detector takes memory of its own")
	}
	scale := 10
	if os.Getenv("OMDP_TEST_MEMORY") == "full" {
		scale = 1
	}
	for _, reply := range []int{1 << 10, 4 << 10} {
		t.Run(fmt.Sprintf("%d bytes a reply", reply), func(t *testing.T) {
			c := crowd{
				limits:  omdp.Limits{TotalQueue: 100_000 / scale, TotalBytes: 256 << 20 / int64(scale), TotalOutbox: 256 << 20 / int64(scale)},
				clients: 1000 / scale, queued: 100_000 / scale, data: 2600, reply: reply,
			}
			c.measure(t)
		})
	}
}

func buildSettings() (all []string) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			all = append(all, s.Key+"="+s.Value)
		}
	}
	return all
}

const mib = 1 << 20

func (h holding) String() string {
	return fmt.Sprintf("RSS %d MiB, at most %d; Go %d, of it heap %d, live or garbage %d; %d queued, %d MiB; outbox %d MiB, %d slow of %d clients, %d answers dropped",
		h.RSS/mib, h.Peak/mib, h.Runtime/mib, h.Heap/mib, h.Live/mib, h.Queued, h.QueuedBytes/mib, h.OutboxBytes/mib, h.SlowClients, h.Clients, h.Dropped)
}

func (c *crowd) measure(t *testing.T) {
	// Over ipc: a tcp connection that takes nothing for 30 s is cut, which would
	// let nobody hold so much for so long.
	b := startLimited(t, newEndpoint(t, "ipc"), c.limits)
	empty := b.holds(t)
	t.Logf("empty: %v", empty)
	w := dialLocal(t, b.endpoint, "worker")
	w.send("W", "1", "flood", `{"v":1,"id":"life","hb":600000,"concurrency":1000}`)
	if m, err := w.next(); err != nil || m[1] != "8" {
		t.Fatalf("got %q, %v; want W|8", m, err)
	}
	all := make([]*wire, c.clients)
	for i := range all {
		all[i] = dialLocal(t, b.endpoint, fmt.Sprint("stuck-", i))
	}
	t.Logf("with %d clients: %v", c.clients, b.holds(t))

	// What a client has queued ends when it is found to be slow: they are two kinds.
	const queuers = 20
	flooded, queueing := all[queuers:], all[:queuers]
	tokens := asks(t, w, flooded) // before the queues are full: they may have to wait a moment
	data := `"` + strings.Repeat("x", c.data-2) + `"`
	for i := range c.queued {
		// Over as many services as one may queue 10,000 and 64 MiB.
		if err := queueing[i%queuers].send("C", "2", fmt.Sprint("queued-", i%16), fmt.Sprint(i), data, `{"timeout":-1}`); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all is queued", func() bool { return b.holds(t).Queued == c.queued })
	queued := b.holds(t)
	t.Logf("with %d requests queued: %v", c.queued, queued)
	more := dialRaw(t, b.endpoint)
	more.say(`C|2|queued-1|more|"x"|{}`)
	more.want(t, "C|3|more|"+overloaded)

	c.flood(t, b, w, tokens)
	full := b.holds(t)
	t.Logf("with clients that read nothing: %v", full)
	for range 100 { // of which each wants an answer
		for _, p := range flooded {
			p.send("C", "4", "not held")
		}
	}
	cpu := usedCPU(t, b)
	start := time.Now()
	honest := startClient(t, b.endpoint, nil)
	ready(t, startWorker(t, b.endpoint, "echo", nil, echo))
	ready(t, honest)
	calls, worst := 0, time.Duration(0)
	for ; time.Since(start) < 2*time.Second; calls++ {
		before := time.Now()
		served(t, honest, "echo") // though the queues are full: a free worker needs none
		worst = max(worst, time.Since(before))
	}
	h := b.holds(t)
	t.Logf("after %d calls of one that reads, of which the slowest took %v: %v; %.0f %% of a core", calls, worst, h, 100*float64(usedCPU(t, b)-cpu)/float64(time.Since(start)))
	bound := c.bound()
	t.Logf("the bound is %d MiB, the most was %d MiB (%.2f)", bound/mib, h.Peak/mib, float64(h.Peak)/float64(bound))
	if h.Peak > bound {
		t.Errorf("the broker took %d MiB, docs/limits.md allows %d MiB", h.Peak/mib, bound/mib)
	}
	// It is not vacuous: the limits were reached, and all that was to be held was.
	if h.OutboxBytes < c.limits.TotalOutbox*3/4 || h.OutboxBytes > 2*c.limits.TotalOutbox+mib || h.SlowClients != uint64(len(flooded)) || h.Queued != c.queued {
		t.Errorf("not what was to be measured: %v", h)
	}
	if least := c.limits.TotalBytes*9/10 + c.limits.TotalOutbox*3/4 + int64(len(flooded)*256*c.reply)*3/4; h.Peak < least {
		t.Errorf("the broker took %d MiB, which is less than it must have held, %d MiB", h.Peak/mib, least/mib)
	}
}

// dialLocal is dialWire over ipc, for a test that takes long.
func dialLocal(t *testing.T, endpoint, identity string) *wire {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(endpoint, "ipc://"))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Minute))
	t.Cleanup(func() { c.Close() })
	return (&wire{c, bufio.NewReader(c)}).shakeHands(t, identity)
}

// asks has each client ask the worker, and gives the tokens of that.
func asks(t *testing.T, w *wire, all []*wire) (tokens []string) {
	for _, p := range all {
		if err := p.send("C", "2", "flood", "flood", "1", `{"timeout":-1}`); err != nil {
			t.Fatal(err)
		}
	}
	for len(tokens) < len(all) {
		m, err := w.next()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "2" {
			tokens = append(tokens, m[2])
		}
	}
	return tokens
}

// flood has the worker write partials to every client until each is given up.
func (c *crowd) flood(t *testing.T, b *limitedBroker, w *wire, tokens []string) {
	read := make(chan error, 1)
	go func() { // what else it is told, above all that its requests are over
		for {
			if _, err := w.next(); err != nil {
				read <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.Close()
		if err := <-read; errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	part := `{"status":200,"msg":"` + strings.Repeat("x", c.reply-len(`{"status":200,"msg":""}`)) + `"}`
	for round := 0; ; round++ {
		for _, token := range tokens {
			if err := w.send("W", "6", token, "flood", part); err != nil {
				t.Fatal(err)
			}
		}
		if round%50 == 0 && b.holds(t).SlowClients >= uint64(len(tokens)) {
			return
		}
	}
}

// usedCPU is how long the broker's threads ran.
func usedCPU(t *testing.T, b *limitedBroker) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	var user, system int64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
