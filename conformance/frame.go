package conformance

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// A frame is one frame of a script's message: bytes to send, or a pattern for
// what is received.
type frame struct {
	text  string // as it is written
	parts []part // literals and variables that follow one another; nil for the other kinds
	any   bool   // _
	rest  bool   // ...
	re    *regexp.Regexp
	json  any    // the values that a JSON value must have at least
	bind  string // the variable that gets what re matched
}

type part struct{ literal, variable string }

// vars are a script's variables.
type vars map[string]string

// parseMessage reads frames with | between them.
func parseMessage(s string) ([]frame, error) {
	var fields []string
	start := 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == '|':
			fields, start = append(fields, strings.TrimSpace(s[start:i])), i+1
		case s[i] == '"' || s[i] == '`':
			q, err := quoted(s[i:])
			if err != nil {
				return nil, err
			}
			i += len(q) - 1
		case s[i] == '/' && strings.TrimSpace(s[start:i]) == "" || s[i] == '/' && strings.HasSuffix(s[start:i], "="):
			end := strings.IndexByte(s[i+1:], '/')
			if end < 0 {
				return nil, fmt.Errorf("no end of %s", s[i:])
			}
			i += end + 1
		}
	}
	frames := make([]frame, len(fields))
	for i, f := range fields {
		var err error
		if frames[i], err = parseFrame(f); err != nil {
			return nil, fmt.Errorf("frame %d: %w", i, err)
		}
		if frames[i].rest && i < len(fields)-1 {
			return nil, fmt.Errorf("frame %d: ... is the last or not there", i)
		}
	}
	return frames, nil
}

// quoted returns the quoted string that s begins with, with its quotes.
func quoted(s string) (string, error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", fmt.Errorf("no end of %s", s)
	}
	return q, nil
}

var (
	word     = regexp.MustCompile(`^[A-Za-z0-9*@.:-]+`)
	variable = regexp.MustCompile(`^\$[a-z][a-z0-9]*`)
)

func parseFrame(s string) (frame, error) {
	f := frame{text: s}
	switch {
	case s == "":
		return f, fmt.Errorf(`nothing stands there; an empty frame is ""`)
	case s == "_":
		f.any = true
		return f, nil
	case s == "...":
		f.rest = true
		return f, nil
	case strings.HasPrefix(s, "json`") || strings.HasPrefix(s, `json"`):
		q, err := quoted(s[4:])
		if err != nil || len(q) != len(s)-4 {
			return f, fmt.Errorf("%s: not one quoted JSON value", s)
		}
		text, _ := strconv.Unquote(q)
		if err := json.Unmarshal([]byte(text), &f.json); err != nil {
			return f, fmt.Errorf("%s: %w", s, err)
		}
		return f, nil
	}
	re := s
	if name, after, ok := strings.Cut(s, "="); ok && variable.FindString(name) == name && strings.HasPrefix(after, "/") {
		f.bind, re = name[1:], after
	}
	if strings.HasPrefix(re, "/") {
		if len(re) < 2 || !strings.HasSuffix(re, "/") {
			return f, fmt.Errorf("no end of %s", s)
		}
		var err error
		f.re, err = regexp.Compile("^(?s:" + re[1:len(re)-1] + ")$")
		return f, err
	}
	return f, f.parseParts(s)
}

// parseParts reads literals and variables that stand side by side.
func (f *frame) parseParts(s string) error {
	for s != "" {
		switch {
		case s[0] == '"' || s[0] == '`':
			q, err := quoted(s)
			if err != nil {
				return err
			}
			text, _ := strconv.Unquote(q)
			f.parts, s = append(f.parts, part{literal: text}), s[len(q):]
		case variable.MatchString(s):
			v := variable.FindString(s)
			f.parts, s = append(f.parts, part{variable: v[1:]}), s[len(v):]
		case word.MatchString(s):
			w := word.FindString(s)
			text := w
			if digits, ok := strings.CutPrefix(w, "0x"); ok {
				b, err := hex.DecodeString(digits)
				if err != nil || len(b) == 0 {
					return fmt.Errorf("%s: not bytes in hexadecimal", w)
				}
				text = string(b)
			}
			f.parts, s = append(f.parts, part{literal: text}), s[len(w):]
		default:
			return fmt.Errorf("%s: neither a word, nor quoted, nor a variable", s)
		}
	}
	return nil
}

// sendable tells whether the frame is bytes and not a pattern.
func (f *frame) sendable() bool { return f.parts != nil }

// fill is the frame to be sent.
func (f *frame) fill(v vars) (string, error) {
	var b strings.Builder
	for _, p := range f.parts {
		if p.variable == "" {
			b.WriteString(p.literal)
			continue
		}
		text, ok := v[p.variable]
		if !ok {
			return "", fmt.Errorf("$%s has no value yet", p.variable)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// fillAll is the message to be sent.
func fillAll(frames []frame, v vars) ([]string, error) {
	out := make([]string, len(frames))
	for i := range frames {
		var err error
		if out[i], err = frames[i].fill(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// matches tells whether a received frame is what f says; bound gets the
// variables that have no value in v.
func (f *frame) matches(got string, v, bound vars) bool {
	switch {
	case f.any || f.rest:
		return true
	case f.json != nil:
		var g any
		return json.Unmarshal([]byte(got), &g) == nil && contains(g, f.json)
	case f.re != nil:
		if !f.re.MatchString(got) {
			return false
		}
		if f.bind != "" {
			bound[f.bind] = got
		}
		return true
	case len(f.parts) == 1 && f.parts[0].variable != "":
		name := f.parts[0].variable
		want, ok := v[name]
		if !ok {
			want, ok = bound[name]
		}
		if !ok {
			bound[name] = got
			return true
		}
		return got == want
	}
	want, err := f.fill(v)
	return err == nil && got == want
}

// matchAll tells whether a message is what the frames say. What it binds goes
// to v if all of it is.
func matchAll(frames []frame, got []string, v vars) bool {
	bound := vars{}
	for i := range frames {
		if frames[i].rest {
			break
		}
		if i >= len(got) || !frames[i].matches(got[i], v, bound) {
			return false
		}
	}
	if n := len(frames); len(got) > n && !frames[n-1].rest {
		return false
	}
	maps.Copy(v, bound)
	return true
}

// contains tells whether a JSON value is want, or has at least its keys.
func contains(got, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(got, want)
	}
	g, ok := got.(map[string]any)
	if !ok {
		return false
	}
	for k, v := range w {
		have, ok := g[k]
		if !ok || !contains(have, v) {
			return false
		}
	}
	return true
}

// show writes a message as a script would.
func show(message []string) string {
	if message == nil {
		return "nothing"
	}
	texts := make([]string, len(message))
	for i, f := range message {
		texts[i] = showFrame(f)
	}
	return strings.Join(texts, " | ")
}

// most is how much of a frame is shown.
const most = 200

func showFrame(f string) string {
	more := ""
	if len(f) > most {
		f, more = f[:most], fmt.Sprintf("… (%d bytes)", len(f))
	}
	switch {
	case f == "":
		return `""`
	case word.FindString(f) == f && !strings.HasPrefix(f, "0x"):
		return f + more
	case strings.ContainsFunc(f, func(r rune) bool { return r < ' ' || r == '\uFFFD' }):
		return "0x" + hex.EncodeToString([]byte(f)) + more
	case !strings.Contains(f, "`"):
		return "`" + f + "`" + more
	}
	return strconv.Quote(f) + more
}

// showFrames is the message of a script, with its variables filled in where
// they have a value.
func showFrames(frames []frame, v vars) string {
	texts := make([]string, len(frames))
	for i := range frames {
		f := &frames[i]
		texts[i] = f.text
		if text, err := f.fill(v); f.sendable() && err == nil {
			texts[i] = showFrame(text)
		}
	}
	return strings.Join(texts, " | ")
}
