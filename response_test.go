package omdp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// partials runs h for one request and returns the payloads of what it sent,
// the final's among them, last.
func partials(t *testing.T, extra string, config *WorkerConfig, h func(res *Response) error) []string {
	t.Helper()
	w := newTestWorker(t, func(_ context.Context, _ *Request, res *Response) error { return h(res) }, config)
	defer w.close()
	w.register()
	w.request("tok", `1`, extra)
	synctest.Wait()
	var all []string
	for _, m := range w.sent() {
		payload, ok := strings.CutPrefix(m, "W|6|tok|rid-tok|")
		if !ok {
			payload, ok = strings.CutPrefix(m, "W|3|tok|rid-tok|")
		}
		if !ok {
			t.Errorf("sent: %q", m)
		}
		all = append(all, payload)
	}
	return all
}

func js(v string) string { return `{"status":200,"msg":` + v + `}` }

func TestResponsePartials(t *testing.T) {
	null := js("null")
	for _, c := range []struct {
		name  string
		extra string
		chunk int
		h     func(res *Response) error
		want  []string
	}{
		{"Write is raw towards our clients", rawExtra, 0, func(res *Response) error {
			n, err := res.Write([]byte("foo"))
			if n != 3 {
				return fmt.Errorf("n = %d", n)
			}
			return err
		}, []string{"b|foo", null}},
		{"Write is a JSON string towards others", "", 0, func(res *Response) error {
			_, err := res.Write([]byte(`a "b"`))
			return err
		}, []string{js(`"a \"b\""`), null}},
		{"chunks", rawExtra, 4, func(res *Response) error {
			_, err := res.Write([]byte("abcdefghij"))
			return err
		}, []string{"b|abcd", "b|efgh", "b|ij", null}},
		{"chunks are cut between characters", "", 4, func(res *Response) error {
			_, err := res.WriteString("aéé日本")
			return err
		}, []string{js(`"aé"`), js(`"é"`), js(`"日"`), js(`"本"`), null}},
		{"a character cut by the writer", "", 0, func(res *Response) error {
			s := "x日y"
			for i := range len(s) {
				if n, err := res.Write([]byte{s[i]}); n != 1 || err != nil {
					return fmt.Errorf("n = %d, %w", n, err)
				}
			}
			return nil
		}, []string{js(`"x"`), js(`"日"`), js(`"y"`), null}},
		{"a character that never ends", "", 0, func(res *Response) error {
			_, err := res.Write([]byte("x\xe6\x97"))
			return err
		}, []string{js(`"x"`), js(`{"type":"Buffer","data":[230,151]}`), null}},
		{"Send after a cut character", "", 0, func(res *Response) error {
			res.Write([]byte("\xe6\x97"))
			return res.Send(1)
		}, []string{js(`{"type":"Buffer","data":[230,151]}`), js(`1`), null}},
		{"not UTF-8", "", 0, func(res *Response) error {
			_, err := res.Write([]byte("\xff\xe6"))
			return err
		}, []string{js(`{"type":"Buffer","data":[255,230]}`), null}},
		{"an empty Write sends nothing", rawExtra, 0, func(res *Response) error {
			n, err := res.Write(nil)
			if n != 0 {
				return fmt.Errorf("n = %d", n)
			}
			return err
		}, []string{null}},
		{"Send is one partial", rawExtra, 4, func(res *Response) error { return res.Send([]byte("abcdefghij")) }, []string{"b|abcdefghij", null}},
		{"Send of values", rawExtra, 0, func(res *Response) error {
			return errors.Join(res.Send(nil), res.Send("s"), res.Send(map[string]int{"a": 1}), res.Send(Message{}), res.Send([]byte(nil)),
				res.Send(Message{b: []byte("raw"), raw: true}), res.Send("<&>"))
		}, []string{null, js(`"s"`), js(`{"a":1}`), null, "b|", "b|raw", js(`"<&>"`), null}},
		{"what can't be encoded leaves the response open", rawExtra, 0, func(res *Response) error {
			if res.Send(func() {}) == nil || res.End([]byte{}) != nil {
				return errors.New("wrong")
			}
			return nil
		}, []string{"b|"}},
		{"a failed End may be followed by another", rawExtra, 0, func(res *Response) error {
			if res.End(func() {}) == nil {
				return errors.New("wrong")
			}
			return res.End("instead")
		}, []string{js(`"instead"`)}},
		{"ReadFrom", rawExtra, 4, func(res *Response) error {
			n, err := io.Copy(res, iotest.OneByteReader(strings.NewReader("abc")))
			if n != 3 {
				return fmt.Errorf("n = %d", n)
			}
			return err
		}, []string{"b|a", "b|b", "b|c", null}},
		{"ReadFrom of a reader that fails", rawExtra, 4, func(res *Response) error {
			n, err := res.ReadFrom(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))))
			return fmt.Errorf("%d bytes, then %w", n, err)
		}, []string{"b|a", `{"status":500,"msg":"1 bytes, then timeout"}`}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			got := partials(t, c.extra, &WorkerConfig{ChunkSize: c.chunk}, c.h)
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestResponseTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := bytes.Repeat([]byte("x"), 1025)
		got := partials(t, rawExtra, &WorkerConfig{MaxBody: 1024}, func(res *Response) error {
			checkIs(t, "Send", res.Send(big), ErrTooLarge)
			checkIs(t, "Send of a string that is too long encoded", res.Send(string(big[:1010])), ErrTooLarge)
			checkIs(t, "End", res.End(big), ErrTooLarge)
			_, err := res.Write(big) // in chunks
			return err
		})
		want := []string{"b|" + string(big[:1024]), "b|x", `{"status":500,"msg":"omdp: end response: data too large: 1025 bytes encoded, over MaxBody, 1024"}`}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		got = partials(t, rawExtra, &WorkerConfig{MaxBody: 1024}, func(res *Response) error { return errors.New(string(big)) })
		check(t, "error", got[0], `{"status":500,"msg":"the text of the error is too large"}`)
	})
}

// Escapes make six bytes of one: chunks of text keep under MaxBody all the same.
func TestResponseEscapedChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, text := range []string{strings.Repeat("\x01", 3000), strings.Repeat("\xff", 3000)} {
			got := partials(t, "", &WorkerConfig{MaxBody: 1024}, func(res *Response) error {
				_, err := res.WriteString(text)
				return err
			})
			var all []byte
			for _, p := range got[:len(got)-1] {
				if len(p) > 1024 {
					t.Errorf("a partial of %d bytes", len(p))
				}
				all = append(all, parseReply("echo", [][]byte{[]byte(p)}).msg.Bytes()...)
			}
			check(t, "text", string(all), text)
		}
	})
}

// Whatever is written, in whatever pieces, arrives; text as text.
func TestResponseWriteProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := []byte(rapid.String().Draw(rt, "text"))
		if rapid.Bool().Draw(rt, "binary") {
			text = rapid.SliceOf(rapid.Byte()).Draw(rt, "bytes")
		}
		extra := rapid.SampledFrom([]string{"", plainExtra, rawExtra}).Draw(rt, "extra")
		chunk := rapid.IntRange(4, 20).Draw(rt, "chunk")
		var writes [][]byte
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "n")
			writes, rest = append(writes, rest[:n]), rest[n:]
		}
		synctest.Test(t, func(t *testing.T) {
			got := partials(t, extra, &WorkerConfig{ChunkSize: chunk}, func(res *Response) error {
				for _, p := range writes {
					if k, err := res.Write(p); k != len(p) || err != nil {
						return fmt.Errorf("n = %d: %w", k, err)
					}
				}
				return nil
			})
			check(t, "final", got[len(got)-1], js("null"))
			var all []byte
			for _, p := range got[:len(got)-1] {
				frames := [][]byte{[]byte(p)}
				if raw, ok := strings.CutPrefix(p, "b|"); ok {
					frames = [][]byte{[]byte("b"), []byte(raw)}
				} else if utf8.Valid(text) && strings.Contains(p, "Buffer") {
					rt.Errorf("text as bytes: %q", p)
				}
				all = append(all, parseReply("echo", frames).msg.Bytes()...)
			}
			if !bytes.Equal(all, text) {
				rt.Errorf("got %q, want %q", all, text)
			}
		})
	})
}

// What goes into a JSON string as it is: valid UTF-8 without quotes,
// backslashes and control characters, at every length.
func TestPlainText(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := bytes.Repeat([]byte("x"), rapid.IntRange(0, 600).Draw(rt, "n"))
		for range rapid.IntRange(0, 2).Draw(rt, "odd") {
			if len(b) > 0 {
				b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] = rapid.SampledFrom([]byte("\"\\\x00\x1f\x20\x7f\x80\xc3\xff")).Draw(rt, "byte")
			}
		}
		want := utf8.Valid(b) && !bytes.ContainsAny(b, `"\`) && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' })
		if got := plainText(b); got != want {
			rt.Errorf("%q: got %v, want %v", b, got, want)
		}
	})
}

// A slow reader slows the handler that writes to it, and nothing else.
func TestResponseCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrote := make(chan int, 100)
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			if req.ID() == "rid-other" {
				return nil
			}
			for i := range 10 {
				if _, err := res.Write(make([]byte, 1024-partialOverhead)); err != nil {
					return err
				}
				wrote <- i
			}
			return nil
		}, &WorkerConfig{Concurrency: 2})
		defer w.close()
		w.register()
		w.request("slow", `1`, windowExtra) // 4 KiB
		synctest.Wait()
		check(t, "written without a CREDIT", len(wrote), 4)
		w.request("other", `1`, rawExtra)
		w.final("other")
		w.say("W", "9", "slow", "rid-slow", "1023")
		synctest.Wait()
		check(t, "written for less than a chunk", len(wrote), 4)
		w.say("W", "9", "slow", "rid-slow", "1")
		synctest.Wait()
		check(t, "written for a chunk", len(wrote), 5)
		w.say("W", "9", "slow", "rid-slow", "999999") // more than was sent is not believed
		synctest.Wait()
		check(t, "written for a lie", len(wrote), 9)
		w.say("W", "9", "slow", "rid-slow", "1024")
		w.final("slow") // waits for nobody
	})
}

func TestResponseCreditEdges(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *testWorker, res *Response)
		want error
	}{
		{"End by another goroutine", func(_ *testWorker, res *Response) { res.End("enough") }, ErrEnded},
		{"the client cancels", func(w *testWorker, _ *Response) { w.say("W", "10", "tok", "rid-tok", "client") }, ErrCanceled},
		{"the connection is cut", func(w *testWorker, _ *Response) { w.cut() }, ErrBrokerLost},
		{"the deadline passes", func(*testWorker, *Response) { pass(time.Minute) }, ErrTimeout},
	} {
		bubble(t, c.name, func(t *testing.T) {
			blocked, result := make(chan *Response), make(chan error)
			w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
				// A message over the window may go when nothing is on the way.
				if err := res.Send(make([]byte, 10_000)); err != nil {
					return err
				}
				blocked <- res
				err := res.Send(make([]byte, 10_000))
				result <- err
				return err
			}, nil)
			defer w.close()
			w.register()
			w.request("tok", `1`, windowExtra)
			res := <-blocked
			go func() {
				for range 24 {
					pass(2500 * time.Millisecond)
					w.say("W", "4")
				}
			}()
			synctest.Wait()
			c.do(w, res)
			checkIs(t, "Send", <-result, c.want)
			pass(time.Minute)
		})
	}
}

// Towards a client that grants no credit, a connection that takes nothing stops the writer.
func TestResponseBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote int
		var mu sync.Mutex
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			for {
				n, err := res.Write(make([]byte, 64<<10))
				if err != nil {
					return err
				}
				mu.Lock()
				wrote += n
				mu.Unlock()
			}
		}, nil)
		defer w.close()
		w.register()
		w.hold(true)
		w.request("tok", `1`, rawExtra)
		synctest.Wait()
		mu.Lock()
		if wrote < maxQueued || wrote > maxQueued+256<<10 {
			t.Errorf("wrote %d bytes into a connection that takes nothing, want about %d", wrote, maxQueued)
		}
		mu.Unlock()
		w.say("W", "10", "tok", "rid-tok", "client")
		synctest.Wait()
		w.hold(false)
		w.final("tok")
	})
}

// Writers take turns: what one call sends is contiguous.
func TestResponseManyWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := partials(t, rawExtra, &WorkerConfig{ChunkSize: 2}, func(res *Response) error {
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { res.Write(bytes.Repeat([]byte{byte('a' + i)}, 9)) })
			}
			wg.Wait()
			return nil
		})
		var all strings.Builder
		for _, p := range got[:len(got)-1] {
			all.WriteString(strings.TrimPrefix(p, "b|"))
		}
		check(t, "bytes", all.Len(), 180)
		for s := all.String(); s != ""; s = s[9:] {
			check(t, "one call's bytes", s[:9], strings.Repeat(s[:1], 9))
		}
	})
}

// `fs.createReadStream(data).pipe(response)`, the specification's example.
func TestResponseFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "data")
	want := bytes.Repeat([]byte{0, 1, 2, 255, 'x'}, 100_000)
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		got := partials(t, rawExtra, nil, func(res *Response) error {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(res, f)
			return err
		})
		var all []byte
		for _, p := range got[:len(got)-1] {
			if len(p) > 64<<10+2 {
				t.Errorf("a partial of %d bytes", len(p))
			}
			all = append(all, strings.TrimPrefix(p, "b|")...)
		}
		check(t, "the same bytes", bytes.Equal(all, want), true)
	})
}
