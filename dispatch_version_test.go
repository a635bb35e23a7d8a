package omdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The model of ranges: a version is looked at by itself, comparison by comparison.

// allows tells whether a range, as npm writes them, allows a version:
// alternatives by ||, of comparisons that all hold.
func allows(wanted string, v version) bool {
	for alternative := range strings.SplitSeq(wanted, "||") {
		if allowsAll(strings.Fields(alternative), v) {
			return true
		}
	}
	return false
}

func allowsAll(comparisons []string, v version) bool {
	sameRelease := v.pre == "" // a pre-release is allowed only by one of its own release
	for i := 0; i < len(comparisons); i++ {
		c := comparisons[i]
		if i+2 < len(comparisons) && comparisons[i+1] == "-" { // 1.2.3 - 2.3.4
			if !within(">=", c, v, &sameRelease) || !within("<=", comparisons[i+2], v, &sameRelease) {
				return false
			}
			i += 2
			continue
		}
		n := len(c) - len(strings.TrimLeft(c, "^~<>="))
		op, rest := c[:n], c[n:]
		if rest == "" && n > 0 && i+1 < len(comparisons) { // >= 1.2.3
			i++
			rest = comparisons[i]
		}
		if !within(op, rest, v, &sameRelease) {
			return false
		}
	}
	return sameRelease
}

// within tells whether v holds one comparison.
func within(op, text string, v version, sameRelease *bool) bool {
	w, parts, ok := parsePartial(text)
	if !ok {
		return false
	}
	if w.pre != "" && w.n == v.n {
		*sameRelease = true
	}
	// The first version after those that text leaves open.
	next := version{n: w.n}
	if parts > 0 && parts < 3 {
		next = bump(w, parts-1)
	}
	switch op {
	case ">=":
		return v.compare(w) >= 0
	case "<":
		return parts > 0 && v.compare(w) < 0
	case ">":
		return parts == 3 && v.compare(w) > 0 || parts > 0 && parts < 3 && v.compare(next) >= 0
	case "<=":
		return parts == 0 || parts == 3 && v.compare(w) <= 0 || parts < 3 && v.compare(next) < 0
	case "^":
		if parts == 0 {
			return true
		}
		at := 0
		for at < parts-1 && w.n[at] == 0 {
			at++
		}
		return v.compare(w) >= 0 && v.compare(bump(w, at)) < 0
	case "~", "~>":
		if parts == 0 {
			return true
		}
		return v.compare(w) >= 0 && v.compare(bump(w, min(parts-1, 1))) < 0
	case "", "=":
		if parts == 0 {
			return true
		}
		if parts < 3 {
			return v.compare(w) >= 0 && v.compare(next) < 0
		}
		return v.compare(w) == 0
	}
	return false
}

// TestVersionsProperty: the newest version that a range allows is found, whatever
// order they come in, and only among those that have workers.
func TestVersionsProperty(t *testing.T) {
	number := rapid.SampledFrom([]string{"0", "1", "2", "3", "10"})
	pre := rapid.SampledFrom([]string{"", "", "", "-0", "-1", "-rc.1", "-rc.2", "-rc", "-a.b", "+5"})
	full := rapid.Custom(func(t *rapid.T) string {
		return number.Draw(t, "a") + "." + number.Draw(t, "b") + "." + number.Draw(t, "c") + pre.Draw(t, "pre")
	})
	partial := rapid.OneOf(full, full, number, rapid.Custom(func(t *rapid.T) string { return number.Draw(t, "a") + "." + number.Draw(t, "b") }),
		rapid.SampledFrom([]string{"", "x", "*", "1.x", "2.*", "1.2.x", "x.1", "v1.2.3", "=1", "1..2", "1.2.3.4", "*-rc", "no", "99999999999999999999"}))
	op := rapid.SampledFrom([]string{"", "", "=", ">", ">=", "<", "<=", "^", "~", "~>", "^^", "> ", "<= "})
	comparison := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 7).Draw(t, "hyphen") == 0 {
			return partial.Draw(t, "from") + " - " + partial.Draw(t, "to")
		}
		return op.Draw(t, "op") + partial.Draw(t, "version")
	})
	rapid.Check(t, func(t *rapid.T) {
		var all []versioned
		var services []*service
		for i, text := range rapid.SliceOfN(full, 0, 12).Draw(t, "versions") {
			v, ok := parseVersion(text)
			if !ok {
				t.Fatalf("%q is no version", text)
			}
			s := &service{name: fmt.Sprintf("%d@%s", i, text), workers: rapid.IntRange(0, 2).Draw(t, "workers")}
			services = append(services, s)
			all = newer(all, s, v)
		}
		if !slices.IsSortedFunc(all, func(a, b versioned) int { return b.version.compare(a.version) }) {
			t.Fatalf("not the newest first: %v", all)
		}
		var wanted []string
		for range rapid.IntRange(1, 3).Draw(t, "alternatives") {
			wanted = append(wanted, strings.Join(rapid.SliceOfN(comparison, 0, 3).Draw(t, "comparisons"), " "))
		}
		text := strings.Join(wanted, rapid.SampledFrom([]string{"||", " || "}).Draw(t, "or"))
		var want *service
		var newest version
		for _, s := range services {
			_, at, _ := strings.Cut(s.name, "@")
			v, _ := parseVersion(at)
			if s.workers > 0 && allows(text, v) && (want == nil || v.compare(newest) > 0) {
				want, newest = s, v
			}
		}
		if got := bestVersion(all, text); got != want {
			t.Fatalf("I10: %q: got %v, want %v, of %v", text, got, want, all)
		}
	})
}

// BenchmarkRange: the worst that a name of 255 bytes can ask of many versions.
func BenchmarkRange(b *testing.B) {
	var all []versioned
	for i := range 500 {
		v, _ := parseVersion(fmt.Sprintf("1.%d.0-rc", i))
		all = newer(all, &service{workers: 1}, v)
	}
	for name, wanted := range map[string]string{"alternatives": strings.Repeat("1||", 84) + "1", "comparisons": strings.Repeat("1 ", 127)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				bestVersion(all, wanted)
			}
		})
	}
}
