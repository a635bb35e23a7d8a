package conformance

import (
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

func TestMain(m *testing.M) {
	leak.Main(m, leak.Count("open sockets", zsock.OpenSockets), leak.Count("libzmq messages", zsock.Blocks))
}

// load reads the kit that is built in.
func load(t testing.TB) *Kit {
	t.Helper()
	k, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Every script runs against this library's own broker, worker or client.
func TestOurs(t *testing.T) {
	for _, r := range Run(t.Context(), load(t).Scripts, Options{Driver: Ours(), Parallel: 16, Trace: true}) {
		t.Run(r.Script.Name, func(t *testing.T) {
			if r.Skipped != "" {
				t.Skip(r.Skipped)
			}
			if r.Failed() {
				t.Errorf("line %d: %s\nwant %s\ngot  %s", r.Line, r.Step, r.Want, r.Got)
				for _, m := range r.Trace {
					t.Log(m)
				}
			}
		})
	}
}
