package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mutant is one planted fault: a file of patches/. Its first line says what is
// wrong, the second which invariants that breaks; a unified diff follows.
type mutant struct {
	name   string
	what   string
	breaks string
	hunks  []hunk
}

// hunk replaces a piece of a file by another. The numbers of its lines are of
// no interest: the piece is to be found, once.
type hunk struct{ file, old, new string }

// readMutants reads every patch of a directory, in the order of their names.
func readMutants(dir string) ([]mutant, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var all []mutant
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m, err := parseMutant(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		m.name = strings.TrimSuffix(filepath.Base(name), ".patch")
		all = append(all, m)
	}
	return all, nil
}

func parseMutant(text string) (m mutant, err error) {
	head, diff, _ := strings.Cut(text, "\n--- ")
	what, breaks, ok := strings.Cut(strings.TrimSpace(head), "\nBreaks: ")
	if !ok || what == "" || strings.Contains(what+breaks, "\n") {
		return m, errors.New("it does not begin with a line that says what is wrong, and one \"Breaks: …\"")
	}
	m.what, m.breaks = what, breaks
	file := ""
	for line := range strings.Lines("--- " + diff) {
		h := len(m.hunks) - 1
		switch kind, rest := line[:1], line[1:]; {
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ b/"):
			file = strings.TrimSpace(strings.TrimPrefix(line, "+++ b/"))
		case strings.HasPrefix(line, "@@ ") && file != "":
			m.hunks = append(m.hunks, hunk{file: file})
		case h < 0:
			return m, fmt.Errorf("a line before the first hunk: %q", line)
		case kind == " ":
			m.hunks[h].old += rest
			m.hunks[h].new += rest
		case kind == "-":
			m.hunks[h].old += rest
		case kind == "+":
			m.hunks[h].new += rest
		default:
			return m, fmt.Errorf("not a line of a unified diff: %q", line)
		}
	}
	if len(m.hunks) == 0 {
		return m, errors.New("it changes nothing")
	}
	return m, nil
}

// apply returns the files of the tree at root that m changes, as it makes them.
func (m *mutant) apply(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, h := range m.hunks {
		text, ok := files[h.file]
		if !ok {
			var err error
			if text, err = read(root, h.file); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
		}
		if n := strings.Count(text, h.old); n != 1 {
			return nil, fmt.Errorf("%s does not apply any more: what it changes is %d times in %s, want once:\n%s", m.name, n, h.file, h.old)
		}
		files[h.file] = strings.Replace(text, h.old, h.new, 1)
	}
	return files, nil
}

func read(root, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(root, name))
	return string(b), err
}
