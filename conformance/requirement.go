package conformance

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// A Requirement is one sentence of a document.
type Requirement struct {
	ID       string
	Document string // its title
	Section  string
	Level    string // MUST, MUST NOT, SHALL, …; "defines" for a sentence without such a word
	Text     string // the sentence, or its beginning
	Untested string // why no script shows it; empty: scripts do
}

// Binding tells whether what does not meet the requirement does not conform.
func (r *Requirement) Binding() bool {
	return strings.HasPrefix(r.Level, "MUST") || strings.HasPrefix(r.Level, "SHALL") || r.Level == "defines"
}

// A Kit is requirements and the scripts that show them.
type Kit struct {
	Requirements []*Requirement
	Scripts      []*Script
}

//go:embed requirements.txt scripts
var files embed.FS

// Load reads the kit that is built in.
func Load() (*Kit, error) {
	text, err := files.ReadFile("requirements.txt")
	if err != nil {
		return nil, err
	}
	tree, err := fs.Sub(files, "scripts")
	if err != nil {
		return nil, err
	}
	return newKit(string(text), tree)
}

func newKit(text string, tree fs.FS) (*Kit, error) {
	k := &Kit{}
	var err error
	if k.Requirements, err = parseRequirements(text); err == nil {
		k.Scripts, err = loadScripts(tree)
	}
	if err == nil {
		err = k.check()
	}
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	return k, nil
}

// Find returns the requirement with an id, or nil.
func (k *Kit) Find(id string) *Requirement {
	for _, r := range k.Requirements {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// Of returns the scripts that show a requirement.
func (k *Kit) Of(r *Requirement) (all []*Script) {
	for _, s := range k.Scripts {
		if slices.Contains(s.Requirements, r.ID) {
			all = append(all, s)
		}
	}
	return all
}

// check holds that every requirement has scripts, or a reason why it has none.
func (k *Kit) check() error {
	for _, s := range k.Scripts {
		for _, id := range s.Requirements {
			if k.Find(id) == nil {
				return fmt.Errorf("%s: there is no requirement %q", s.Name, id)
			}
		}
	}
	for _, r := range k.Requirements {
		if n := len(k.Of(r)); (n == 0) == (r.Untested == "") {
			return fmt.Errorf("requirement %s has %d scripts and the reason %q for none: want one of the two", r.ID, n, r.Untested)
		}
	}
	return nil
}

var (
	levels = []string{"MUST", "MUST NOT", "SHALL", "SHALL NOT", "SHOULD", "SHOULD NOT", "MAY", "defines"}
	id     = regexp.MustCompile(`^[a-z0-9]+(\.[a-z0-9-]+)+$`)
)

// parseRequirements reads lines ID | LEVEL | TEXT below headings, = for a
// document and == for a section. "untested: …" below one says why no script shows it.
func parseRequirements(text string) (all []*Requirement, err error) {
	var document, section string
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fail := func(format string, args ...any) ([]*Requirement, error) {
			return nil, fmt.Errorf("requirements.txt:%d: "+format, append([]any{i + 1}, args...)...)
		}
		if s, ok := strings.CutPrefix(line, "== "); ok {
			section = s
			continue
		}
		if s, ok := strings.CutPrefix(line, "= "); ok {
			document, section = s, ""
			continue
		}
		if why, ok := strings.CutPrefix(line, "untested: "); ok {
			if len(all) == 0 || all[len(all)-1].Untested != "" {
				return fail("no requirement stands before this reason")
			}
			all[len(all)-1].Untested = why
			continue
		}
		fields := strings.SplitN(line, " | ", 3)
		if len(fields) != 3 || document == "" || section == "" {
			return fail("%q: want ID | LEVEL | TEXT below a document and a section", line)
		}
		r := &Requirement{ID: fields[0], Level: fields[1], Text: fields[2], Document: document, Section: section}
		switch {
		case !id.MatchString(r.ID):
			return fail("%q is no id", r.ID)
		case seen[r.ID]:
			return fail("%s stands there twice", r.ID)
		case !slices.Contains(levels, r.Level):
			return fail("level %q is none of %v", r.Level, levels)
		}
		seen[r.ID] = true
		all = append(all, r)
	}
	return all, nil
}
