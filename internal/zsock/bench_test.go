//go:build cgo

package zsock

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The three-process benchmarks: a broker and a worker run as processes of their
// own (this binary again), the client is the benchmark. The broker passes
// [payload...] from clients to the worker as [client, payload...] and back.

func init() {
	helpers["broker"] = brokerProcess
	helpers["worker"] = workerProcess
	helpers["sink"] = sinkProcess
}

// hwmFromEnv lets BenchmarkHWM set the helpers' bound.
func hwmFromEnv() Options {
	n, _ := strconv.Atoi(os.Getenv("OMDP_ZSOCK_HWM"))
	return Options{SndHWM: n, RcvHWM: n}
}

func brokerProcess() {
	r, err := NewRouter(hwmFromEnv())
	if err != nil {
		panic(err)
	}
	bound, err := r.Bind("tcp://127.0.0.1:*")
	if err != nil {
		panic(err)
	}
	fmt.Println(bound)
	s := serve(r, forward())
	waitForParent()
	_ = s.close()
}

// forward is what a broker with one worker does.
func forward() func(out *batch.Out, m [][]byte) {
	var worker []byte
	return func(out *batch.Out, m [][]byte) {
		switch {
		case len(m) == 2 && string(m[1]) == "READY": // goes back with the id in front
			worker = bytes.Clone(m[0])
			out.Begin()
			out.Frame(worker)
		case bytes.Equal(m[0], worker):
			m = m[1:]
			out.Begin()
		default:
			out.Begin()
			out.Frame(worker)
		}
		for _, f := range m {
			out.Frame(f)
		}
		out.End()
	}
}

func workerProcess() {
	stop := startWorker(os.Args[len(os.Args)-1])
	fmt.Println("registered")
	waitForParent()
	stop()
}

// startWorker returns when the broker knows the worker, which echoes what it
// gets, from Deliver.
func startWorker(endpoint string) (stop func()) {
	var c *Conn
	ready := make(chan struct{}, 1)
	c, err := Dial(ConnOptions{Options: hwmFromEnv(), Endpoint: endpoint, Deliver: func(in *batch.In) {
		out := c.Begin()
		for m := in.Next(); m != nil; m = in.Next() {
			if string(m[1]) == "READY" {
				ready <- struct{}{}
				continue
			}
			echo(out, m)
		}
		c.Flush()
	}})
	if err != nil {
		panic(err)
	}
	put(c.Begin(), "READY")
	c.Flush()
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(nil) })
	<-ready
	return func() {
		c.Stop()
		wg.Wait()
		_ = c.Close()
	}
}

// waitForParent returns when the parent closed our standard input or died.
func waitForParent() {
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
}

// startProcess runs this binary as a helper; it gives the first line that the
// helper prints and ends with the test.
func startProcess(tb testing.TB, helper string, args ...string) (line string, cmd *exec.Cmd) {
	tb.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "OMDP_ZSOCK_HELPER="+helper)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	buf := make([]byte, 256)
	n, err := stdout.Read(buf)
	if err != nil {
		tb.Fatalf("helper %s: %v", helper, err)
	}
	return strings.TrimSpace(string(buf[:n])), cmd
}

// call is one goroutine's request in the benchmarks.
type call struct{ reply chan struct{} }

// shape is a way to share a Conn between callers.
type shape struct {
	name  string
	flush func(c *Conn)
}

var shapes = []shape{
	{"combining", (*Conn).Flush},
	{"owner", flushOwner},
}

// flushOwner is Flush as it would be if only Run touched the socket.
func flushOwner(c *Conn) {
	c.queued.Add(int64(len(c.queue.B) - c.mark))
	wake := !c.busy
	c.mu.Unlock()
	if wake {
		c.w.wake()
	}
}

// BenchmarkShapes compares combining with an owner goroutine, over tcp through a
// broker and a worker in processes of their own. 16-byte payload.
//
// Measured on 2 cores, medians of five interleaved runs (combining / owner): p50 at
// 1 caller 135 / 135 µs, at 8 callers 194 / 219 µs, at 100 callers 348 / 506 µs, at
// 1,000 callers 3.5 / 5.0 ms; at 100 callers 248,000 / 166,000 requests/s, at 1,000
// callers 276,000 / 167,000. So Conn combines. Waiting with poll(2) inside cgo
// instead of the netpoller was slower: p50 at 1 caller 225 µs.
func BenchmarkShapes(b *testing.B) {
	for _, callers := range []int{1, 8, 100, 1000} {
		for _, sh := range shapes {
			b.Run(fmt.Sprintf("%s/callers=%d", sh.name, callers), func(b *testing.B) {
				endpoint, _ := startProcess(b, "broker")
				startProcess(b, "worker", endpoint)
				benchCallers(b, Options{}, endpoint, callers, sh.flush)
			})
		}
	}
}

func benchCallers(b *testing.B, o Options, endpoint string, callers int, flush func(*Conn)) {
	calls := make([]call, callers)
	for i := range calls {
		calls[i].reply = make(chan struct{}, 1)
	}
	c, err := Dial(ConnOptions{Options: o, Endpoint: endpoint, Deliver: func(in *batch.In) {
		for m := in.Next(); m != nil; m = in.Next() {
			calls[int(m[0][0])|int(m[0][1])<<8].reply <- struct{}{}
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	var run sync.WaitGroup
	run.Go(func() { _ = c.Run(nil) })
	defer func() {
		c.Stop()
		run.Wait()
		_ = c.Close()
	}()

	one := func(i int) {
		var p [16]byte
		p[0], p[1] = byte(i), byte(i>>8)
		out := c.Begin()
		out.Begin()
		out.Frame(p[:])
		out.End()
		flush(c)
		<-calls[i].reply
	}
	one(0) // connected

	took := make([][]time.Duration, callers)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		n := b.N / callers
		if i < b.N%callers {
			n++
		}
		took[i] = make([]time.Duration, 0, n)
		wg.Go(func() {
			for range n {
				start := time.Now()
				one(i)
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "p99-µs")
}

// sinkProcess connects, says so to the broker, and receives.
func sinkProcess() {
	c, err := Dial(ConnOptions{Endpoint: os.Args[len(os.Args)-1], Options: hwmFromEnv()})
	if err != nil {
		panic(err)
	}
	put(c.Begin(), "HELLO")
	c.Flush()
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(nil) })
	fmt.Println("sent")
	waitForParent()
	c.Stop()
	wg.Wait()
	_ = c.Close()
}

// absorbed is the number of messages of size bytes that a ROUTER takes for a
// client that was stopped (SIGSTOP), until it says Again.
func absorbed(tb testing.TB, hwm, size int) int {
	r := newTestRouter(tb, Options{SndHWM: hwm, RcvHWM: hwm, Linger: -1})
	defer func() { closeAll(tb, r.Close) }()
	_, cmd := startProcess(tb, "sink", bindTest(tb, r, "tcp://127.0.0.1:*"))
	var in batch.In
	id := string(receiveOne(tb, r, &in)[0])
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGCONT) }()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		tb.Fatalf("wait for the stop: %v, %v", ws, err)
	}
	body := strings.Repeat("x", size)
	var out batch.Out
	n, refused := 0, 0
	for refused < 20 { // what the kernel takes comes by and by
		put(&out, id, body)
		if _, err := r.Exchange(&out, &in); err != nil {
			tb.Fatal(err)
		}
		if out.Results[0] == batch.Sent {
			n++
			refused = 0
		} else {
			refused++
			if err := r.Wait(time.Now().Add(5 * time.Millisecond)); err != nil {
				tb.Fatal(err)
			}
		}
		out.Reset()
	}
	return n
}

// receiveOne waits for one message; its frames are borrowed from in.
func receiveOne(tb testing.TB, r *Router, in *batch.In) [][]byte {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err := r.Exchange(nil, in); err != nil {
			tb.Fatal(err)
		}
		if m := in.Next(); m != nil {
			return m
		}
		if err := r.Wait(deadline); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Fatal("nothing came within 10 s")
	return nil
}

// BenchmarkHWM measures for the choice of the default: requests with 1,000 in
// flight, and what a stopped client makes the broker hold.
func BenchmarkHWM(b *testing.B) {
	for _, hwm := range []int{32, 64, 128, 256, 1000} {
		b.Run(strconv.Itoa(hwm), func(b *testing.B) {
			b.Setenv("OMDP_ZSOCK_HWM", strconv.Itoa(hwm))
			endpoint, _ := startProcess(b, "broker")
			startProcess(b, "worker", endpoint)
			benchCallers(b, hwmFromEnv(), endpoint, 1000, (*Conn).Flush)
			b.ReportMetric(float64(absorbed(b, hwm, 64<<10)*64<<10)/1e6, "absorbed-MB")
		})
	}
}
