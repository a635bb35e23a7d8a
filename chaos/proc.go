package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// ordersEnv names the variable that carries a child's orders: a process that
// finds it set plays a role and is not the harness.
const ordersEnv = "OMDP_CHAOS_ORDERS"

// A child is one process. It says lines on its standard output, is told lines
// on its standard input, and ends at the latest when that ends.
type child struct {
	name   string
	pid    int
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string   // closed when its output ended
	exited chan struct{} // closed when it was waited for
	errors tail
	err    error // of Wait; read after exited
}

// self is the program that children run; a test sets it to its own binary.
var self = os.Executable

// A spawner starts processes. All of them are started from one OS thread that
// lives as long as the spawner: Linux ends a child with the thread that made
// it, where we ask for that (see childAttributes).
type spawner struct {
	do   chan func()
	env  []string // that children get besides
	once sync.Once
}

func newSpawner() *spawner {
	s := &spawner{do: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.do {
			f()
		}
	}()
	return s
}

func (s *spawner) close() { s.once.Do(func() { close(s.do) }) }

// start runs this program with the given orders.
func (s *spawner) start(name string, orders any) (*child, error) {
	bin, err := self()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(orders)
	if err != nil {
		return nil, err
	}
	c := &child{name: name, cmd: exec.Command(bin), lines: make(chan string, 64), exited: make(chan struct{})}
	c.cmd.Env = append(append(os.Environ(), s.env...), ordersEnv+"="+string(text))
	c.cmd.SysProcAttr = childAttributes()
	c.cmd.Stderr = &c.errors
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	s.do <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.pid = c.cmd.Process.Pid
	go c.listen(stdout)
	return c, nil
}

func (c *child) listen(stdout io.Reader) {
	in := bufio.NewScanner(stdout)
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		c.lines <- in.Text()
	}
	close(c.lines)
	c.err = c.cmd.Wait()
	close(c.exited)
}

// tell writes one line to it. A process that is gone hears nothing.
func (c *child) tell(line string) { _, _ = io.WriteString(c.stdin, line+"\n") }

// expect waits for a line that starts with word and returns what follows it.
// Other lines are passed over.
func (c *child) expect(ctx context.Context, word string, limit time.Duration) (string, error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				<-c.exited
				return "", fmt.Errorf("%s ended before it said %q: %v%s", c.name, word, c.err, c.errors.String())
			}
			if rest, found := strings.CutPrefix(line, word); found {
				return strings.TrimSpace(rest), nil
			}
		case <-t.C:
			return "", fmt.Errorf("%s did not say %q within %v%s", c.name, word, limit, c.errors.String())
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// ask tells it a word and reads its answer, one line of JSON, into v.
func (c *child) ask(ctx context.Context, line string, v any) error {
	return c.askWithin(ctx, line, v, 20*time.Second)
}

// askWithin is ask for what may take long.
func (c *child) askWithin(ctx context.Context, line string, v any, limit time.Duration) error {
	c.tell(line)
	word, _, _ := strings.Cut(line, " ")
	text, err := c.expect(ctx, word+":", limit)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), v)
}

// drain lets go of what it says, so that it never waits to be heard. It
// returns when its output has ended.
func (c *child) drain() {
	for range c.lines {
	}
}

// kill ends it at once, whatever its state, and returns when it is gone.
func (c *child) kill() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "chaos: kill %s (process %d): %v\n", c.name, c.pid, err)
	}
	_ = c.stdin.Close()
	c.drain()
	<-c.exited
}

// finish tells it to end and waits for that, for so long at the most; the
// error is how it ended if that was not in order.
func (c *child) finish(limit time.Duration) error {
	c.tell("end")
	go c.drain()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.exited:
		if c.err != nil {
			return fmt.Errorf("%s: %w%s", c.name, c.err, c.errors.String())
		}
		return nil
	case <-t.C:
		c.kill()
		return fmt.Errorf("%s did not end within %v%s", c.name, limit, c.errors.String())
	}
}

// tail keeps the last 16 KiB that were written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 16<<10; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

// String is what was kept, on a line of its own, or nothing.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.b) == 0 {
		return ""
	}
	return "\n" + string(bytes.TrimSpace(t.b))
}
