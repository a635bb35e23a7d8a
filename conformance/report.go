package conformance

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Print writes a line for each result, and, of those that failed, what was
// expected and what came. It returns how many binding requirements were not
// met, and how many others.
func (k *Kit) Print(w io.Writer, results []Result, verbose bool) (binding, other int) {
	passed, skipped := 0, 0
	for i := range results {
		r := &results[i]
		status := "pass"
		switch {
		case r.Skipped != "":
			status = "skip"
			skipped++
		case r.Failed() && k.bindingOf(r.Script):
			status = "FAIL"
			binding++
		case r.Failed():
			status = "fail"
			other++
		default:
			passed++
		}
		if status == "skip" && !verbose {
			continue
		}
		fmt.Fprintf(w, "%s  %-45s %s\n", status, r.Script.Name, k.levelsOf(r.Script))
		if r.Skipped != "" {
			fmt.Fprintf(w, "      %s\n", r.Skipped)
		}
		if r.Failed() {
			fmt.Fprintf(w, "      line %d: %s\n      want %s\n      got  %s\n", r.Line, r.Step, r.Want, r.Got)
		}
		if verbose {
			for _, m := range r.Trace {
				fmt.Fprintf(w, "      | %s\n", m)
			}
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed of what has to be, %d of what should or may be, %d not run\n", passed, binding, other, skipped)
	return binding, other
}

// bindingOf tells whether a script shows a requirement that binds.
func (k *Kit) bindingOf(s *Script) bool {
	return slices.ContainsFunc(s.Requirements, func(id string) bool { return k.Find(id).Binding() })
}

func (k *Kit) levelsOf(s *Script) string {
	texts := make([]string, len(s.Requirements))
	for i, id := range s.Requirements {
		texts[i] = id + " " + k.Find(id).Level
	}
	return strings.Join(texts, ", ")
}

// Select returns the scripts that a word selects: a script's name or the
// beginning of it, a requirement's id or the beginning of it. Empty selects all.
func (k *Kit) Select(word string) (all []*Script) {
	for _, s := range k.Scripts {
		under := func(id string) bool { return id == word || strings.HasPrefix(id, word+".") }
		if word == "" || strings.HasPrefix(s.Name, word) || slices.ContainsFunc(s.Requirements, under) {
			all = append(all, s)
		}
	}
	return all
}

// Document is the checklist: every requirement with its level, the scripts that
// show it, and whether they passed.
func (k *Kit) Document(results []Result) string {
	var b strings.Builder
	b.WriteString(preface)
	k.totals(&b, results)
	document, section := "", ""
	for _, r := range k.Requirements {
		if r.Document != document {
			document, section = r.Document, ""
			fmt.Fprintf(&b, "\n## %s\n", document)
		}
		if r.Section != section {
			section = r.Section
			fmt.Fprintf(&b, "\n### %s\n\n| | id | level | requirement | shown by |\n|---|---|---|---|---|\n", section)
		}
		shown := r.Untested
		switch {
		case shown != "":
			shown = "not tested: " + shown
		case deviations[r.ID] != "":
			shown = k.shown(r) + "; not met: " + deviations[r.ID]
		default:
			shown = k.shown(r)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", k.mark(r, results), r.ID, r.Level, strings.ReplaceAll(escape(r.Text), "|", `\|`), shown)
	}
	return b.String()
}

const preface = `# Conformance

What the Majordomo protocols and OMDP's specification ask for, sentence by
sentence, and how this library is known to do it. This file is written by
` + "`make conformance`" + `, which plays the scripts of ` + "`conformance/scripts`" + ` to this
library's broker, worker and client; each is an exchange of raw frames. The same
scripts run against any other peer, see ` + "`go run ./conformance/cmd -h`" + `.

✅ all scripts pass; ❌ one fails; ⏳ one was not run; – no script can show it, for the reason given.
"defines" is the level of sentences without a key word that say what a message
is or what a peer does; they bind as MUST does.

`

// escape keeps Markdown from reading the text as something else.
func escape(s string) string {
	return strings.NewReplacer("*", `\*`, "<", "&lt;").Replace(s)
}

// shown is the names of a requirement's scripts.
func (k *Kit) shown(r *Requirement) string {
	var names []string
	for _, s := range k.Of(r) {
		names = append(names, fmt.Sprintf("[%s](../conformance/scripts/%s.txt)", s.Name[strings.IndexByte(s.Name, '/')+1:], s.Name))
	}
	return strings.Join(names, ", ")
}

func (k *Kit) mark(r *Requirement, results []Result) string {
	if r.Untested != "" {
		return "–"
	}
	mark := "✅"
	for _, s := range k.Of(r) {
		i := slices.IndexFunc(results, func(x Result) bool { return x.Script == s })
		switch {
		case i >= 0 && results[i].Failed():
			return "❌"
		case i < 0 || !results[i].Passed():
			mark = "⏳"
		}
	}
	return mark
}

// totals is a table of how many requirements of each document are met.
func (k *Kit) totals(b *strings.Builder, results []Result) {
	b.WriteString("| document | MUST, SHALL | defines | SHOULD | MAY | not tested | scripts |\n|---|---|---|---|---|---|---|\n")
	var documents []string
	for _, r := range k.Requirements {
		if !slices.Contains(documents, r.Document) {
			documents = append(documents, r.Document)
		}
	}
	for _, d := range documents {
		met, all := map[string]int{}, map[string]int{}
		scripts := map[*Script]bool{}
		for _, r := range k.Requirements {
			if r.Document != d {
				continue
			}
			kind := strings.TrimSuffix(r.Level, " NOT")
			if kind == "SHALL" {
				kind = "MUST"
			}
			if r.Untested != "" {
				kind = "untested"
			}
			all[kind]++
			if k.mark(r, results) == "✅" {
				met[kind]++
			}
			for _, s := range k.Of(r) {
				scripts[s] = true
			}
		}
		fmt.Fprintf(b, "| %s |", d)
		for _, kind := range []string{"MUST", "defines", "SHOULD", "MAY"} {
			if all[kind] == 0 {
				b.WriteString(" |")
			} else {
				fmt.Fprintf(b, " %d of %d |", met[kind], all[kind])
			}
		}
		fmt.Fprintf(b, " %d | %d |\n", all["untested"], len(scripts))
	}
}
