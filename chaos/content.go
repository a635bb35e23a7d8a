package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// What calls and replies carry. All of it follows from the call, the run of the
// handler and the place in the reply, so that whatever comes to the wrong call,
// twice or changed shows by its content.

// An order is the data of a call: what its handler is to do.
type order struct {
	Call     ident
	Partials int    // to send
	Size     int    // bytes of content in each reply
	Work     int    // µs to take, spread over the partials
	Deaf     int    // µs to go on for after the context ended
	Fail     bool   // end with an error
	Text     bool   // the final is a string, not bytes
	Fill     string // of the call, so that requests can't mix either
}

// requestIndex is the place of a request's own content.
const requestIndex = -2

// finalIndex is the place of a final in its frame; partials count from 0.
const finalIndex = -1

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// appendFill appends n printable bytes that nobody else has.
func appendFill(b []byte, call, run ident, index, n int) []byte {
	x := uint64(call.who)<<48 ^ uint64(call.life)<<32 ^ uint64(call.n)
	x ^= (uint64(run.who)<<48 ^ uint64(run.life)<<32 ^ uint64(run.n)) * 0x9E3779B97F4A7C15
	x ^= uint64(index+3) * 0xBF58476D1CE4E5B9
	for n > 0 {
		x += 0x9E3779B97F4A7C15 // splitmix64
		z := (x ^ x>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		for k := 0; k < 10 && n > 0; k++ {
			b = append(b, alphabet[z&63])
			z >>= 6
			n--
		}
	}
	return b
}

// A frame is one partial or final: CALL RUN INDEX COUNT SIZE\n and SIZE bytes.
type frame struct {
	call, run ident
	index     int // finalIndex: the final
	count     int // partials sent before it
}

func appendFrame(b []byte, f frame, size int) []byte {
	b = f.call.append(b)
	b = append(b, ' ')
	b = f.run.append(b)
	for _, v := range []int{f.index, f.count, size} {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(v), 10)
	}
	b = append(b, '\n')
	return appendFill(b, f.call, f.run, f.index, size)
}

// errShort says that a frame is not complete yet.
var errShort = errors.New("a frame that is not complete")

// maxHead is more than a frame's first line ever has.
const maxHead = 128

// parseFrame reads the frame at the start of b, and checks its content.
func parseFrame(b []byte) (f frame, rest []byte, err error) {
	head, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		if len(b) < maxHead {
			return frame{}, b, errShort
		}
		return frame{}, b, fmt.Errorf("no frame: %q", b[:maxHead])
	}
	fields := strings.Split(string(head), " ")
	if len(fields) != 5 {
		return frame{}, b, fmt.Errorf("no frame: %q", head)
	}
	var errs [5]error
	var size int
	f.call, errs[0] = parseIdent(fields[0])
	f.run, errs[1] = parseIdent(fields[1])
	f.index, errs[2] = strconv.Atoi(fields[2])
	f.count, errs[3] = strconv.Atoi(fields[3])
	size, errs[4] = strconv.Atoi(fields[4])
	if err := errors.Join(errs[:]...); err != nil || size < 0 {
		return frame{}, b, fmt.Errorf("no frame: %q: %w", head, err)
	}
	if len(rest) < size {
		return frame{}, b, errShort
	}
	if want := appendFill(nil, f.call, f.run, f.index, size); !bytes.Equal(rest[:size], want) {
		return f, b, fmt.Errorf("the content of frame %q is not its own: got %.40q, want %.40q", head, rest[:size], want)
	}
	return f, rest[size:], nil
}

// parseWhole reads a message that is exactly one frame.
func parseWhole(b []byte) (frame, error) {
	f, rest, err := parseFrame(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after a frame: %.40q", len(rest), rest)
	}
	return f, err
}
