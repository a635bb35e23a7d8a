package conformance

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The roles that can be under test, and the dialects.
var (
	roles    = []string{"broker", "worker", "client"}
	dialects = []string{"mdp01", "mdp02", "omdp"}
	// offers are what a script may need of a driver.
	offers = []string{
		"timeout",     // a broker whose requests expire soon
		"stop",        // the subject can be stopped in good order
		"hold",        // a worker that holds the request "hold" until it loses interest in it
		"twice",       // a worker that tries to answer the request "twice" twice
		"results",     // a client that tells what its calls gave
		"same-socket", // a client whose calls share a socket
	}
)

// A Script is one exchange of messages that shows whether a requirement is met.
type Script struct {
	Name         string   // DOCUMENT/NAME
	Requirements []string // the ids that it shows
	Role         string   // what is under test
	Dialects     []string // usually one
	Needs        []string
	About        string

	steps []step
}

// step is one line.
type step struct {
	line   int
	text   string
	peer   string // or the name of a call
	verb   string
	frames []frame
	time   span   // D; zero: none is given
	value  string // of call, partial and final
}

// span is a time, in beats, in the subject's expiry, or absolute.
type span struct {
	beats, expiries float64
	fixed           time.Duration
}

func (s span) of(beat, expiry time.Duration) time.Duration {
	return s.fixed + time.Duration(s.beats*float64(beat)+s.expiries*float64(expiry))
}

// parseScript reads a script; what is wrong is told with its line.
func parseScript(name, text string) (*Script, error) {
	s := &Script{Name: name}
	header := true
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		var err error
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case line == "":
			header = header && s.Role == ""
			continue
		case header:
			err = s.parseField(line)
		default:
			var st step
			st, err = parseStep(line)
			st.line, st.text = i+1, line
			s.steps = append(s.steps, st)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *Script) parseField(line string) error {
	key, value, ok := strings.Cut(line, ":")
	if value = strings.TrimSpace(value); !ok || value == "" {
		return fmt.Errorf("%q is no field: want KEY: VALUE, and an empty line before the steps", line)
	}
	list := strings.Fields(strings.ReplaceAll(value, ",", " "))
	switch key {
	case "requirement":
		s.Requirements = list
	case "role":
		s.Role = value
	case "dialect":
		s.Dialects = list
	case "needs":
		s.Needs = list
	case "about":
		s.About = value
	default:
		return fmt.Errorf("there is no field %q", key)
	}
	return nil
}

// check tells what is missing, or can't be.
func (s *Script) check() error {
	switch {
	case len(s.Requirements) == 0:
		return fmt.Errorf("it names no requirement")
	case !slices.Contains(roles, s.Role):
		return fmt.Errorf("role %q is none of %v", s.Role, roles)
	case len(s.Dialects) == 0 || slices.ContainsFunc(s.Dialects, func(d string) bool { return !slices.Contains(dialects, d) }):
		return fmt.Errorf("dialect %q is none of %v", s.Dialects, dialects)
	case len(s.steps) == 0:
		return fmt.Errorf("it has no steps")
	}
	for _, n := range s.Needs {
		if !slices.Contains(offers, n) {
			return fmt.Errorf("needs %q, which is none of %v", n, offers)
		}
	}
	if !slices.ContainsFunc(s.steps, func(st step) bool { return st.expects() }) {
		return fmt.Errorf("it expects nothing, so it can't fail")
	}
	for _, st := range s.steps {
		if err := s.checkStep(&st); err != nil {
			return fmt.Errorf("line %d: %q: %w", st.line, st.text, err)
		}
	}
	return nil
}

func (s *Script) checkStep(st *step) error {
	need := map[string]string{"stop": "stop", "partial": "results", "final": "results", "error": "results"}[st.verb]
	switch {
	case need != "" && !slices.Contains(s.Needs, need):
		return fmt.Errorf("the script has to say that it needs %s", need)
	case slices.Contains([]string{"call", "partial", "final", "error"}, st.verb) && s.Role != "client":
		return fmt.Errorf("only a client makes calls, and a %s is under test", s.Role)
	case slices.Contains([]string{"gone", "start"}, st.verb) && s.Role == "broker":
		return fmt.Errorf("a broker under test is there, and seen through the kit's sockets alone")
	case st.peer == "others" && st.verb != "quiet", st.peer == "others" && s.Role == "broker":
		return fmt.Errorf("others can only be quiet, where the kit is the broker")
	}
	return nil
}

// expects tells whether a step can fail by what the subject does.
func (st *step) expects() bool {
	switch st.verb {
	case "<", "quiet", "none", "hush", "gone", "partial", "final", "error":
		return true
	}
	return false
}

func parseStep(line string) (step, error) {
	first, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch first {
	case "start", "stop":
		if rest != "" {
			return step{}, fmt.Errorf("%s stands alone", first)
		}
		return step{verb: first}, nil
	case "call", "partial", "final", "error":
		return parseCall(first, rest)
	}
	if variable.FindString("$"+first) != "$"+first {
		return step{}, fmt.Errorf("%q is no name of a peer", first)
	}
	st := step{peer: first}
	st.verb, rest, _ = strings.Cut(rest, " ")
	rest = strings.TrimSpace(rest)
	var err error
	switch st.verb {
	case ">", "<", "skip", "beats":
		if at := strings.LastIndex(rest, " within "); at >= 0 && st.verb == "<" {
			if st.time, err = parseSpan(rest[at+len(" within "):]); err != nil {
				return st, err
			}
			rest = rest[:at]
		}
		st.frames, err = parseMessage(rest)
		for i := range st.frames {
			if err == nil && st.verb != "<" && st.verb != "skip" && !st.frames[i].sendable() {
				err = fmt.Errorf("frame %d: %s can't be sent", i, st.frames[i].text)
			}
		}
	case "quiet", "none", "hush":
		st.time, err = parseSpan(rest)
	case "mute", "strict", "close", "gone":
		if rest != "" {
			err = fmt.Errorf("nothing follows %s", st.verb)
		}
	default:
		err = fmt.Errorf("%q is no verb", st.verb)
	}
	return st, err
}

// parseCall reads call, partial, final and error.
func parseCall(verb, s string) (st step, err error) {
	st.verb = verb
	st.peer, s, _ = strings.Cut(s, " ")
	s = strings.TrimSpace(s)
	switch {
	case variable.FindString("$"+st.peer) != "$"+st.peer:
		return st, fmt.Errorf("%q is no name of a call", st.peer)
	case verb == "error":
		if s != "" {
			err = fmt.Errorf("nothing follows the name")
		}
		return st, err
	}
	q, err := quoted(s)
	if err != nil {
		return st, fmt.Errorf("%s: not quoted", s)
	}
	st.value, _ = strconv.Unquote(q)
	if s = strings.TrimSpace(s[len(q):]); s == "" {
		return st, nil
	}
	d, ok := strings.CutPrefix(s, "timeout ")
	if !ok || verb != "call" {
		return st, fmt.Errorf("%q is not understood", s)
	}
	st.time, err = parseSpan(d)
	return st, err
}

func parseSpan(s string) (span, error) {
	if n, ok := strings.CutSuffix(strings.TrimSuffix(s, "s"), " beat"); ok {
		beats, err := strconv.ParseFloat(n, 64)
		if err == nil && beats > 0 && beats <= 100 {
			return span{beats: beats}, nil
		}
	} else if s == "expiry" {
		return span{expiries: 1}, nil
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 && d <= 10*time.Second {
		return span{fixed: d}, nil
	}
	return span{}, fmt.Errorf("%q is no time: want 3 beats, expiry or 200ms", s)
}

// loadScripts reads all of a tree, in the order of their names.
func loadScripts(tree fs.FS) ([]*Script, error) {
	var all []*Script
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if path.Ext(name) != ".txt" {
			return fmt.Errorf("%s: not a script", name)
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		s, err := parseScript(strings.TrimSuffix(name, ".txt"), string(text))
		all = append(all, s)
		return err
	})
	return all, err
}
