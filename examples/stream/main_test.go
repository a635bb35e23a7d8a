package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// file writes size bytes, the same in each run and not UTF-8, to dir/name.
func file(t *testing.T, dir, name string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// role starts one role as a process would, until the test ends. What it logs
// can be read line by line.
func role(t *testing.T, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string, 100)
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, io.Discard, lineWriter(lines)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stream %q: %v", args, err)
		}
	})
	return lines
}

// lineWriter gets one whole line with each Write, as logTo writes them.
type lineWriter chan<- string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- strings.TrimSuffix(string(p), "\n")
	return len(p), nil
}

func endpoint(t *testing.T) string { return "ipc://" + filepath.Join(t.TempDir(), "b") }

func TestByteForByte(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 1, 4096, 1<<20 + 7, 16 << 20} {
		want := file(t, dir, "f", size)
		got := sha256.New()
		if err := run(t.Context(), []string{"-file", filepath.Join(dir, "f")}, got, io.Discard); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if w := sha256.Sum256(want); !bytes.Equal(got.Sum(nil), w[:]) {
			t.Errorf("%d bytes: got sha256 %x, want %x", size, got.Sum(nil), w)
		}
	}
}

func TestText(t *testing.T) {
	dir := t.TempDir()
	want := strings.Repeat("Zeile \"mit\" Ümläuten – und \x00 Steuerzeichen\r\n", 10_000)
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := run(t.Context(), []string{"-root", dir, "-file", "text"}, &got, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got %d bytes that differ from the %d of the file", got.Len(), len(want))
	}
}

func TestEachRoleOnItsOwn(t *testing.T) {
	dir, at := t.TempDir(), endpoint(t)
	want := file(t, dir, "f", 1<<20)
	worker := role(t, "-role", "worker", "-endpoint", at, "-root", dir)
	role(t, "-role", "broker", "-endpoint", at)
	var got bytes.Buffer
	if err := run(t.Context(), []string{"-role", "client", "-endpoint", at, "-file", "f"}, &got, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %d bytes that differ from the %d of the file", got.Len(), len(want))
	}
	if got, want := <-worker, fmt.Sprintf("worker: f: sent %d bytes", len(want)); got != want {
		t.Errorf("worker wrote %q, want %q", got, want)
	}
}

// full takes so many bytes and then fails, as a closed pipe does.
type full struct {
	room int
	full func() // called once, at the failure
	once sync.Once
}

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		f.once.Do(f.full)
		return 0, errors.New("broken pipe")
	}
	return len(p), nil
}

func TestBreakingOffStopsTheCopy(t *testing.T) {
	const size = 64 << 20
	dir, at := t.TempDir(), endpoint(t)
	file(t, dir, "f", size)
	worker := role(t, "-role", "worker", "-endpoint", at, "-root", dir)
	role(t, "-role", "broker", "-endpoint", at)
	client := []string{"-role", "client", "-endpoint", at, "-file", "f"}

	stopped := func(how string) {
		t.Helper()
		var n int
		line := <-worker
		if _, err := fmt.Sscanf(line, "worker: f: stopped after %d bytes:", &n); err != nil {
			t.Fatalf("%s: the worker wrote %q, want that it stopped", how, line)
		}
		// The window, and what the sockets hold: far from the whole file.
		if n > size/2 {
			t.Errorf("%s: the worker sent %d of %d bytes", how, n, size)
		}
	}
	if err := run(t.Context(), client, &full{room: 1 << 20, full: func() {}}, io.Discard); err == nil || !strings.Contains(err.Error(), "broken pipe") {
		t.Errorf("closed pipe: got %v, want a broken pipe", err)
	}
	stopped("closed pipe")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := run(ctx, client, &full{room: 1 << 20, full: cancel}, io.Discard); err == nil {
		t.Error("interrupt: no error")
	}
	stopped("interrupt")
}

func TestOnlyBelowTheRoot(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	file(t, dir, "secret", 10)
	file(t, root, "sub/open", 10)
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../secret", filepath.Join(dir, "secret"), "link", "sub/../../secret", "sub", "none"} {
		var got bytes.Buffer
		if err := run(t.Context(), []string{"-root", root, "-file", name}, &got, io.Discard); err == nil || got.Len() > 0 {
			t.Errorf("%s: got %d bytes, error %v; want an error alone", name, got.Len(), err)
		}
	}
	var got bytes.Buffer
	if err := run(t.Context(), []string{"-root", root, "-file", "sub/open"}, &got, io.Discard); err != nil || got.Len() != 10 {
		t.Errorf("sub/open: got %d bytes, error %v; want 10", got.Len(), err)
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"-role", "queen", "-file", "f"}, {}, {"-role", "client"}, {"-file", "f", "stray"}, {"-file", "f", "-timeout", "-1s"}, {"-nonsense"}} {
		var stderr bytes.Buffer
		if err := run(t.Context(), args, io.Discard, &stderr); !errors.Is(err, errUsage) {
			t.Errorf("stream %q: got %v, want errUsage", args, err)
		}
		if stderr.Len() == 0 {
			t.Errorf("stream %q: nothing on stderr", args)
		}
	}
}
