package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
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

// buildPeer builds the program ./peer for a test.
func buildPeer(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "peer")
	if out, err := exec.Command("go", "build", "-o", bin, "./peer").CombinedOutput(); err != nil {
		t.Fatalf("go build ./peer: %v\n%s", err, out)
	}
	return bin
}
