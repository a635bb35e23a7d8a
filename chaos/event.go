package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// An ident names one call of one life of a client, or one run of a handler in
// one life of a worker: 3.12.4711 is number 4711 of the 12th life of process 3.
type ident struct {
	who, life uint16
	n         uint32
}

func (id ident) String() string { return string(id.append(nil)) }

func (id ident) append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(id.who), 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(id.life), 10)
	b = append(b, '.')
	return strconv.AppendUint(b, uint64(id.n), 10)
}

var errIdent = errors.New("not WHO.LIFE.NUMBER")

func parseIdent(s string) (ident, error) {
	who, rest, _ := strings.Cut(s, ".")
	life, n, _ := strings.Cut(rest, ".")
	a, err1 := strconv.ParseUint(who, 10, 16)
	b, err2 := strconv.ParseUint(life, 10, 16)
	c, err3 := strconv.ParseUint(n, 10, 32)
	if errors.Join(err1, err2, err3) != nil {
		return ident{}, fmt.Errorf("%q is %w", s, errIdent)
	}
	return ident{uint16(a), uint16(b), uint32(c)}, nil
}

// MarshalText and UnmarshalText put it into a call's data.
func (id ident) MarshalText() ([]byte, error) { return id.append(nil), nil }

func (id *ident) UnmarshalText(b []byte) (err error) {
	*id, err = parseIdent(string(b))
	return err
}

// The words of a log. Each line is TIME WORD FIELD…, separated by one blank,
// TIME in nanoseconds of the wall clock. A call's or a run's lines have the
// call's ident as their first field, so that grep finds all of one call.
const (
	wordLife   = "life"   // role.who.life pid: the first line of each log
	wordBye    = "bye"    // the last line of a life that ended in order
	wordState  = "state"  // STATE as OnState said it
	wordHiccup = "hiccup" // NS: this process did not run for so long until now

	wordBegin   = "begin"   // call kind service limit idem calm: before the call is made
	wordPartial = "partial" // call run index: it came
	wordEnd     = "end"     // call result outcome run n took text…: it ended
	wordBad     = "bad"     // call text…: it got what it must not get

	wordStart  = "start"  // call run service attempt rid: a handler began
	wordSend   = "send"   // call run index: before the partial is sent
	wordFinish = "finish" // call run result n: before the final is sent
)

// An eventLog is what a process tells the recorder. Each line is one write to
// a file opened for appending: it survives a SIGKILL right after, and lines of
// several goroutines never mix. Its methods are safe for concurrent use.
type eventLog struct{ f *os.File }

func openLog(name string) (*eventLog, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &eventLog{f}, nil
}

// add writes one line. A log that can't be written ends the process: the
// recorder would take what is missing for a fault of the library's.
func (l *eventLog) add(word string, fields ...any) {
	var room [256]byte
	if _, err := l.f.Write(appendEvent(room[:0], time.Now(), word, fields...)); err != nil {
		panic("chaos: write event: " + err.Error())
	}
}

// bye writes the last line of a life that ended in order. A nil log has none.
func (l *eventLog) bye() {
	if l != nil {
		l.add(wordBye)
	}
}

func appendEvent(b []byte, now time.Time, word string, fields ...any) []byte {
	b = strconv.AppendInt(b, now.UnixNano(), 10)
	b = append(b, ' ')
	b = append(b, word...)
	for _, f := range fields {
		b = append(b, ' ')
		switch f := f.(type) {
		case ident:
			b = f.append(b)
		case string:
			b = append(b, strings.ReplaceAll(f, "\n", `\n`)...)
		case int:
			b = strconv.AppendInt(b, int64(f), 10)
		case time.Duration:
			b = strconv.AppendInt(b, int64(f), 10)
		default:
			b = fmt.Append(b, f)
		}
	}
	return append(b, '\n')
}

// An event is one line, read back. Its fields point into the line.
type event struct {
	at     int64 // ns
	word   string
	fields []string
}

func parseEvent(line string) (event, error) {
	at, rest, ok := strings.Cut(line, " ")
	n, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return event{}, fmt.Errorf("a line without a time: %q", line)
	}
	word, rest, _ := strings.Cut(rest, " ")
	e := event{at: n, word: word}
	if rest != "" {
		e.fields = strings.Split(rest, " ")
	}
	return e, nil
}

// field gives a field, or nothing when the line is short of it.
func (e event) field(i int) string {
	if i < len(e.fields) {
		return e.fields[i]
	}
	return ""
}

// text is all fields from i on.
func (e event) text(i int) string {
	if i < len(e.fields) {
		return strings.Join(e.fields[i:], " ")
	}
	return ""
}
