package omdp_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rooms: which file may do what. The pure state machines decide and know
// nothing of sockets, goroutines, clocks and chance; the shells around them do
// the I/O; one package touches libzmq. These tests hold it.

const modulePath = "github.com/zmq-omdp/omdp"

// maxLines is the most that a file may have.
const maxLines = 600

// pureFiles decide and do no I/O: the core, the codec, the timing, the errors,
// the values, and the tables of client and worker.
var pureFiles = []string{"dispatch*.go", "protocol*.go", "heartbeat.go", "errors.go", "message.go", "pending*.go", "worker_session.go", "worker_places.go", "internal/batch/*.go"}

// pureImports is all that a pure file may import. encoding/json, bytes,
// strconv and the like compute; none of these can wait, lock or ask the system.
var pureImports = []string{
	"bytes", "cmp", "container/heap", "encoding", "encoding/base64", "encoding/binary", "encoding/json", "errors",
	"fmt", "hash/maphash", "iter", "maps", "math", "math/bits", "math/rand/v2", "reflect", "slices", "sort",
	"strconv", "strings", "time", "unicode/utf8", "unsafe",
	modulePath + "/internal/batch",
}

// pureExtra is what single pure files may import besides, and which names of it.
var pureExtra = map[string]map[string][]string{
	// ErrTimeout and ErrCanceled are these two for errors.Is.
	"errors.go": {"context": {"DeadlineExceeded", "Canceled"}},
}

// impureNames of an allowed package read the clock, wait, or draw from a
// generator that no seed of ours governs.
var impureNames = map[string][]string{
	"time":         {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker", "Timer", "Ticker"},
	"math/rand/v2": {"Int", "IntN", "Int32", "Int32N", "Int64", "Int64N", "Uint", "UintN", "Uint32", "Uint32N", "Uint64", "Uint64N", "N", "Float32", "Float64", "ExpFloat64", "NormFloat64", "Perm", "Shuffle"},
	"fmt":          {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

// sockets are the files of the root package that may use internal/zsock.
var sockets = []string{"broker*.go", "worker*.go", "client*.go", "session*.go", "security*.go"}

// source is one parsed Go file; name is relative to the root, with slashes.
type source struct {
	name  string
	fset  *token.FileSet
	file  *ast.File
	lines int
	own   bool // in a nested module of its own (bench, tools)
}

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }
func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.name, s.fset.Position(n.Pos()).Line)
}

func (s source) is(patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, s.name)
		return ok && !s.test()
	})
}

// imports gives the path of each import and the name that it has in the file.
func (s source) imports(t *testing.T) map[string]string {
	m := map[string]string{}
	for _, i := range s.file.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", s.at(i), err)
		}
		name := path.Base(p)
		if name == "v2" {
			name = path.Base(path.Dir(p))
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		m[p] = name
	}
	return m
}

// tree parses every Go file below the root.
func tree(t *testing.T) []source {
	t.Helper()
	var all []source
	nested := map[string]bool{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); name != "." && err == nil {
				nested[name] = true
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		own := false
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			own = own || nested[dir]
		}
		all = append(all, source{name, fset, f, bytes.Count(text, []byte("\n")), own})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRoomsFiles(t *testing.T) {
	for _, s := range tree(t) {
		if s.lines > maxLines {
			t.Errorf("%s has %d lines, want at most %d", s.name, s.lines, maxLines)
		}
		switch base := path.Base(s.name); base {
		case "util.go", "utils.go", "helper.go", "helpers.go", "common.go", "misc.go", "types.go", "interfaces.go":
			t.Errorf("%s: a file is named after what lives in it, not %s", s.name, base)
		}
	}
}

func TestRoomsOnlyZsockTouchesLibzmq(t *testing.T) {
	found := false
	for _, s := range tree(t) {
		imports := s.imports(t)
		if path.Dir(s.name) == "internal/zsock" {
			_, c := imports["C"]
			_, z := imports["github.com/pebbe/zmq4"]
			found = found || c || z
			continue
		}
		if s.own {
			continue
		}
		for _, p := range []string{"C", "github.com/pebbe/zmq4"} {
			if _, ok := imports[p]; ok {
				t.Errorf("%s imports %s; only internal/zsock may", s.name, p)
			}
		}
	}
	if !found {
		t.Error("internal/zsock imports neither C nor zmq4: this test looks in the wrong place")
	}
}

func TestRoomsSockets(t *testing.T) {
	zsock := modulePath + "/internal/zsock"
	for _, s := range tree(t) {
		if s.test() || s.own {
			continue
		}
		for p := range s.imports(t) {
			switch {
			case path.Dir(s.name) == "." && p == zsock && !s.is(sockets):
				t.Errorf("%s imports internal/zsock; of the root only %v may", s.name, sockets)
			case strings.HasPrefix(s.name, "examples/") && strings.Contains(p, ".") && p != modulePath:
				t.Errorf("%s imports %s; an example uses omdp and the standard library", s.name, p)
			case strings.HasPrefix(s.name, "chaos/") && strings.Contains(p, ".") && p != modulePath:
				t.Errorf("%s imports %s; chaos looks from outside: omdp and the standard library", s.name, p)
			case strings.HasPrefix(s.name, "omdptest/") && strings.HasPrefix(p, modulePath+"/internal/"):
				t.Errorf("%s imports %s; omdptest uses what every user has", s.name, p)
			case strings.HasPrefix(s.name, "internal/") && p == modulePath:
				t.Errorf("%s imports the root package", s.name)
			}
		}
	}
}

func TestRoomsPure(t *testing.T) {
	seen := 0
	for _, s := range tree(t) {
		if !s.is(pureFiles) {
			continue
		}
		seen++
		imports := s.imports(t)
		allowed := map[string][]string{} // the local name of a package: its only names
		banned := map[string][]string{}  // the local name of a package: names not to use
		for p, name := range imports {
			only, extra := pureExtra[s.name][p]
			switch {
			case extra:
				allowed[name] = only
			case !slices.Contains(pureImports, p):
				t.Errorf("%s is pure and imports %s", s.name, p)
			default:
				banned[name] = impureNames[p]
			}
			if name == "." || name == "_" {
				t.Errorf("%s imports %s as %q, which hides what it uses", s.name, p, name)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if !ok {
					break
				}
				if slices.Contains(banned[x.Name], n.Sel.Name) {
					t.Errorf("%s: %s.%s in a pure file", s.at(n), x.Name, n.Sel.Name)
				}
				if only, ok := allowed[x.Name]; ok && !slices.Contains(only, n.Sel.Name) {
					t.Errorf("%s: %s.%s in a pure file, which may use only %v of it", s.at(n), x.Name, n.Sel.Name, only)
				}
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in a pure file", s.at(n))
			case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
				t.Errorf("%s: a channel in a pure file", s.at(n))
			case *ast.UnaryExpr:
				if n.Op == token.ARROW {
					t.Errorf("%s: a channel in a pure file", s.at(n))
				}
			}
			return true
		})
	}
	if seen < len(pureFiles) {
		t.Errorf("found %d pure files, want at least %d: was one renamed?", seen, len(pureFiles))
	}
}

// orderComment says that the order of a range over a map can't be seen outside.
const orderComment = "// order does not matter:"

// The core gives the same bytes for the same input, so nothing may be emitted
// in the order of a map. A range over one in dispatch*.go must say why its
// order does not matter, in a comment on its line or on the line above.
func TestRoomsCoreHasNoMapOrder(t *testing.T) {
	var root []source
	var files []*ast.File
	for _, s := range tree(t) {
		if path.Dir(s.name) == "." && !s.test() {
			root, files = append(root, s), append(files, s.file)
		}
	}
	if len(files) == 0 {
		t.Fatal("no files")
	}
	// The imports are empty stand-ins: whether something of ours is a map can
	// be told without them, and the errors that they cause are of no interest.
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: standIns{}, Error: func(error) {}}
	_, _ = conf.Check(modulePath, root[0].fset, files, info)

	for _, s := range root {
		if !s.is([]string{"dispatch*.go"}) {
			continue
		}
		explained := map[int]bool{}
		for _, g := range s.file.Comments {
			for _, c := range g.List {
				if strings.HasPrefix(c.Text, orderComment) {
					line := s.fset.Position(c.Pos()).Line
					explained[line], explained[line+1] = true, true
				}
			}
		}
		maps := s.imports(t)["maps"]
		ast.Inspect(s.file, func(n ast.Node) bool {
			over := ""
			switch n := n.(type) {
			case *ast.RangeStmt:
				if typ := info.TypeOf(n.X); typ != nil {
					if _, ok := typ.Underlying().(*types.Map); ok {
						over = "a range over " + typ.String()
					}
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if ok && maps != "" && x.Name == maps && slices.Contains([]string{"Keys", "Values", "All"}, n.Sel.Name) {
					over = "maps." + n.Sel.Name
				}
			}
			if over != "" && !explained[s.fset.Position(n.Pos()).Line] {
				t.Errorf("%s: %s in the core without a comment %q", s.at(n), over, orderComment+" …")
			}
			return true
		})
	}
}

// What a dialect can say is in the table of protocol_dialect.go. Nobody else asks
// which one it is: but for Auto, as a config has it, they are named in no code.
func TestRoomsDialects(t *testing.T) {
	named := 0
	for _, s := range tree(t) {
		if path.Dir(s.name) != "." || s.test() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && slices.Contains([]string{"OMDP", "OMDPFinal", "PIGATO", "MDP01", "MDP02", "mdp01", "mdp02"}, id.Name) {
				if named++; !strings.HasPrefix(s.name, "protocol_") {
					t.Errorf("%s: %s is named outside of protocol_*.go", s.at(n), id.Name)
				}
			}
			return true
		})
	}
	if named == 0 {
		t.Error("no dialect is named at all: this test finds nothing")
	}
}

// Tests wait on conditions and never sleep, and every package's run ends with a
// look for what it left behind.
func TestRoomsTests(t *testing.T) {
	checked := map[string]bool{} // a directory with tests: has a TestMain
	for _, s := range tree(t) {
		if !s.test() {
			continue
		}
		dir := path.Dir(s.name)
		if _, ok := checked[dir]; !ok {
			checked[dir] = false
		}
		name := s.imports(t)["time"]
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == name && n.Sel.Name == "Sleep" {
					t.Errorf("%s: time.Sleep in a test; wait on a condition", s.at(n))
				}
			case *ast.FuncDecl:
				checked[dir] = checked[dir] || n.Name.Name == "TestMain"
			}
			return true
		})
	}
	for dir, ok := range checked {
		if !ok {
			t.Errorf("the tests in %s have no TestMain that calls leak.Main", dir)
		}
	}
}

// standIns imports every package as an empty one.
type standIns struct{}

func (standIns) Import(p string) (*types.Package, error) {
	if p == "unsafe" {
		return types.Unsafe, nil
	}
	pkg := types.NewPackage(p, path.Base(p))
	pkg.MarkComplete()
	return pkg, nil
}

// The root module stays short: zmq4, and rapid for the tests. Tools are pinned
// in tools/go.mod, what the benchmark compares with in bench/go.mod.
func TestRoomsDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`(?m)^(?:require)?[ \t]+(\S+/\S+) v`).FindAllSubmatch(mod, -1)
	want := []string{"github.com/pebbe/zmq4", "pgregory.net/rapid"}
	var names []string
	for _, m := range got {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("go.mod requires %v, want %v", names, want)
	}
	if !bytes.Contains(mod, []byte("\ngo 1.26\n")) {
		t.Error(`go.mod has no line "go 1.26"`)
	}
	for _, s := range tree(t) {
		if _, ok := s.imports(t)["pgregory.net/rapid"]; ok && !s.test() {
			t.Errorf("%s imports rapid; only tests may", s.name)
		}
	}
}
