package omdp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp"
)

// A function that gives its reply piece by piece, and a client that ranges over it.
func ExampleStreamJSON() {
	const endpoint = "inproc://example-stream-json"
	type span struct{ From, To int }
	defer broker(endpoint).Close()
	defer worker(endpoint, "squares", omdp.StreamJSON(func(ctx context.Context, in span) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for n := in.From; n < in.To; n++ {
				if !yield(n*n, nil) {
					return // the client has enough, or is gone
				}
			}
		}
	})).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "squares", span{3, 1_000_000})
	for n, err := range omdp.RangeJSON[int](s) {
		if err != nil {
			log.Fatal(err)
		}
		if n > 40 {
			break // cancels the request
		}
		fmt.Println(n)
	}
	// Output:
	// 9
	// 16
	// 25
	// 36
}

// A worker that stops in the middle is not waited for until the whole timeout.
func ExampleWithIdleTimeout() {
	const endpoint = "inproc://example-idle-timeout"
	defer broker(endpoint).Close()
	defer worker(endpoint, "stops", func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		if err := res.Send("so far"); err != nil {
			return err
		}
		<-ctx.Done() // it hangs
		return context.Cause(ctx)
	}).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "stops", nil, omdp.WithTimeout(time.Hour), omdp.WithIdleTimeout(50*time.Millisecond))
	for m, err := range s.All() {
		fmt.Printf("%q %v\n", m, errors.Is(err, omdp.ErrTimeout))
	}
	// Output:
	// "so far" false
	// "" true
}

// lines sends what it is asked for line by line.
func lines(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	var n int
	if err := req.Decode(&n); err != nil {
		return err
	}
	for i := range n {
		if _, err := fmt.Fprintf(res, "line %d\n", i); err != nil {
			return err
		}
	}
	return nil
}

func ExampleStream_scanner() {
	const endpoint = "inproc://example-scanner"
	defer broker(endpoint).Close()
	defer worker(endpoint, "lines", lines).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "lines", 3)
	defer s.Close()
	scan := bufio.NewScanner(s)
	for scan.Scan() {
		fmt.Println(scan.Text())
	}
	fmt.Println(scan.Err())
	// Output:
	// line 0
	// line 1
	// line 2
	// <nil>
}

// A web server passes a reply on as it comes. When the browser goes, its
// request's context ends, and with it the handler in the worker.
func ExampleStream_http() {
	const endpoint = "inproc://example-http"
	defer broker(endpoint).Close()
	defer worker(endpoint, "lines", lines).Close()
	c := client(endpoint)
	defer c.Close()

	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := c.RequestStream(r.Context(), "lines", 2)
		defer s.Close()
		flush := http.NewResponseController(w)
		for m, err := range s.All() {
			if err != nil {
				panic(http.ErrAbortHandler) // the header is out: the browser sees a reply that was cut off
			}
			if _, err := w.Write(m.Bytes()); err != nil {
				return
			}
			_ = flush.Flush()
		}
	}))
	defer web.Close()

	r, err := http.Get(web.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	fmt.Printf("%q %v\n", b, err)
	// Output: "line 0\nline 1\n" <nil>
}

// What wants to write into a reader's hands is given a pipe: the reply is read
// only as fast as the other end of it.
func ExampleStream_pipe() {
	const endpoint = "inproc://example-pipe"
	defer broker(endpoint).Close()
	defer worker(endpoint, "lines", lines).Close()
	c := client(endpoint)
	defer c.Close()

	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, c.RequestStream(context.Background(), "lines", 2))
		w.CloseWithError(err) // nil is the good end
	}()
	var b strings.Builder
	_, err := io.Copy(&b, r)
	fmt.Printf("%q %v\n", b.String(), err)
	// Output: "line 0\nline 1\n" <nil>
}

// A handler that would rather skip what is stale than wait for a slow reader.
func ExampleResponse_Room() {
	const endpoint = "inproc://example-room"
	defer broker(endpoint).Close()
	defer worker(endpoint, "prices", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		for price := range 3 {
			if res.Room() < 1<<10 {
				continue // the next one will do
			}
			if err := res.Send(price); err != nil {
				return err
			}
		}
		return nil
	}).Close()
	c := client(endpoint)
	defer c.Close()

	for price, err := range omdp.RangeJSON[int](c.RequestStream(context.Background(), "prices", nil)) {
		fmt.Println(price, err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
}
