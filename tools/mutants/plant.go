package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// chooser is the environment variable that chooses the mutant of a planted
// build, by its number from 1 on.
const chooser = "OMDP_MUTANT"

// chosenFile is added to the package: it reads the choice.
const chosenFile = `package omdp

import (
	"os"
	"strconv"
)

var plantedMutant, _ = strconv.Atoi(os.Getenv("` + chooser + `"))
`

// function is one declaration of a source, as text.
type function struct {
	*ast.FuncDecl
	text             string
	name, end, brace int // offsets in text, brace in the file
}

// plant puts all mutants into one copy of the sources at root, so that there is
// one build for all: what a mutant makes of a function follows under a name of
// its own, and the function begins by asking which mutant is chosen. It
// returns the files that differ, by their names.
func plant(root string, all []mutant) (map[string]string, error) {
	planted := map[string]string{}      // the files, with what is appended
	asks := map[string]map[int]string{} // by file and offset: what is inserted
	for i, m := range all {
		files, err := m.apply(root)
		if err != nil {
			return nil, err
		}
		for name, text := range files {
			source, err := read(root, name)
			if err != nil {
				return nil, err
			}
			if planted[name] == "" {
				planted[name], asks[name] = source, map[int]string{}
			}
			changed, err := compare(name, source, text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			for _, c := range changed {
				alias := fmt.Sprintf("%s_%d", c.Name.Name, i+1)
				call, err := c.call(alias)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", m.name, err)
				}
				asks[name][c.brace] += fmt.Sprintf("\n\tif plantedMutant == %d {\n\t\t%s\n\t}", i+1, call)
				planted[name] += fmt.Sprintf("\n//line %s.patch:1\n%s%s%s\n", m.name, c.text[:c.name], alias, c.text[c.end:])
			}
		}
	}
	for name, text := range planted {
		for at := len(text); at > 0; at-- { // from the end, so that the offsets hold
			if ask := asks[name][at]; ask != "" {
				text = text[:at] + ask + text[at:]
			}
		}
		planted[name] = text
	}
	planted["planted_mutant.go"] = chosenFile
	return planted, nil
}

// compare returns the functions of a file that differ, as they are in text. The
// rest of the file must be the same.
func compare(name, source, text string) (changed []function, err error) {
	was, rest, err := functions(name, source)
	if err != nil {
		return nil, err
	}
	is, restIs, err := functions(name, text)
	if err != nil {
		return nil, err
	}
	if len(was) != len(is) || rest != restIs {
		return nil, fmt.Errorf("it changes more of %s than functions", name)
	}
	for i, f := range is {
		if f.text != was[i].text {
			f.brace = was[i].brace
			changed = append(changed, f)
		}
	}
	return changed, nil
}

// functions splits a file into its functions and the rest.
func functions(name, source string) (all []function, rest string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	at := 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		offset := func(p token.Pos) int { return fset.Position(p).Offset }
		from, to := offset(f.Pos()), offset(f.End())
		rest += source[at:from]
		at = to
		all = append(all, function{f, source[from:to], offset(f.Name.Pos()) - from, offset(f.Name.End()) - from, offset(f.Body.Lbrace) + 1})
	}
	return all, rest + source[at:], nil
}

// call is a call of alias, of the signature of f, from within f.
func (f *function) call(alias string) (string, error) {
	var args []string
	for _, p := range f.Type.Params.List {
		for _, n := range p.Names {
			arg := n.Name
			if _, ok := p.Type.(*ast.Ellipsis); ok {
				arg += "..."
			}
			args = append(args, arg)
		}
		if len(p.Names) == 0 {
			return "", fmt.Errorf("%s has a parameter without a name", f.Name.Name)
		}
	}
	call := alias + "(" + strings.Join(args, ", ") + ")"
	if f.Recv != nil {
		if len(f.Recv.List[0].Names) == 0 {
			return "", fmt.Errorf("%s has a receiver without a name", f.Name.Name)
		}
		call = f.Recv.List[0].Names[0].Name + "." + call
	}
	if f.Type.Results != nil {
		return "return " + call, nil
	}
	return call + "\n\t\treturn", nil
}
