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
	"strings"
	"sync"
	"syscall"
	"time"
)

// A child is one process of a stack. It says lines on its standard output,
// and ends when its standard input does, so it also ends when we are killed.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	lines  chan string   // closed when its output ended
	exited chan struct{} // closed when it was waited for
	errors tail
	err    error // of Wait; read after exited
}

// self is the program that children run; a test sets it to its own binary.
var self = os.Executable

// start runs one role of a stack in a process of its own.
func start(w work) (*child, error) {
	var cmd *exec.Cmd
	if w.Stack == "c" {
		bin, err := cStack()
		if err != nil {
			return nil, err
		}
		cmd = exec.Command(bin, w.cArgs()...)
	} else {
		bin, err := self()
		if err != nil {
			return nil, err
		}
		orders, err := json.Marshal(w)
		if err != nil {
			return nil, err
		}
		cmd = exec.Command(bin)
		cmd.Env = append(os.Environ(), workEnv+"="+string(orders))
	}
	// A group of its own: a Ctrl-C at the terminal comes to the harness alone,
	// which then stops its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c := &child{name: w.Stack + " " + w.Role, cmd: cmd, lines: make(chan string, 16), exited: make(chan struct{})}
	cmd.Stderr = &c.errors
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	c.stdin = stdin
	go func() {
		s := bufio.NewScanner(stdout)
		for s.Scan() {
			select {
			case c.lines <- s.Text():
			default: // nobody needs more than a few lines; never block on a talkative child
			}
		}
		close(c.lines)
		c.err = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

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

// stop ends the process: by the end of its input, and if that is not enough
// within a second, by a kill. It returns when the process is gone.
func (c *child) stop() {
	_ = c.stdin.Close()
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			fmt.Fprintf(os.Stderr, "bench: kill %s (process %d): %v\n", c.name, c.cmd.Process.Pid, err)
		}
		<-c.exited
	}
}

// A family is the processes of one measurement; stop ends all of them.
type family struct{ children []*child }

// cpuTime is what all of them have used, user and system.
func (f *family) cpuTime() time.Duration {
	var sum time.Duration
	for _, c := range f.children {
		if t, err := cpuTime(c.cmd.Process.Pid); err == nil { // else it has just ended
			sum += t
		}
	}
	return sum
}

func (f *family) start(w work) (*child, error) {
	c, err := start(w)
	if err == nil {
		f.children = append(f.children, c)
	}
	return c, err
}

// stop ends the children together, the last started first in line.
func (f *family) stop() {
	var wg sync.WaitGroup
	for i := len(f.children) - 1; i >= 0; i-- {
		wg.Go(f.children[i].stop)
	}
	wg.Wait()
	f.children = nil
}

// tail keeps the last few KiB that were written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 4096; over > 0 {
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
