package omdp

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The recordings the other way round: our client and our worker in the place of
// the recorded ones, told at its times what the recorded broker said.

// said is what a recorded reply gives a user: "partial JSON", "final JSON" or "error".
func (r *record) said() string {
	f := r.Frames
	word := map[string]string{"3": "final", "6": "partial"}[f[1]]
	if f[0] == "W" { // the client's address
		f = slices.Delete(slices.Clone(f), 2, 3)
	}
	body := f[3:]
	if f[2] == "" { // PIGATO's empty frame
		body = f[4:]
	}
	if len(body) > 1 { // the last revision's and PIGATO's
		if body[0] != "0" {
			return "error"
		}
		return word + " " + body[1]
	}
	var v struct {
		Status json.RawMessage
		Msg    json.RawMessage
	}
	if json.Unmarshal([]byte(body[0]), &v) != nil || string(v.Status) != "200" {
		return "error"
	}
	return word + " " + string(v.Msg)
}

func (r *record) isReply() bool {
	return len(r.Frames) > 3 && (r.Frames[1] == "3" || r.Frames[1] == "6")
}

func (r *record) isRequest() bool {
	return r.From != "worker" && len(r.Frames) > 4 && r.Frames[1] == "2"
}

// eachScenario runs f in a bubble for each scenario of the three recordings. f
// tells how many messages it compared.
func eachScenario(t *testing.T, f func(t *testing.T, x Dialect, all []record) (compared int)) {
	for _, x := range []Dialect{OMDP, OMDPFinal, PIGATO} {
		records := recorded(t)
		if x != OMDP {
			records = recordedFrom(t, x)
		}
		byName := map[string][]record{}
		for _, r := range records {
			byName[r.Scenario] = append(byName[r.Scenario], r)
		}
		if len(byName) < 20 {
			t.Fatalf("%s: only %d scenarios", x, len(byName))
		}
		compared := 0
		for name, all := range byName {
			t.Run(x.String()+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { compared += f(t, x, all) })
			})
		}
		if compared < 20 {
			t.Errorf("%s: compared only %d messages", x, compared)
		}
	}
}

// at is the present time of a scenario that began at start, moved on.
func (r *record) at(start time.Time) {
	if d := time.Duration(r.MS)*time.Millisecond - time.Since(start); d > 0 {
		pass(d)
	}
}

// TestRecordedClient: our client asks with the recorded client's bytes, and what
// the recorded broker says of that is what its user gets.
func TestRecordedClient(t *testing.T) {
	eachScenario(t, func(t *testing.T, x Dialect, all []record) (compared int) {
		c, n := fakeDialect(t, x, nil)
		defer c.Close()
		l := n.next(t)
		start := time.Now()
		ids := map[string]string{} // ours by theirs
		got, want, over := map[string][]string{}, map[string][]string{}, map[string]bool{}
		for _, r := range all {
			r.at(start)
			switch {
			case r.From == "client" && r.isRequest():
				if !json.Valid([]byte(r.Frames[4])) { // a Go client has no `undefined` to send
					continue
				}
				theirs := r.Frames[3]
				o, ok := parseOptions([]byte(r.Frames[5]))
				if !ok {
					t.Fatalf("options %s", r.Frames[5])
				}
				timeout := o.timeout
				if timeout == timeoutDefault {
					timeout = 0
				}
				say := func(text string) { got[theirs] = append(got[theirs], text) }
				err := c.Request(t.Context(), r.Frames[2], json.RawMessage(r.Frames[4]),
					func(m Message) { say("partial " + string(m.JSON())) },
					func(m Message, err error) {
						if over[theirs] {
							return
						}
						if err != nil {
							say("error")
						} else {
							say("final " + string(m.JSON()))
						}
					}, WithTimeout(timeout))
				if err != nil {
					t.Fatal(err)
				}
				m := strings.Split(l.awaitPrefix(t, "C|2|"), "|")
				ids[theirs] = m[3]
				ours := slices.Clone(m)
				ours[3] = theirs
				if wantOptions := r.Frames[5]; x == OMDP && wantOptions == "{}" && ours[5] == `{"timeout":60000}` {
					ours[5] = wantOptions // ours says its default
				}
				compared++
				if !slices.Equal(ours, r.Frames) {
					t.Errorf("we send %q, they sent %q", ours, r.Frames)
				}
			case r.To == "client":
				f := slices.Clone(r.Frames)
				for i := range f {
					if rid := ids[f[i]]; rid != "" {
						if r.isReply() && !over[f[i]] {
							want[f[i]] = append(want[f[i]], r.said())
						}
						f[i] = rid
					}
				}
				l.say(f...)
				synctest.Wait()
			}
		}
		for theirs := range ids {
			synctest.Wait()
			over[theirs] = true
			g, w := got[theirs], want[theirs]
			if n := len(g); n > 0 && n == len(w)+1 && g[n-1] == "error" {
				g = g[:n-1] // its own timeout, where nobody told
			}
			compared += len(w)
			if !slices.Equal(g, w) {
				t.Errorf("the user got %q, want %q", g, w)
			}
		}
		if n := c.Stats().Malformed; n != 0 {
			t.Errorf("%d messages of the recorded broker are malformed to us", n)
		}
		return compared
	})
}

// TestRecordedWorker: our worker, whose handlers answer at the recorded times,
// sends the recorded worker's replies.
func TestRecordedWorker(t *testing.T) {
	eachScenario(t, func(t *testing.T, x Dialect, all []record) (compared int) {
		answers := make(chan record)
		w, n := fakeDialectWorker(t, x, nil, func(ctx context.Context, req *Request, res *Response) error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case r := <-answers:
					said := r.said()
					word, value, _ := strings.Cut(said, " ")
					switch word {
					case "partial":
						if err := res.Send(json.RawMessage(value)); err != nil {
							return err
						}
					case "final":
						return res.End(json.RawMessage(value))
					default:
						return recordedError(&r)
					}
				}
			}
		})
		defer w.Close()
		l := n.next(t)
		start, noJSON := time.Now(), false
		for _, r := range all {
			r.at(start)
			switch {
			case r.To == "worker" && !slices.Equal(r.Frames, []string{"W", "5"}):
				noJSON = noJSON || r.isRequest() && slices.Contains(r.Frames, "undefined")
				l.say(r.Frames...)
				synctest.Wait()
			case r.From == "worker" && r.isReply():
				select {
				case answers <- r:
				default: // no handler of ours sees what is no JSON
					if !noJSON {
						t.Errorf("at %d ms no handler runs to send %q", r.MS, r.Frames)
					} else if x != OMDP { // the others' handlers do, in Node
						continue
					}
				}
				synctest.Wait()
				compared++
				sent := slices.DeleteFunc(l.sent(), func(m string) bool { return !strings.HasPrefix(m, "W|3|") && !strings.HasPrefix(m, "W|6|") })
				if want := strings.Join(r.Frames, "|"); len(sent) != 1 || sent[0] != want {
					t.Errorf("at %d ms we send %q, they sent %q", r.MS, sent, want)
				}
			}
		}
		if s := w.Stats(); s.Malformed != 0 || s.Dropped != 0 {
			t.Errorf("stats %+v", s)
		}
		return compared
	})
}

// recordedError is the error with which a recorded handler ended.
func recordedError(r *record) error {
	text := strings.Join(r.Frames, "|")
	if strings.Contains(text, "TEAPOT") {
		return &Error{Code: "418", Message: "TEAPOT"}
	}
	return fmt.Errorf("SOMETHING_FAILED")
}
