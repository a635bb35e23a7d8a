package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/conformance"
	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestRun(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "doc.md")
	for _, k := range []struct {
		name string
		o    options
		code int
		err  string
	}{
		{"ours", options{ours: true, only: "omdp.protocol.notify", doc: doc}, 0, ""},
		{"list", options{ours: true, list: true}, 0, ""},
		{"nobody", options{foreign: conformance.Foreign{Endpoint: "ipc://" + filepath.Join(t.TempDir(), "x"), Heartbeat: time.Millisecond}, only: "rfc18/broker-request", patience: time.Millisecond}, 1, ""},
		{"a may that fails", options{foreign: conformance.Foreign{Endpoint: "ipc://" + filepath.Join(t.TempDir(), "x"), Heartbeat: time.Millisecond}, only: "omdp/broker-notify", patience: time.Millisecond}, 0, ""},
		{"no endpoint", options{}, 0, "a broker under test needs -endpoint"},
		{"no command", options{role: "client"}, 0, "a client under test needs -command"},
		{"no worker", options{role: "worker"}, 0, "a worker under test needs -command or -listen"},
		{"no dialect", options{role: "worker", foreign: conformance.Foreign{At: "tcp://127.0.0.1:*"}}, 0, "a worker that you start needs -dialect"},
		{"no such script", options{ours: true, only: "rfc18/nothing"}, 0, "no script is selected"},
		{"no such role", options{ours: true, role: "king"}, 0, `role "king" is none of [broker worker client]`},
		{"no such dialect", options{ours: true, dialect: "pigato"}, 0, `dialect "pigato" is none of [mdp01 mdp02 omdp]`},
		{"no endpoint there", options{foreign: conformance.Foreign{Endpoint: "localhost:5555"}}, 0, `-endpoint "localhost:5555" is not like tcp://127.0.0.1:5555`},
		{"ours and another", options{ours: true, foreign: conformance.Foreign{Endpoint: "tcp://127.0.0.1:1"}}, 0, "-ours goes without -endpoint, -listen and -command"},
		{"a broker and a worker", options{role: "worker", dialect: "omdp", command: "true", foreign: conformance.Foreign{Endpoint: "tcp://127.0.0.1:1"}}, 0, "-endpoint is a broker's, and a worker is under test"},
		{"nothing can be run", options{foreign: conformance.Foreign{Endpoint: "tcp://127.0.0.1:1"}, only: "rfc18/broker-stop"}, 0, "no script was run"},
	} {
		t.Run(k.name, func(t *testing.T) {
			code, err := k.o.run(t.Context())
			if k.err == "" && err != nil || k.err != "" && (err == nil || !strings.HasPrefix(err.Error(), k.err)) {
				t.Errorf("got error %v, want %q", err, k.err)
			}
			if code != k.code {
				t.Errorf("got code %d, want %d", code, k.code)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	cut := options{ours: true, only: "omdp.protocol.notify", doc: filepath.Join(t.TempDir(), "cut.md")}
	if _, err := cut.run(ctx); err == nil || err.Error() != "interrupted: enough" {
		t.Errorf("interrupted: got %v", err)
	}
	if _, err := os.Stat(cut.doc); err == nil {
		t.Error("a checklist was written of a run that was interrupted")
	}
	text, err := os.ReadFile(doc)
	if err != nil || !strings.Contains(string(text), "\n| ✅ | omdp.protocol.notify | MAY |") || !strings.Contains(string(text), "\n| ⏳ | omdp.protocol.track | MAY |") {
		t.Errorf("got %v and %.300s", err, text)
	}
}
