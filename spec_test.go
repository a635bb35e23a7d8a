package omdp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// specification lists the sentences of zmq-omdp's README (commit 4f18192),
// spelled as they are there, in their order, each with the tests that hold it.
// Calls and events of the API stand as their headings and arguments do.
var specification = []struct {
	sentence string
	tests    []string
	notYet   string // why there is none
}{
	{"ZeroMQ Obsessive Majordomo Protocol: enhanced version of ZeroMQ Majordomo Protocol (MDP) v0.2 for Node.JS.", nil, "not done yet: peers that speak MDP v0.2 itself; the protocol below is"},

	// API
	{"All data sent through the API should be JSON serializable.", []string{"TestSpecData"}, ""},
	{"omdp.Worker(socket_str, service_name)", []string{"TestSpecWorker"}, ""},
	{`Workers recieve "request" events that contain 2 arguments.`, []string{"TestSpecWorker"}, ""},
	{"data - this is the value sent by a client for this request", []string{"TestSpecWorker", "TestSpecData"}, ""},
	{"response - this is a writable stream to send data to the client", []string{"TestSpecResponseIsAWriter"}, ""},
	{"Take note: due to the framing protocol of zmq only the data supplied to response.end(data) will be given to the client's final callback.", []string{"TestSpecOnlyEndReachesTheFinal"}, ""},
	{"worker.on('request', function (data, response) { fs.createReadStream(data).pipe(response); });", []string{"TestSpecPipesAFile"}, ""},
	{"omdp.Client(socket_str)", []string{"TestSpecRequest"}, ""},
	{"Clients may make simple requests using client.request(...) with 4 arguments.", []string{"TestSpecRequest"}, ""},
	{"serviceName - name of the service we wish to connect to", []string{"TestSpecRequest"}, ""},
	{"data - data to give to the service", []string{"TestSpecRequest"}, ""},
	{"partialCallback(data) - called whenever the request does not end but emits data", []string{"TestSpecRequest"}, ""},
	{"finalCallback(err, data) - called when the request will emit no more data", []string{"TestSpecRequest"}, ""},
	{"client.request('echo', 'data', function (data) { … }, function (err, data) { … });", []string{"TestSpecRequest"}, ""},
	{"Clients may also make streaming request using client.requestStream() with 2 arguments.", []string{"TestSpecRequestStream"}, ""},
	{"client.requestStream('echo', 'data').pipe(process.stdout);", []string{"TestSpecRequestStream"}, ""},
	{"omdp.Broker(socket_str)", []string{"TestSpecBroker"}, ""},
	{"Simply starts up a broker.", []string{"TestSpecBroker"}, ""},
	// Ours need not: any order will do.
	{"Take note: when using a inproc socket the broker *must* become active before any queued messages.", []string{"TestAnyStartOrder"}, ""},

	// Features
	{"Compatibility with MDP protocol v0.2 .", nil, "not done yet"},
	{"Support for partial replies.", []string{"TestSpecPartialReplies", "TestSpecRequest"}, ""},
	{"Client multi-request support.", []string{"TestSpecMultiRequest", "TestManyCallers"}, ""},
	{"Client heartbeating for active requests.", []string{"TestSpecClientHeartbeats"}, ""},
	{"Allows Workers to dected whenever Clients disconnect or lose interest in some request.", []string{"TestSpecWorkerIsFreedForNewTasks", "TestClientLeaves", "TestClientKilled"}, ""},
	{"This feature is very useful to stop long-running partial requests (i.e data streaming) allowing Worker to be requeued by the Broker for new tasks.", []string{"TestSpecWorkerIsFreedForNewTasks"}, ""},
	{"Worker / Broker heartbeating for active / in-progress requests.", []string{"TestSpecWorkerRequestHeartbeats"}, ""},
	{"Allow Clients to detect whenever a Worker quits or dies while processing a Client request.", []string{"TestWorkerClosed", "TestWorkerKilled", "TestWorkerStopped", "TestWorkerVanishes", "TestWorkerHangs"}, ""},

	// Protocol
	{"Worker <-> Broker heartbeating.", []string{"TestSpecWorkerBrokerHeartbeats", "TestBrokerSilent", "TestWorkerStopped"}, ""},
	{"Broker MAY track Worker/Client/Request relation.", []string{"TestSpecBrokerTracksRelations", "TestRawSameRequestIDs", "TestRawWorkerAnswersOnlyWhatItHolds"}, ""},
	{"Broker MAY notify Client on Request dispatch to Worker.", []string{"TestSpecDispatchIsNotified"}, ""},
	{"Client MAY send heartbeat for active request.", []string{"TestSpecClientHeartbeats"}, ""},
	{"If the request is being processed by Worker, Broker forwards heartbeat to Worker.", []string{"TestSpecClientHeartbeats"}, ""},
	{"Worker MAY decide to stop an inactive Request (tracks liveness for Request).", []string{"TestWorkerContextEnds", "TestClientLeaves"}, ""},
	{"Worker MAY send heartbeat for active request.", []string{"TestSpecWorkerRequestHeartbeats"}, ""},
	{"Broker forwards heartbeat to Client.", []string{"TestSpecWorkerRequestHeartbeats"}, ""},
	{"Client MAY assign a timeout to a Request.", []string{"TestSpecTimeout", "TestDeadlineAfterDispatch"}, ""},
	{"Broker MAY decide to drop expired Requests (client timeout reached).", []string{"TestSpecExpiredIsDropped"}, ""},
	{"Client MAY decide to timeout an inactive Request (tracks liveness for Request).", []string{"TestClientForeignWorkerSilent", "TestSpecInactiveRequest", "TestWorkerHangs"}, ""},
	{"Worker SHALL NOT send more W_REPLY (for a Request) after sending first W_REPLY message.", []string{"TestSpecOneReply", "TestRawStaleAnswers"}, ""},
	// It means the worker.
	{"Broker SHALL force disconnect Broker if any error occurs.", []string{"TestRawWorkerBreaches", "TestRawBeforeReady", "TestRawWorkerAnswersOnlyWhatItHolds"}, ""},

	// Roadmap
	{"Add authentication support through zmq-zap ZeroMQ ZAP to trust Clients and Workers.", nil, "not done yet"},
}

// Every sentence has a test or is said to have none, and every test named is there.
func TestSpecificationIsCovered(t *testing.T) {
	exists, named := map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				exists[f.Name.Name] = true
			}
		}
	}
	for _, s := range specification {
		if (len(s.tests) == 0) == (s.notYet == "") {
			t.Errorf("%q: got tests %q and reason %q, want one of the two", s.sentence, s.tests, s.notYet)
		}
		for _, name := range s.tests {
			named[name] = true
			if !exists[name] {
				t.Errorf("%q: there is no %s", s.sentence, name)
			}
		}
	}
	for name := range exists {
		if strings.HasPrefix(name, "TestSpec") && name != "TestSpecificationIsCovered" && !named[name] {
			t.Errorf("%s is not in the list", name)
		}
	}
}

// "All data sent through the API should be JSON serializable."
func TestSpecData(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 2}, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			var v any
			if err := req.Decode(&v); err != nil {
				return err
			}
			if err := res.Send(v); err != nil { // decoded and encoded anew
				return err
			}
			return res.End(req.Message()) // verbatim
		})
		c := addClient(t, b, nil)
		for _, v := range []any{
			nil, true, false, 0, -1, 1.5, 1e300, "", "data", "née \u2028 <&> \"quoted\" \\ \x00 😀", []int{}, []any{1, "two", nil},
			map[string]any{"a": map[string]any{"b": []any{}}}, struct{ A, B int }{1, 2}, json.RawMessage(`{"verbatim": [1, 2]}`),
			strings.Repeat("long ", 1<<16), json.RawMessage(strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
		} {
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			var got []json.RawMessage
			done := make(chan error, 1)
			err = c.Request(within(t), "echo", v, func(m omdp.Message) { got = append(got, m.JSON()) }, func(m omdp.Message, err error) {
				got = append(got, m.JSON())
				done <- err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := receive(t, "the final", done); err != nil {
				t.Errorf("%.40s: %v", want, err)
			}
			if len(got) != 2 {
				t.Fatalf("%.40s: got %d values, want 2", want, len(got))
			}
			for _, g := range got {
				var have, sent any
				if err := errors.Join(json.Unmarshal(g, &have), json.Unmarshal(want, &sent)); err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(have) != fmt.Sprint(sent) {
					t.Errorf("got %.80s, want %.80s", g, want)
				}
			}
		}
		_, err := c.Call(within(t), "echo", make(chan int))
		if err == nil || omdp.OutcomeOf(err) != omdp.NotSent {
			t.Errorf("a channel: got %v, want an error and nothing sent", err)
		}
	})
}

// "omdp.Worker(socket_str, service_name)": `Workers recieve "request" events
// that contain 2 arguments.` "data - this is the value sent by a client for
// this request"
func TestSpecWorker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		got := make(chan *omdp.Request, 1)
		w, err := omdp.NewWorker(b.Endpoint(), "service", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		err = w.OnRequest(func(_ context.Context, data *omdp.Request, response *omdp.Response) error {
			got <- data
			return response.End("thanks")
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		c := addClient(t, b, nil)
		if m := call(t, c, "service", map[string]int{"n": 7}); m != "thanks" {
			t.Errorf("got %q, want thanks", m)
		}
		req := receive(t, "the request", got)
		var v struct{ N int }
		if err := req.Decode(&v); err != nil || v.N != 7 {
			t.Errorf("got %+v, %v; want 7", v, err)
		}
		if req.Service() != "service" || req.ID() == "" || req.Attempt() != 1 {
			t.Errorf("got service %q, id %q, attempt %d", req.Service(), req.ID(), req.Attempt())
		}
		if at, ok := req.Deadline(); !ok || time.Until(at) > time.Minute {
			t.Errorf("got deadline %v, %v; want one within a minute", at, ok)
		}
	})
}

// "response - this is a writable stream to send data to the client"
func TestSpecResponseIsAWriter(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "write", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			var _ interface {
				io.Writer
				io.StringWriter
				io.ReaderFrom
				io.Closer
			} = res
			fmt.Fprint(res, "one,")
			io.WriteString(res, "two,")
			io.Copy(res, strings.NewReader("three,"))
			res.Send("four")
			return res.Close()
		})
		got, err := io.ReadAll(addClient(t, b, nil).RequestStream(within(t), "write", nil))
		if want := "one,two,three,four"; err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	})
}

// "Take note: due to the framing protocol of zmq only the data supplied to
// response.end(data) will be given to the client's final callback."
func TestSpecOnlyEndReachesTheFinal(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "end", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			fmt.Fprint(res, "written")
			if string(req.Bytes()) == "value" {
				return res.End("ended")
			}
			return nil // End(nil): Node's revision sent nothing then
		})
		c := addClient(t, b, nil)
		if got := call(t, c, "end", "value"); got != "ended" {
			t.Errorf("got %q, want ended", got)
		}
		m, err := c.Call(within(t), "end", "nothing")
		if err != nil || !m.IsNull() {
			t.Errorf("got %q, %v; want null", m, err)
		}
	})
}

// worker.on('request', function (data, response) {
// fs.createReadStream(data).pipe(response); });
func TestSpecPipesAFile(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		want := bytes.Repeat([]byte("0123456789\xff\x00\n"), 100_000)
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "file", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			f, err := os.Open(string(req.Bytes()))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(res, f)
			return err
		})
		c := addClient(t, b, nil)
		got, err := io.ReadAll(c.RequestStream(within(t), "file", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; want the file's %d", len(got), err, len(want))
		}
		_, err = io.ReadAll(c.RequestStream(within(t), "file", name+"-missing"))
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "500" {
			t.Errorf("got %v, want the handler's error", err)
		}
	})
}

// "omdp.Client(socket_str)": "Clients may make simple requests using
// client.request(...) with 4 arguments." "serviceName - name of the service we
// wish to connect to" "data - data to give to the service"
// "partialCallback(data) - called whenever the request does not end but emits
// data" "finalCallback(err, data) - called when the request will emit no more
// data"
func TestSpecRequest(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			for range 3 {
				res.Write(req.Bytes())
			}
			if string(req.Bytes()) == "fail" {
				return errors.New("failed")
			}
			return res.End(req.Message())
		})
		c := addClient(t, b, nil)
		for data, want := range map[string]string{"data": "partial data,partial data,partial data,final data", "fail": "partial fail,partial fail,partial fail,error 500: failed"} {
			var mu sync.Mutex
			var got []string
			note := func(s string) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, s)
			}
			done := make(chan struct{})
			err := c.Request(within(t), "echo", data, func(m omdp.Message) {
				note("partial " + m.String())
			}, func(m omdp.Message, err error) {
				if e, ok := errors.AsType[*omdp.Error](err); ok {
					note("error " + e.Code + ": " + e.Message)
				} else {
					note("final " + m.String())
				}
				close(done)
			})
			if err != nil {
				t.Fatal(err)
			}
			receive(t, "the final callback", done)
			served(t, c, "echo") // nothing comes after it
			mu.Lock()
			if got := strings.Join(got, ","); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			mu.Unlock()
		}
		if err := c.Request(within(t), "echo", "x", nil, nil); err != nil { // both may be missing
			t.Error(err)
		}
	})
}

// "Clients may also make streaming request using client.requestStream() with 2
// arguments." client.requestStream('echo', 'data').pipe(process.stdout);
func TestSpecRequestStream(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			res.Write(req.Bytes())
			res.Send(map[string]int{"n": 1})
			return res.End(req.Message())
		})
		c := addClient(t, b, nil)
		var stdout bytes.Buffer
		n, err := io.Copy(&stdout, c.RequestStream(within(t), "echo", "data"))
		if want := `data{"n":1}data`; err != nil || stdout.String() != want || n != int64(len(want)) {
			t.Errorf("got %q, %d, %v; want %q", stdout.String(), n, err, want)
		}
	})
}

// "omdp.Broker(socket_str)": "Simply starts up a broker."
func TestSpecBroker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b, err := omdp.NewBroker(newEndpoint(t, transport), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		p := dialRaw(t, b.Endpoint()) // it serves when Start returns
		p.quiet(t)
	})
}

// "Support for partial replies."
func TestSpecPartialReplies(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		const n = 2000
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "count", &omdp.WorkerConfig{Concurrency: 4}, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			for i := range n {
				if err := res.Send(i); err != nil {
					return err
				}
			}
			return res.End("end")
		})
		c := addClient(t, b, nil)
		done := make(chan error, 4)
		for range 4 { // each in order, without a gap, on one connection
			go func() {
				i := 0
				for m, err := range c.RequestStream(within(t), "count", nil).All() {
					want := fmt.Sprint(i)
					if i == n {
						want = "end"
					}
					if err != nil || m.String() != want {
						done <- fmt.Errorf("message %d: got %q, %w", i, m, err)
						return
					}
					i++
				}
				if i != n+1 {
					done <- fmt.Errorf("got %d messages, want %d", i, n+1)
				}
				done <- nil
			}()
		}
		for range 4 {
			if err := receive(t, "a stream's end", done); err != nil {
				t.Error(err)
			}
		}
	})
}

// "Client multi-request support."
func TestSpecMultiRequest(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "slow", nil, h.handle)
		addWorker(t, b, "fast", nil, echo)
		c := addClient(t, b, nil)
		slow := []<-chan result{goCall(t, c, "slow", "a"), goCall(t, c, "slow", "b")}
		receive(t, "a slow request", h.began)
		for range 10 {
			served(t, c, "fast") // overtakes
		}
		close(h.free)
		for i, r := range slow {
			if r, want := receive(t, "a slow answer", r), string("ab"[i]); r != (result{want, nil}) {
				t.Errorf("got %v, want %s", r, want)
			}
		}
	})
}

// "Client heartbeating for active requests." "Client MAY send heartbeat for
// active request." "If the request is being processed by Worker, Broker
// forwards heartbeat to Worker."
func TestSpecClientHeartbeats(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		c, queued := addClient(t, b, nil), dialRaw(t, b.Endpoint())
		defer c.RequestStream(t.Context(), "echo", "x").Close()
		m := w.next(t)
		for range 3 {
			w.want(t, "W|4|"+m[2]+"|"+m[3]) // by itself, every Heartbeat
		}
		// One that is not being processed yet is not forwarded.
		queued.say(`C|2|echo|1|"y"|{}`)
		queued.say("C|4|1")
		queued.quiet(t)
		for _, got := range w.beaten(t) {
			if got != "W|4|"+m[2]+"|"+m[3] {
				t.Errorf("got %s, want heartbeats of the other request alone", got)
			}
		}
	})
}

// "Allows Workers to dected whenever Clients disconnect or lose interest in
// some request. This feature is very useful to stop long-running partial
// requests (i.e data streaming) allowing Worker to be requeued by the Broker
// for new tasks."
func TestSpecWorkerIsFreedForNewTasks(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		stopped := make(chan error, 1)
		addWorker(t, b, "stream", nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			if string(req.Bytes()) == "new task" {
				return res.End("done")
			}
			for res.Active() {
				if err := res.Send("data"); err != nil {
					break
				}
			}
			stopped <- context.Cause(ctx)
			return nil
		})
		for name, leave := range map[string]func(c *omdp.Client, s *omdp.Stream){
			"disconnect":    func(c *omdp.Client, s *omdp.Stream) { c.Close() },
			"lose interest": func(c *omdp.Client, s *omdp.Stream) { s.Close() },
		} {
			c := addClient(t, b, nil)
			s := c.RequestStream(t.Context(), "stream", "for ever")
			if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			leave(c, s)
			if err := receive(t, name+": the handler's end", stopped); !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("%s: got cause %v, want ErrCanceled", name, err)
			}
			if got := call(t, addClient(t, b, nil), "stream", "new task"); got != "done" {
				t.Errorf("got %q, want done", got)
			}
		}
	})
}

// "Worker / Broker heartbeating for active / in-progress requests." "Worker
// MAY send heartbeat for active request. Broker forwards heartbeat to Client."
func TestSpecWorkerRequestHeartbeats(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			res.Heartbeat() // and then by itself, every Heartbeat
			return h.handle(ctx, req, res)
		})
		c := dialRaw(t, b.Endpoint())
		c.say(`C|2|echo|1|"x"|{}`)
		for range 5 {
			c.want(t, "C|4|1")
		}
		close(h.free)
		c.after(t, "C|4|1", `C|3|1|{"status":200,"msg":"x"}`)
		c.quiet(t) // none after the final
	})
}

// "Worker <-> Broker heartbeating."
func TestSpecWorkerBrokerHeartbeats(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		p := dialRaw(t, b.Endpoint())
		p.say("W|1|echo")
		for range 3 {
			if got := strings.Join(receive(t, "a heartbeat", p.in), "|"); got != "W|4" {
				t.Errorf("got %s, want W|4", got)
			}
		}
		fake := bindRaw(t, newEndpoint(t, transport))
		w := startWorker(t, fake.endpoint, "echo", &omdp.WorkerConfig{Liveness: brief}, echo)
		m := fake.next(t, "W", "1")
		fake.send(m[0], "W", "8", `{"v":1,"id":"fake","hb":50}`)
		ready(t, w)
		for range 3 {
			if got := fake.next(t, "W", "4"); got[0] != m[0] || len(got) != 3 {
				t.Errorf("got %q, want W|4", got)
			}
		}
		// A broker that is silent is lost: the worker registers on a fresh connection.
		if again := fake.next(t, "W", "1"); again[0] == m[0] {
			t.Errorf("registered again as %q, want a fresh identity", m[0])
		}
	})
}
