package omdp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zmq-omdp/omdp"
)

// count is a handler that reads what is uploaded, and says what it found so far.
func count(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	lines := 0
	for s := bufio.NewScanner(req.Body()); s.Scan(); {
		lines++
		fmt.Fprintf(res, "%s %d: %s\n", req.Bytes(), lines, s.Text())
	}
	return nil
}

// Both ways at once: what is written is read by the handler as it comes.
func ExampleClient_OpenStream() {
	const endpoint = "inproc://example-open-stream"
	defer broker(endpoint).Close()
	defer worker(endpoint, "count", count).Close()
	c := client(endpoint)
	defer c.Close()

	d := c.OpenStream(context.Background(), "count", "line")
	answers := bufio.NewScanner(d)
	for _, text := range []string{"one", "two"} {
		fmt.Fprintln(d, text)
		answers.Scan()
		fmt.Println(answers.Text())
	}
	fmt.Println(d.CloseWrite())
	fmt.Println(answers.Scan(), answers.Err())
	// Output:
	// line 1: one
	// line 2: two
	// <nil>
	// false <nil>
}

// A file goes up by io.Copy, and the answer comes when it has arrived.
func ExampleDuplex_ReadFrom() {
	const endpoint = "inproc://example-upload"
	defer broker(endpoint).Close()
	defer worker(endpoint, "size", func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		n, err := io.Copy(io.Discard, req.Body())
		if err != nil {
			return err // the client gave up, or is lost
		}
		return res.End(n)
	}).Close()
	c := client(endpoint)
	defer c.Close()

	d := c.OpenStream(context.Background(), "size", map[string]string{"name": "file"})
	defer d.Close()
	n, err := d.ReadFrom(strings.NewReader("all that the file holds")) // what io.Copy(d, file) calls
	if err == nil {
		err = d.CloseWrite()
	}
	answer, rerr := io.ReadAll(d)
	fmt.Println(n, string(answer), err, rerr)
	// Output: 23 23 <nil> <nil>
}

// Write waits while the handler is behind, and fails when it has ended.
func ExampleDuplex_Write() {
	const endpoint = "inproc://example-upload-refused"
	defer broker(endpoint).Close()
	defer worker(endpoint, "full", func(context.Context, *omdp.Request, *omdp.Response) error {
		return &omdp.Error{Code: "507", Message: "no space"}
	}).Close()
	c := client(endpoint)
	defer c.Close()

	d := c.OpenStream(context.Background(), "full", nil)
	defer d.Close()
	var err error
	for err == nil {
		_, err = d.Write(make([]byte, 1024))
	}
	fmt.Println(err)
	switch {
	case errors.Is(err, omdp.ErrUnsupported): // a broker or worker of another make
	case errors.Is(err, omdp.ErrEnded): // the handler has answered without reading on
	}
	// Output: omdp: service full: 507: no space
}
