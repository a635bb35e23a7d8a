package conformance

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Foreign is the driver of what this library did not make: a broker at an
// endpoint, or a worker or client that a command starts, or a worker that
// somebody starts by hand.
type Foreign struct {
	// Endpoint is where a broker under test is.
	Endpoint string
	// At is where the kit binds the broker that it plays; default any port, if
	// Command starts what connects to it.
	At string
	// Command starts a worker, or a client for one call, with {endpoint},
	// {service}, {data} and {timeout} (in ms) replaced. A worker serves as the
	// scripts expect: it gives back the data that it got, but for "partials". A
	// client prints a line "partial JSON", "final JSON" or "error …" for each
	// thing that comes back, and ends.
	Command []string
	// ServiceName is what a worker that was started by hand serves.
	ServiceName string
	// Dialects are those that the subject speaks; default all.
	Dialects []string
	// Heartbeat is the interval on both sides; default 2.5 s.
	Heartbeat time.Duration
	// Lost is how long the subject may take to miss a silent peer; default
	// six heartbeats.
	Lost time.Duration
	// Timeout is that of requests at a broker whose clients give none; scripts
	// that wait for its end run if it is at most six heartbeats.
	Timeout time.Duration
	// Stderr gets what the commands write there; nil: nobody does.
	Stderr io.Writer
	// Has are further things that the subject offers to scripts: hold, twice.
	Has []string
}

// Beat implements [Driver], as the other methods do.
func (f *Foreign) Beat() time.Duration   { return cmp.Or(f.Heartbeat, 2500*time.Millisecond) }
func (f *Foreign) Expiry() time.Duration { return cmp.Or(f.Lost, 6*f.Beat()) }

func (f *Foreign) Service(fresh string) string {
	if _, runs := f.Listen(); runs {
		return f.ServiceName
	}
	return fresh
}

func (f *Foreign) Listen() (endpoint string, runs bool) {
	return cmp.Or(f.At, anyPort), f.Command == nil && f.At != ""
}

func (f *Foreign) Refuses(role, dialect string) string {
	switch {
	case role == "broker" && f.Endpoint == "":
		return "no broker is under test"
	case role == "worker" && f.Command == nil && f.At == "", role == "client" && f.Command == nil:
		return "no " + role + " is under test"
	case role != "broker" && f.Endpoint != "":
		return "a broker is under test"
	case f.Dialects != nil && !slices.Contains(f.Dialects, dialect):
		return "the dialect is not asked for"
	}
	return ""
}

func (f *Foreign) Offers(role, need string) bool {
	switch need {
	case "timeout":
		return f.Timeout > 0 && f.Timeout <= 6*f.Beat()
	case "stop":
		return role == "worker" && f.Command != nil
	case "results":
		return f.Command != nil
	}
	return slices.Contains(f.Has, need)
}

func (f *Foreign) Start(s Start) (Subject, error) {
	p := &process{f: f, start: s}
	if s.Script.Role == "worker" && f.Command != nil {
		return p, p.run(nil, "", 0)
	}
	return p, nil
}

// process is a foreign subject; that of a client is one for each call.
type process struct {
	f     *Foreign
	start Start
	wg    sync.WaitGroup

	calls

	mu   sync.Mutex
	cmds []*exec.Cmd
}

func (p *process) Endpoint() string { return p.f.Endpoint }

// run starts the command; its lines go to out.
func (p *process) run(out *inbox, data string, timeout time.Duration) error {
	fill := strings.NewReplacer("{endpoint}", p.start.Endpoint, "{service}", p.start.Service,
		"{data}", data, "{timeout}", fmt.Sprint(cmp.Or(timeout, time.Minute).Milliseconds()))
	args := make([]string, len(p.f.Command))
	for i, a := range p.f.Command {
		args[i] = fill.Replace(a)
	}
	c := exec.Command(args[0], args[1:]...)
	lines, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	c.Stderr = p.f.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	p.mu.Lock()
	p.cmds = append(p.cmds, c)
	p.mu.Unlock()
	p.wg.Go(func() {
		for s := bufio.NewScanner(lines); s.Scan(); {
			kind, value, _ := strings.Cut(s.Text(), " ")
			if out != nil && slices.Contains([]string{"partial", "final", "error"}, kind) {
				out.put([]string{kind, value})
			}
		}
		_ = c.Wait()
	})
	return nil
}

// end ends all processes that were started.
func (p *process) end(by os.Signal) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.cmds {
		if e := c.Process.Signal(by); e != nil && !errors.Is(e, os.ErrProcessDone) {
			err = e
		}
	}
	return err
}

func (p *process) Stop() error { return p.end(syscall.SIGTERM) }

func (p *process) Close() {
	_ = p.end(os.Kill)
	p.wg.Wait()
}

func (p *process) Call(name, data string, timeout time.Duration) error {
	return p.run(p.of(name), data, timeout)
}
