package omdp_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// The walk: every path on which a call fails, each with a handler that records
// whether it ran, and in every way to call. What the error says is held against
// what the handler did, once nothing moves any more.
//
// The paths are in outcome_unsent_test.go, outcome_queued_test.go,
// outcome_running_test.go and outcome_reply_test.go; what they play on is in
// outcome_scene_test.go. That none is missing is checked against the source, see
// TestOutcomePathsAreComplete.

// ran is what the handler of a walk had done when all was quiet.
type ran uint8

const (
	ranNever ran = iota // no handler began
	ranBegun            // one had begun when the call ended, and had not ended
	ranWhole            // one ran to its end
	ranOther            // no handler of ours had a part: a peer by hand stood in its place
)

var ranTexts = [...]string{"never", "begun", "whole", "other"}

// errorPath is one way for a call to fail.
type errorPath struct {
	name    string
	ways    string // of callWays, by their first letters; empty: all
	want    error  // a sentinel; nil: text says it
	text    string // in the error; "handler": it is an *omdp.Error
	outcome omdp.Outcome
	ran     ran
	fault   func(s *scene) error // calls, does what makes the call fail, and returns its error
}

// handlerSaid is the text of an errorPath whose error the handler chose.
const handlerSaid = "handler"

var errorPaths = slices.Concat(unsentPaths, queuedPaths, runningPaths, replyPaths, retryPaths)

func TestOutcomeOfEveryPath(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, p := range errorPaths {
		if names[p.name] {
			t.Errorf("two paths are called %q", p.name)
		}
		names[p.name] = true
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, way := range callWays {
				if p.ways != "" && !strings.Contains(p.ways, way.name[:1]) {
					continue
				}
				t.Run(way.name, func(t *testing.T) {
					t.Parallel()
					walk(t, p, way)
				})
			}
		})
	}
}

func walk(t *testing.T, p errorPath, way callWay) {
	s := newScene(t, way)
	err := p.fault(s)
	early := s.ended.Load() // handlers that ended before the call did
	if err == nil {
		t.Fatal("the call ended well")
	}
	switch _, handler := errors.AsType[*omdp.Error](err); {
	case handler != (p.text == handlerSaid):
		t.Errorf("got %v, whether the handler chose it: %v", err, handler)
	case p.want != nil && !errors.Is(err, p.want):
		t.Errorf("got %v, want %v", err, p.want)
	case p.want == nil && !handler && !strings.Contains(err.Error(), p.text):
		t.Errorf("got %v, want an error that says %q", err, p.text)
	}
	got := omdp.OutcomeOf(err)
	if got != p.outcome {
		t.Errorf("got outcome %v of %q, want %v", got, err, p.outcome)
	}
	s.quiet()
	began, ended := s.began.Load(), s.ended.Load()
	if began > 1 {
		t.Errorf("the request was executed %d times", began)
	}
	if began != ended {
		t.Errorf("%d handlers began and %d ended, though all is quiet", began, ended)
	}
	// What an Outcome promises, whatever this path is said to give.
	switch {
	case (got == omdp.NotSent || got == omdp.NotExecuted) && began > 0:
		t.Errorf("outcome %v of %q, and the handler ran", got, err)
	case got == omdp.Executed && p.ran != ranOther && ended == 0:
		t.Errorf("outcome %v of %q, and the handler did not run to its end", got, err)
	}
	did := ranNever
	switch {
	case p.ran == ranOther && began == 0:
		did = ranOther
	case began > 0 && early == 0 && p.ran == ranBegun:
		did = ranBegun
	case ended > 0:
		did = ranWhole
	}
	if did != p.ran {
		t.Errorf("the handler ran: %s, want %s", ranTexts[did], ranTexts[p.ran])
	}
}

// outcomeSources are the functions that make a callError or turn a status into
// one, and for each the paths that walk it, or a test elsewhere where the walk
// can't go. A change in the source that adds one fails the test below until
// its path is here.
var outcomeSources = map[string][]string{
	"Client.Close":         {"closed while it waits for a connection", "closed while queued", "closed while running"},
	"CallJSON":             {"reply that does not fit"},
	"RangeJSON":            {"TestRangeJSONCancels"},
	"Client.begin":         {"no service name", "long service name", "data that has no JSON", "data too large", "TestDialectRefuses"},
	"Client.Lookup":        {"TestDialectRefuses", "TestLookupAnswers"},
	"Client.enter":         {"not started", "closed", "shutting down", "overloaded at the client", "queue of the client full"},
	"canceled":             {"context cancelled before", "context cancelled before, with a cause", "context's deadline passed before", "cancelled while queued", "cancelled while running"},
	"call.apply":           {"window out of range", "metadata too large"},
	"Client.endRefused":    {"TestUploadUnsupported"},
	"clientConn.onPartial": {"reader too slow", "partial that can't be read", "partial that is an error"},
	"Client.expire":        {"timeout while it waits for a connection", "timeout at a broker that says nothing", "TestIdleTimeout"},
	"clientConn.tick":      {"TestClientForeignWorkerSilent"},
	"clientConn.lost":      {"connection cut while queued", "connection cut while running", "broker silent", "broker killed while queued", "broker killed while running", "another broker answers"},
	"Stream.Close":         {"stream closed while it waits for a connection", "stream closed while queued", "stream closed while running"},
	"Stream.discard":       {"stream closed after its end"},
	"brokerStatus":         {"status nobody knows"}, // and one path for each of statuses
	"protocolError":        {"final that can't be read", "final with a status that is none", "final with an empty status"},
}

// Every place that makes an error of a call, found by its syntax, is walked:
// composite literals of callError, the rows of the table of statuses, and the
// two functions through which replies become errors. What calls those needs no
// path of its own for each call: errors_test.go has the table of replies.
func TestOutcomePathsAreComplete(t *testing.T) {
	walked, tests := map[string]bool{}, map[string]bool{}
	for _, p := range errorPaths {
		walked[p.name] = true
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found, words := map[string]bool{}, 0
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(name, "_test.go")
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				tests[d.Name.Name] = tests[d.Name.Name] || test
				if !test && makesCallError(d) {
					found[qualified(d)] = true
				}
			case *ast.GenDecl:
				if test {
					continue
				}
				for word := range statusWords(d) {
					words++
					if name := "status " + word; !walked[name] {
						t.Errorf("no path is called %q", name)
					}
				}
			}
		}
	}
	if words == 0 {
		t.Error("no status… constants: this test looks in the wrong place")
	}
	for name := range found {
		if outcomeSources[name] == nil {
			t.Errorf("%s makes an error of a call and is not in outcomeSources", name)
		}
	}
	for name, paths := range outcomeSources {
		if !found[name] {
			t.Errorf("%s is in outcomeSources and makes no error of a call", name)
		}
		for _, p := range paths {
			if !walked[p] && !tests[p] {
				t.Errorf("%s: there is neither a path nor a test called %q", name, p)
			}
		}
	}
}

func makesCallError(d *ast.FuncDecl) (found bool) {
	ast.Inspect(d, func(n ast.Node) bool {
		if c, ok := n.(*ast.CompositeLit); ok {
			id, ok := c.Type.(*ast.Ident)
			found = found || ok && id.Name == "callError"
		}
		return true
	})
	return found
}

func qualified(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	typ := d.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	if g, ok := typ.(*ast.IndexExpr); ok {
		typ = g.X
	}
	return typ.(*ast.Ident).Name + "." + d.Name.Name
}

// statusWords gives the values of the constants status….
func statusWords(d *ast.GenDecl) map[string]bool {
	words := map[string]bool{}
	for _, s := range d.Specs {
		v, ok := s.(*ast.ValueSpec)
		if !ok || d.Tok != token.CONST {
			continue
		}
		for i, n := range v.Names {
			if strings.HasPrefix(n.Name, "status") && i < len(v.Values) {
				if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					word, _ := strconv.Unquote(lit.Value)
					words[word] = true
				}
			}
		}
	}
	return words
}
