package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// The delayed link: what one stream makes of a link that carries so much and
// takes its time, against what plain TCP makes of the same.

// counter counts what is written to it, by chunks, for a load.
type counter struct {
	l    *load
	n    int64 // chunks
	part int
}

var errOver = errors.New("the measured time is over")

func (c *counter) Write(p []byte) (int, error) {
	for c.part += len(p); c.part >= c.l.Size; c.part -= c.l.Size {
		c.n++
		if !c.l.done(c.n, c.l.now(), nil) {
			return 0, errOver
		}
	}
	return len(p), nil
}

// flow reads one stream, which the worker would go on with for ever.
func (c *omdpClient) flow(l *load) error {
	l.begin()
	s := c.c.RequestStream(context.Background(), l.service(0), c.data)
	defer s.Close()
	if _, err := io.Copy(&counter{l: l}, s); !errors.Is(err, errOver) {
		return fmt.Errorf("the stream ended before its time: %v", err)
	}
	return l.err()
}

// tcpStack is no stack but what a link carries: who connects is sent bytes
// without an end. It has no worker.
type tcpStack struct{}

func init() { stacks["tcp"] = tcpStack{} }

func (tcpStack) broker(w work) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, w.Size); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "tcp://" + l.Addr().String(), nil
}

func (tcpStack) worker(work) error { return nil }

func (tcpStack) dial(w work) (client, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(w.Endpoint, "tcp://"))
	return &tcpClient{c}, err
}

type tcpClient struct{ c net.Conn }

var errTCP = errors.New("tcp only carries one stream")

func (*tcpClient) call(string) error    { return errTCP }
func (*tcpClient) pipeline(*load) error { return errTCP }

func (c *tcpClient) flow(l *load) error {
	l.begin()
	defer c.c.Close()
	// Not through ReaderFrom or WriterTo, which would not count.
	buf := make([]byte, chunk)
	if _, err := io.CopyBuffer(&counter{l: l}, struct{ io.Reader }{c.c}, buf); !errors.Is(err, errOver) {
		return fmt.Errorf("the link ended before its time: %v", err)
	}
	return l.err()
}

var _, _ flower = (*omdpClient)(nil), (*tcpClient)(nil)
