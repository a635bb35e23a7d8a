package interop_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) {
	leak.Main(m, leak.Count("processes", func() int { return int(running.Load()) }))
}

// needPeers skips a test unless it was asked for: make interop asks, after it
// has seen to Node and the packages.
func needPeers(t *testing.T) {
	t.Helper()
	if os.Getenv("OMDP_INTEROP") == "" {
		t.Skip("starts peers in Node; make interop runs it")
	}
	if _, err := os.Stat("node_modules/.installed"); err != nil {
		t.Fatalf("the foreign peers are not installed: %v; run make interop", err)
	}
}

// goPeer is the program ./peer, built once.
var goPeer = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "omdp-interop-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "peer")
	if out, err := exec.Command("go", "build", "-o", bin, "./peer").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./peer: %w\n%s", err, out)
	}
	return bin, nil
})
