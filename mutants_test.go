package omdp_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every planted fault of tools/mutants still applies: each piece of code that
// one changes is there, once. `make mutants` sees whether each is found.
func TestMutantsApply(t *testing.T) {
	names, err := filepath.Glob("tools/mutants/patches/*.patch")
	if err != nil || len(names) < 24 {
		t.Fatalf("got %d patches, %v; want 24 or more", len(names), err)
	}
	sources := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, old, hunks := "", "", 0
		for line := range strings.Lines(string(text) + "@@ the end\n") {
			next, named := strings.CutPrefix(line, "+++ b/")
			switch ends := named || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "@@ "); {
			case ends && old != "":
				hunks++
				if n := strings.Count(sources[file], old); n != 1 {
					t.Errorf("%s: what it changes is %d times in %q, want once:\n%s", name, n, file, old)
				}
				old = ""
			case !ends && (line[0] == ' ' || line[0] == '-'):
				old += line[1:]
			}
			if named {
				file = strings.TrimSpace(next)
				if source, err := os.ReadFile(file); err == nil {
					sources[file] = string(source)
				}
			}
		}
		if hunks == 0 || !strings.Contains(string(text), "\nBreaks: ") {
			t.Errorf("%s has %d hunks and says what it breaks: %v; want some, and that it does", name, hunks, strings.Contains(string(text), "\nBreaks: "))
		}
	}
}
