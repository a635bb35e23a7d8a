package omdp_test

import (
	"bytes"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Nothing is exported that no example uses: every name of the public packages,
// but for the fields of structs, occurs in an example*_test.go or in a program
// under examples/. Uses are resolved by the type checker, so that the Close of
// one type does not stand for that of another.
func TestEveryNameHasAnExample(t *testing.T) {
	t.Parallel()
	const module = "github.com/zmq-omdp/omdp"
	public := []string{module, module + "/omdptest"}
	fset := token.NewFileSet()
	imports := exportData(t, fset, append(public, "./examples/...", "net/http/httptest")...)

	used := map[types.Object]bool{}
	dirs, err := filepath.Glob("examples/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no programs under examples/: %v", err)
	}
	for _, dir := range dirs {
		markUsed(t, fset, imports, used, filepath.Join(dir, "*.go"))
	}
	markUsed(t, fset, imports, used, "example*_test.go")
	markUsed(t, fset, imports, used, "omdptest/example*_test.go")

	for _, name := range public {
		pkg, err := imports.Import(name)
		if err != nil {
			t.Fatal(err)
		}
		names := exported(pkg)
		if len(names) == 0 {
			t.Errorf("package %s exports nothing", name)
		}
		for _, o := range names {
			if !used[o] {
				t.Errorf("%s.%s is exported, and no example uses it", pkg.Name(), title(o))
			}
		}
	}
}

// exportData returns an importer of the packages that match patterns and of all
// that they import, by what the compiler wrote of them.
func exportData(t *testing.T, fset *token.FileSet, patterns ...string) types.Importer {
	t.Helper()
	args := append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, patterns...)
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[name] = file
	}
	return importer.ForCompiler(fset, "gc", func(name string) (io.ReadCloser, error) { return os.Open(files[name]) })
}

// markUsed type-checks the files that match pattern as one package and notes
// which objects they use. Tests other than examples are left out.
func markUsed(t *testing.T, fset *token.FileSet, imports types.Importer, used map[types.Object]bool, pattern string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if base := path.Base(name); base == "example_names_test.go" ||
			strings.HasSuffix(base, "_test.go") && !strings.HasPrefix(base, "example") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: imports}
	if _, err := config.Check(pattern, fset, files, &info); err != nil {
		t.Fatalf("%s: examples use names of other test files: %v", pattern, err)
	}
	for _, o := range info.Uses {
		if f, ok := o.(*types.Func); ok {
			o = f.Origin()
		}
		used[o] = true
	}
	for _, e := range info.Types { // a type is used where its values are
		if p, ok := e.Type.(*types.Pointer); ok {
			e.Type = p.Elem()
		}
		if n, ok := e.Type.(*types.Named); ok {
			used[n.Obj()] = true
		}
	}
}

// exported lists what pkg exports, methods included, in the order of names.
func exported(pkg *types.Package) []types.Object {
	var all []types.Object
	for _, name := range pkg.Scope().Names() {
		o := pkg.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		all = append(all, o)
		named, ok := o.Type().(*types.Named)
		if _, isType := o.(*types.TypeName); !isType || !ok {
			continue
		}
		for m := range named.Methods() {
			if m.Exported() && !called(m) {
				all = append(all, m)
			}
		}
	}
	return all
}

// called tells whether m is one of the methods that a type has for others to
// call, such as package fmt or encoding/json.
func called(m *types.Func) bool {
	return slices.Contains([]string{"Error() string", "String() string", "MarshalJSON() ([]byte, error)"},
		m.Name()+strings.TrimPrefix(types.TypeString(m.Signature(), nil), "func"))
}

// title is the name of o, with its type's if it is a method.
func title(o types.Object) string {
	if f, ok := o.(*types.Func); ok && f.Signature().Recv() != nil {
		recv := f.Signature().Recv().Type()
		if p, ok := recv.(*types.Pointer); ok {
			recv = p.Elem()
		}
		return recv.(*types.Named).Obj().Name() + "." + o.Name()
	}
	return o.Name()
}
