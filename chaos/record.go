package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The recorder joins the logs of all processes of a run: what each call was,
// what it got, and which handlers ran for it. The rules are in judge.go.

// A call is one call of a client, as the logs tell.
type call struct {
	kind, service string
	limit, slack  time.Duration // until when it has to end, and what its reader may take besides
	idem, calm    bool
	begun, ended  int64 // ns; 0: not
	ends          int
	result        string
	outcome       string
	run           ident // of the final
	count         int   // partials that the final says were sent
	took          time.Duration
	partials      int   // that came
	partialRun    ident // whose they were
	runs          []ident
}

// A run is one handler's.
type run struct {
	call    ident
	service string
	attempt int
	sent    int    // partials
	result  string // empty: it did not come to its end
	count   int
}

// A life is one process.
type life struct {
	name    string
	file    string
	bye     bool
	torn    bool     // its last line is not complete
	hiccups []hiccup // in the order of their ends
}

type hiccup struct {
	until int64
	took  time.Duration
}

// A violation is a rule that was broken.
type violation struct {
	rule string
	call ident // zero: of no call
	text string
}

func (v violation) String() string {
	if v.call == (ident{}) {
		return v.rule + ": " + v.text
	}
	return fmt.Sprintf("%s: call %v: %s", v.rule, v.call, v.text)
}

// A recorder is what was read so far. It is not safe for concurrent use.
type recorder struct {
	calls      map[ident]*call
	runs       map[ident]*run
	lives      map[string]*life
	killed     map[string]bool // lives that the harness ended
	words      map[string]string
	violations []violation
	files      []string
}

func newRecorder() *recorder {
	return &recorder{calls: map[ident]*call{}, runs: map[ident]*run{}, lives: map[string]*life{}, killed: map[string]bool{}, words: map[string]string{}}
}

// record reads all logs of a directory and judges them.
func record(dir string) (*recorder, error) {
	r := newRecorder()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = r.read(name, f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	r.judge()
	return r, nil
}

func (r *recorder) violate(rule string, id ident, format string, args ...any) {
	r.violations = append(r.violations, violation{rule, id, fmt.Sprintf(format, args...)})
}

// read takes one process's log.
func (r *recorder) read(name string, in io.Reader) error {
	r.files = append(r.files, name)
	b := bufio.NewReaderSize(in, 64<<10)
	l := &life{file: name}
	for {
		line, err := b.ReadString('\n')
		if err == io.EOF {
			l.torn = line != "" // killed within the write
			break
		}
		if err != nil {
			return err
		}
		e, err := parseEvent(strings.TrimSuffix(line, "\n"))
		if err == nil {
			err = r.take(l, e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// take notes one event.
func (r *recorder) take(l *life, e event) error {
	switch e.word {
	case wordLife:
		l.name = r.word(e.field(0))
		r.lives[l.name] = l
		return nil
	case wordBye:
		l.bye = true
		return nil
	case "kill":
		r.killed[r.word(e.field(0))] = true
		return nil
	case wordHiccup:
		n, err := strconv.ParseInt(e.field(0), 10, 64)
		l.hiccups = append(l.hiccups, hiccup{e.at, time.Duration(n)})
		return err
	case wordBegin, wordPartial, wordEnd, wordBad, wordStart, wordSend, wordFinish:
	default:
		return nil // for the reader of the logs
	}
	id, err := parseIdent(e.field(0))
	if err != nil {
		return err
	}
	switch e.word {
	case wordBegin:
		return r.onBegin(id, e)
	case wordPartial:
		return r.onPartial(id, e)
	case wordEnd:
		return r.onEnd(id, e)
	case wordBad:
		r.violate("I1", id, "%s", e.text(1))
		return nil
	}
	return r.onRun(id, e)
}

// word gives the one copy of a word that many lines have.
func (r *recorder) word(s string) string {
	if w, ok := r.words[s]; ok {
		return w
	}
	s = strings.Clone(s)
	r.words[s] = s
	return s
}

// call finds or makes one: a worker's log may be read before the client's.
func (r *recorder) call(id ident) *call {
	c := r.calls[id]
	if c == nil {
		c = &call{}
		r.calls[id] = c
	}
	return c
}

func (r *recorder) onBegin(id ident, e event) error {
	c := r.call(id)
	if c.begun != 0 {
		r.violate("log", id, "begun twice")
	}
	limit, err := strconv.ParseInt(e.field(3), 10, 64)
	if err != nil {
		return err
	}
	slack, err := strconv.ParseInt(e.field(4), 10, 64)
	if err != nil {
		return err
	}
	flags := strings.Split(e.field(5), ",")
	c.kind, c.service, c.begun = r.word(e.field(1)), r.word(e.field(2)), e.at
	c.limit, c.slack = time.Duration(limit), time.Duration(slack)
	c.idem, c.calm = slices.Contains(flags, flagIdem), slices.Contains(flags, flagCalm)
	return nil
}

// onPartial: in order, without a gap or a repeat, of one attempt, and before
// the end. These follow one another in the one log, so they are judged here.
func (r *recorder) onPartial(id ident, e event) error {
	c := r.call(id)
	from, err := parseIdent(e.field(1))
	if err != nil {
		return err
	}
	i, err := strconv.Atoi(e.field(2))
	if err != nil {
		return err
	}
	switch {
	case c.begun == 0:
		r.violate("C3", id, "partial %d of run %v before the call began", i, from)
	case c.ends > 0:
		r.violate("C1", id, "partial %d of run %v after the end", i, from)
	case c.partials > 0 && from != c.partialRun:
		r.violate("I5", id, "partial %d is of run %v, those before it of run %v", i, from, c.partialRun)
	case i != c.partials:
		r.violate("I4", id, "partial %d of run %v came after %d others", i, from, c.partials)
	}
	c.partialRun = from
	c.partials++
	return nil
}

func (r *recorder) onEnd(id ident, e event) error {
	c := r.call(id)
	c.ends++
	if c.ends > 1 {
		r.violate("C1", id, "it ended %d times: %s after %s", c.ends, e.field(1), c.result)
		return nil
	}
	from, err := parseIdent(e.field(3))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(e.field(4))
	if err != nil {
		return err
	}
	took, err := strconv.ParseInt(e.field(5), 10, 64)
	if err != nil {
		return err
	}
	c.ended, c.result, c.outcome, c.run, c.count, c.took = e.at, r.word(e.field(1)), r.word(e.field(2)), from, n, time.Duration(took)
	return nil
}

// onRun takes what a worker's log says of a handler's run.
func (r *recorder) onRun(id ident, e event) error {
	name, err := parseIdent(e.field(1))
	if err != nil {
		return err
	}
	h := r.runs[name]
	if e.word == wordStart {
		attempt, err := strconv.Atoi(e.field(3))
		if err != nil {
			return err
		}
		if h != nil {
			r.violate("log", id, "run %v started twice", name)
		}
		r.runs[name] = &run{call: id, service: r.word(e.field(2)), attempt: attempt}
		c := r.call(id)
		c.runs = append(c.runs, name)
		return nil
	}
	if h == nil || h.call != id {
		r.violate("log", id, "run %v was not started for it", name)
		return nil
	}
	switch e.word {
	case wordSend:
		h.sent++
	case wordFinish:
		if h.result != "" {
			r.violate("K4", id, "run %v finished twice", name)
		}
		h.result = r.word(e.field(2))
		h.count, err = strconv.Atoi(e.field(3))
	}
	return err
}
