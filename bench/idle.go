package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// idleResult is what a broker costs while its clients do nothing.
type idleResult struct {
	clients  int
	mib      float64 // resident memory of the broker
	bareMiB  float64 // the same before the first client
	cpu      float64 // percent of one core
	measured time.Duration
}

const (
	// clientsPerProcess keeps a process of clients under libzmq's default of
	// 1,023 sockets a context, also where a client takes several.
	clientsPerProcess = 250
	idleSettle        = 3 * time.Second
	idleMeasure       = 6 * time.Second
	idleReady         = 60 * time.Second
)

// idleClients is how many connections the limit of descriptors allows the
// broker, with some left for itself, up to maxIdleClients.
func idleClients() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Max < 512 {
		return 100
	}
	return int(min(r.Max-256, maxIdleClients))
}

// measureIdle connects idle clients from several processes and looks at the broker.
func measureIdle(ctx context.Context, c benchCase, stack string) (*idleResult, error) {
	var f family
	defer f.stop()
	w := workOf(c, stack, timing{})
	endpoint, pid, err := startBroker(ctx, &f, w)
	if err != nil {
		return nil, err
	}
	w.Endpoint = endpoint
	if err := startWorkers(ctx, &f, w); err != nil {
		return nil, err
	}
	r := &idleResult{clients: idleClients()}
	if r.bareMiB, err = residentMiB(pid); err != nil {
		return nil, err
	}
	w.Role = "idle"
	// A few processes at a time: the clients of all would overrun the backlog.
	for left := r.clients; left > 0; {
		var some []*child
		for range 4 {
			if w.Clients = min(left, clientsPerProcess); w.Clients == 0 {
				break
			}
			left -= w.Clients
			p, err := f.start(w)
			if err != nil {
				return nil, err
			}
			some = append(some, p)
		}
		for _, p := range some {
			if _, err := p.expect(ctx, "ready", idleReady); err != nil {
				return nil, err
			}
		}
	}
	if err := wait(ctx, idleSettle); err != nil {
		return nil, err
	}
	before, err := cpuTime(pid)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := wait(ctx, idleMeasure); err != nil {
		return nil, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return nil, err
	}
	r.measured = time.Since(began)
	r.cpu = 100 * float64(after-before) / float64(r.measured)
	r.mib, err = residentMiB(pid)
	return r, err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// residentMiB is the resident memory of a process.
func residentMiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", pid)
}

// cpuTime is the time that a process has used, user and system.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything: fields are counted behind it.
	// utime and stime are fields 14 and 15, in ticks of 10 ms.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("unexpected stat of process %d", pid)
	}
	user, err := strconv.ParseInt(string(fields[11]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
