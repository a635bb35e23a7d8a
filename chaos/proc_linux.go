package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// childAttributes: a group of its own, so that a Ctrl-C at the terminal comes
// to the harness alone, which then ends its children in order; and the end with
// the harness however that ends: a stopped process does not see its input end.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// stop and cont do nothing to a process that is gone.
func (c *child) stop() error { return c.signal(syscall.SIGSTOP) }
func (c *child) cont()       { _ = c.signal(syscall.SIGCONT) }

func (c *child) signal(s os.Signal) error {
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to %s: %w", s, c.name, err)
	}
	return nil
}

// resident is how many bytes of memory a process has, and descriptors how many
// files it has open.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: %q", pid, b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

func descriptors(pid int) (int, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all), err
}

// peak is the most bytes of memory that a process has had so far.
func peak(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM of process %d", pid)
}

// ephemeral is the lowest port that the system gives to outgoing connections:
// a port below it is not taken while a broker is away.
func ephemeral() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768
	}
	n, err := strconv.Atoi(strings.Fields(string(b) + " x")[0])
	if err != nil {
		return 32768
	}
	return n
}

// A threadWatch knows how long each thread of this process has waited for a
// processor so far. It is not safe for concurrent use.
type threadWatch struct{ waited map[string]int64 }

// look gives the most that any one thread has waited since the last look.
func (w *threadWatch) look() time.Duration {
	now := map[string]int64{}
	var most int64
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0
	}
	for _, t := range all {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/schedstat") // run, waited, slices
		fields := strings.Fields(string(b))
		if err != nil || len(fields) < 2 { // it has just ended, or the kernel does not tell
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		now[t.Name()] = n
		if w.waited != nil {
			most = max(most, n-w.waited[t.Name()])
		}
	}
	w.waited = now
	return time.Duration(most)
}
