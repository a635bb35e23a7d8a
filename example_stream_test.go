package omdp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/zmq-omdp/omdp"
)

func ExampleResponse_ReadFrom() {
	const endpoint = "inproc://example-read-from"
	defer broker(endpoint).Close()
	defer worker(endpoint, "file", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		file := strings.NewReader("all that the file holds")
		n, err := res.ReadFrom(file) // what io.Copy(res, file) calls
		if err != nil {
			return err // the client left, or the file could not be read
		}
		return res.End(map[string]int64{"size": n})
	}).Close()
	c := client(endpoint)
	defer c.Close()

	for m, err := range c.RequestStream(context.Background(), "file", nil).All() {
		fmt.Println(m, err)
	}
	// Output:
	// all that the file holds <nil>
	// {"size":23} <nil>
}

func ExampleStream_WriteTo() {
	const endpoint = "inproc://example-write-to"
	defer broker(endpoint).Close()
	defer worker(endpoint, "shout", shout).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "shout", "hello world")
	var b strings.Builder
	n, err := s.WriteTo(&b) // what io.Copy(&b, s) calls
	fmt.Printf("%q, %d bytes, %v\n", b.String(), n, err)
	// Output: "HELLO\nWORLD\n", 12 bytes, <nil>
}

// A Stream is an io.Reader: whatever reads one reads the reply.
func ExampleStream_Read() {
	const endpoint = "inproc://example-stream-read"
	type step struct{ N int }
	defer broker(endpoint).Close()
	defer worker(endpoint, "steps", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		e := json.NewEncoder(res) // calls Response.Write
		for n := range 3 {
			if err := e.Encode(step{n}); err != nil {
				return err
			}
		}
		_, err := res.Write([]byte(`{"N":99}`))
		return err
	}).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "steps", nil)
	defer s.Close() // cancels the request if it has not ended
	first := make([]byte, len(`{"N":0}`))
	if _, err := s.Read(first); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", first)
	d := json.NewDecoder(s)
	for {
		var v step
		err := d.Decode(&v)
		if err == io.EOF { // only after a good final
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(v.N)
	}
	// Output:
	// {"N":0}
	// 1
	// 2
	// 99
}

// A reader that is slow slows its worker. By default the worker may be 256 KiB
// ahead of it.
func ExampleWithWindow() {
	const endpoint = "inproc://example-with-window"
	defer broker(endpoint).Close()
	defer worker(endpoint, "lines", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		for n := range 1000 {
			if _, err := fmt.Fprintf(res, "line %d\n", n); err != nil { // waits while the window is full
				return err
			}
		}
		return nil
	}).Close()
	c := client(endpoint)
	defer c.Close()

	s := c.RequestStream(context.Background(), "lines", nil, omdp.WithWindow(4<<10))
	n, err := io.Copy(io.Discard, s)
	fmt.Println(n, "bytes", err)
	// Output: 8890 bytes <nil>
}

// A Message is one value as it crossed the wire; it may be kept.
func ExampleMessage() {
	const endpoint = "inproc://example-message"
	defer broker(endpoint).Close()
	defer worker(endpoint, "values", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		for _, v := range []any{"text", []byte("\x00\xff"), 1.5, []string{"a", "b"}, nil} {
			if err := res.Send(v); err != nil {
				return err
			}
		}
		return nil
	}).Close()
	c := client(endpoint)
	defer c.Close()

	for m, err := range c.RequestStream(context.Background(), "values", nil).All() {
		if err != nil {
			log.Fatal(err)
		}
		if m.IsNull() {
			fmt.Println("null")
			continue
		}
		fmt.Printf("content %q, as JSON %s, %d bytes on the wire\n", m.Bytes(), m.JSON(), m.Len())
	}
	// Output:
	// content "text", as JSON "text", 6 bytes on the wire
	// content "\x00\xff", as JSON {"type":"Buffer","data":[0,255]}, 2 bytes on the wire
	// content "1.5", as JSON 1.5, 3 bytes on the wire
	// content "[\"a\",\"b\"]", as JSON ["a","b"], 9 bytes on the wire
	// null
}
