package omdp

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Versions of services and ranges of them, by semantic versioning and as npm
// writes ranges. A range is read once for each name that is asked for, as
// anybody may write one, and the newest version in it found by bisection.

// version is a release, by semantic versioning; pre is what follows a minus.
type version struct {
	n   [3]uint64
	pre string
}

// parseVersion reads 1.2.3, v1.2.3, 1.2.3-pre; what follows a plus is ignored.
func parseVersion(s string) (v version, ok bool) {
	v, parts, ok := parsePartial(s)
	return v, ok && parts == 3
}

// parsePartial reads a version of which the last numbers may be missing, or x or *.
func parsePartial(s string) (v version, parts int, ok bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "="), "v")
	s, _, _ = strings.Cut(s, "+")
	s, v.pre, _ = strings.Cut(s, "-")
	if s == "" {
		return v, 0, true
	}
	open := false
	for i, f := range strings.Split(s, ".") {
		if i == 3 {
			return v, 0, false
		}
		if f == "x" || f == "X" || f == "*" {
			open = true
			continue
		}
		n, err := strconv.ParseUint(f, 10, 53)
		if err != nil || open {
			return v, 0, false
		}
		v.n[i] = n
		parts = i + 1
	}
	return v, parts, true
}

func (v version) compare(w version) int {
	for i := range v.n {
		if c := cmp.Compare(v.n[i], w.n[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	return comparePre(strings.Split(v.pre, "."), strings.Split(w.pre, "."))
}

func comparePre(a, b []string) int {
	for i := range min(len(a), len(b)) {
		x, errX := strconv.ParseUint(a[i], 10, 53)
		y, errY := strconv.ParseUint(b[i], 10, 53)
		c := strings.Compare(a[i], b[i])
		switch {
		case errX == nil && errY == nil:
			c = int(min(max(int64(x)-int64(y), -1), 1))
		case errX == nil:
			c = -1
		case errY == nil:
			c = 1
		}
		if c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// versioned is a service that told its version.
type versioned struct {
	*service
	version version
}

// newer files s among the versions of a name, the newest first.
func newer(all []versioned, s *service, v version) []versioned {
	return slices.Insert(all, firstUnder(all, bound{version: v}), versioned{s, v})
}

// firstUnder is the place of the first of all, the newest first, that lies below b.
func firstUnder(all []versioned, b bound) int {
	i, _ := slices.BinarySearchFunc(all, b, func(x versioned, b bound) int {
		if b.before(x.version) {
			return -1
		}
		return 1
	})
	return i
}

// bestVersion is the newest of services with workers that a range allows: one of
// its alternatives, which || separates.
func bestVersion(all []versioned, wanted string) (s *service) {
	if len(all) == 0 {
		return nil
	}
	best := len(all)
	for alternative := range strings.SplitSeq(wanted, "||") {
		a := parseSpan(alternative)
		for i := firstUnder(all, a.to); i < best && a.from.before(all[i].version); i++ {
			if all[i].workers > 0 && a.takes(all[i].version) {
				best, s = i, all[i].service
			}
		}
	}
	return s
}

// bound lies right before a version, or right after it.
type bound struct {
	version
	after bool
}

// before tells whether b lies before a version.
func (b bound) before(v version) bool {
	c := b.compare(v)
	return c < 0 || c == 0 && !b.after
}

// lowest and highest are around all versions.
var (
	lowest  = bound{version: version{pre: "0"}}
	highest = bound{version: version{n: [3]uint64{math.MaxUint64}}}
)

// span is what is left of the versions by comparisons that all hold: those
// between two bounds. A pre-release is among them only if one of its own release
// was named.
type span struct {
	from, to bound
	named    [][3]uint64 // releases of which a pre-release was named
}

func (s *span) takes(v version) bool {
	return (v.pre == "" || slices.Contains(s.named, v.n)) && s.from.before(v) && !s.to.before(v)
}

// above and below leave of s what is on one side of b.
func (s *span) above(b bound) {
	if s.from.compareBound(b) < 0 {
		s.from = b
	}
}

func (s *span) below(b bound) {
	if b.compareBound(s.to) < 0 {
		s.to = b
	}
}

func (b bound) compareBound(c bound) int {
	switch d := b.compare(c.version); {
	case d != 0 || b.after == c.after:
		return d
	case c.after:
		return -1
	}
	return 1
}

// parseSpan reads comparisons with spaces between. What is none allows nothing.
func parseSpan(text string) span {
	s := span{from: lowest, to: highest}
	f := strings.Fields(text)
	for i := 0; i < len(f); i++ {
		if i+2 < len(f) && f[i+1] == "-" { // 1.2.3 - 2.3.4
			s.compare(">=", f[i])
			s.compare("<=", f[i+2])
			i += 2
			continue
		}
		n := len(f[i]) - len(strings.TrimLeft(f[i], "^~<>="))
		op, rest := f[i][:n], f[i][n:]
		if rest == "" && n > 0 && i+1 < len(f) { // >= 1.2.3
			i++
			rest = f[i]
		}
		s.compare(op, rest)
	}
	return s
}

// compare leaves of s what holds one comparison, too.
func (s *span) compare(op, text string) {
	w, parts, ok := parsePartial(text)
	if w.pre != "" {
		s.named = append(s.named, w.n)
	}
	// Around what text leaves open: 1.2 is all from 1.2.0 to 1.2.x.
	from, to := bound{version: w}, bound{w, true}
	if 0 < parts && parts < 3 {
		to = bound{version: bump(w, parts-1)}
	}
	switch {
	case !ok, parts == 0 && (op == "<" || op == ">"):
		s.below(lowest)
	case op == ">=":
		s.above(from)
	case op == ">":
		s.above(to)
	case op == "<":
		s.below(from)
	case op != "<=" && op != "^" && op != "~" && op != "~>" && op != "" && op != "=":
		s.below(lowest)
	case parts == 0: // any
	case op == "<=":
		s.below(to)
	case op == "^":
		at := 0 // the first number that is not 0
		for at < parts-1 && w.n[at] == 0 {
			at++
		}
		s.above(from)
		s.below(bound{version: bump(w, at)})
	case op == "~" || op == "~>":
		s.above(from)
		s.below(bound{version: bump(w, min(parts-1, 1))})
	default:
		s.above(from)
		s.below(to)
	}
}

// bump is the lowest version with a higher number at i.
func bump(v version, i int) version {
	v.n[i]++
	for j := i + 1; j < len(v.n); j++ {
		v.n[j] = 0
	}
	v.pre = "0" // and before its pre-releases
	return v
}
