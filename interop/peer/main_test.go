package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// start plays a role until the test ends and returns what follows "ready".
func start(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var log bytes.Buffer
	done := make(chan error, 1)
	go func() {
		err := run(ctx, args, nil, w, &log)
		w.CloseWithError(io.EOF)
		done <- err
	}()
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	rest := make(chan struct{})
	go func() {
		io.Copy(io.Discard, lines)
		close(rest)
	}()
	t.Cleanup(func() {
		cancel()
		<-rest
		if err := <-done; err != nil || t.Failed() {
			t.Errorf("peer %q: %v\n%s", args, err, log.String())
		}
	})
	word, rest1, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || word != "ready" {
		t.Fatalf("peer %q said %q, %v; want ready", args, line, err)
	}
	return rest1
}

func TestPeer(t *testing.T) {
	endpoint := start(t, "broker", "-endpoint", "tcp://127.0.0.1:*", "-listen", "omdp=tcp://127.0.0.1:*")
	first, second, _ := strings.Cut(endpoint, " ")
	start(t, "worker", "-endpoint", first, "-service", "echo")
	for args, want := range map[string]string{
		`-data {"a":[1,null]}`:               "final {\"a\":[1,null]}\n",
		`-data "x" -count 2`:                 "final \"x\"\nfinal \"x\"\ndone 2\n",
		`-data "fail" -count 1`:              "error {\"status\":418,\"msg\":\"TEAPOT\"}\ndone 0\n",
		`-data "partials"`:                   "partial \"partials-0\"\npartial \"partials-1\"\npartial \"partials-2\"\nfinal \"partials-final\"\n",
		`-data "hold" -timeout 50`:           "error \"TIMEOUT\"\n",
		`-stdin`:                             "final 1\nend\nfinal 2\ndone 1\nend\n",
		`-data 1 -service other -timeout 50`: "error \"TIMEOUT\"\n",
	} {
		var out, log bytes.Buffer
		in := strings.NewReader("{\"data\":[\"1\"]}\n{\"data\":[\"2\"],\"count\":1}\n")
		err := run(t.Context(), append([]string{"client", "-endpoint", second, "-service", "echo"}, strings.Fields(args)...), in, &out, &log)
		if err != nil || out.String() != want {
			t.Errorf("%s printed %q, %v; want %q\n%s", args, out.String(), err, want, log.String())
		}
	}
}

func TestPeerUsage(t *testing.T) {
	for _, args := range []string{"", "other -endpoint tcp://127.0.0.1:1", "worker -endpoint tcp://127.0.0.1:1", "broker", "broker -endpoint x -nonsense", "client -endpoint tcp://127.0.0.1:1 -service x more"} {
		if err := run(t.Context(), strings.Fields(args), nil, io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want %v", args, err, errUsage)
		}
	}
}
