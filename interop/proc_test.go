package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// limit is for any one wait here: a busy machine needs a part of it.
const limit = 20 * time.Second

// running counts the processes that were started and not yet waited for.
var running atomic.Int64

// proc is a peer: it says lines, and a client is asked by lines.
type proc struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string   // closed when its output ended
	done  chan struct{} // closed when it was waited for

	mu    sync.Mutex
	noted bytes.Buffer // its standard error
}

// start runs a program until the test ends. All of the peers end by themselves
// when this process is gone.
func start(t *testing.T, name string, command []string) *proc {
	t.Helper()
	p := &proc{t: t, name: name, cmd: exec.Command(command[0], command[1:]...), lines: make(chan string, 1000), done: make(chan struct{})}
	p.cmd.Stderr = p
	p.cmd.Env = append(os.Environ(), fmt.Sprint("OMDP_STARTER=", os.Getpid()))
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	running.Add(1)
	go func() {
		defer close(p.done)
		defer running.Add(-1)
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.lines <- in.Text()
		}
		close(p.lines)
		_ = p.cmd.Wait() // how it ended is the test's own doing
	}()
	t.Cleanup(func() {
		p.kill()
		if noted := p.notes(); noted != "" && t.Failed() {
			t.Logf("%s wrote to stderr:\n%s", name, noted)
		}
	})
	return p
}

// Write takes what the process says on standard error.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noted.Write(b)
}

func (p *proc) notes() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noted.String()
}

// kill ends it as a crash does, and waits for the end.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill() // one that has ended is fine
	for range p.lines {
	}
	<-p.done
}

// stop ends a peer in order: it takes its leave.
func (p *proc) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("stop %s: %v", p.name, err)
	}
	for range p.lines {
	}
	<-p.done
}

// next is the next line that it says.
func (p *proc) next() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			<-p.done
			p.t.Fatalf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, p.notes())
		}
		return l
	case <-time.After(limit):
		p.t.Fatalf("%s said nothing for %v\n%s", p.name, limit, p.notes())
	}
	return ""
}

// want waits for a line that starts with a word, and returns the rest of it.
func (p *proc) want(word string) string {
	p.t.Helper()
	l := p.next()
	first, rest, _ := strings.Cut(l, " ")
	if first != word {
		p.t.Fatalf("%s said %q, want %s", p.name, l, word)
	}
	return rest
}

// question is what a client is to ask, see README.md.
type question struct {
	Data    []string `json:"data"`
	Count   int      `json:"count,omitempty"`
	Timeout int      `json:"timeout,omitempty"`
}

// tell asks a client. answers waits for all that it then prints.
func (p *proc) tell(q question) {
	p.t.Helper()
	line, err := json.Marshal(q)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

func (p *proc) answers() (lines []string) {
	p.t.Helper()
	for l := p.next(); l != "end"; l = p.next() {
		lines = append(lines, l)
	}
	return lines
}

// difference tells how two lists of lines differ; "" if they do not.
func difference(got, want []string) string {
	if slices.Equal(got, want) {
		return ""
	}
	short := func(lines []string) string {
		if len(lines) > 6 {
			lines = append(slices.Clone(lines[:3]), append([]string{"…"}, lines[len(lines)-2:]...)...)
		}
		return strings.Join(lines, "\n\t\t")
	}
	return "got\n\t\t" + short(got) + "\n\twant\n\t\t" + short(want)
}
