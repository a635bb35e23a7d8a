package omdp

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Names of services that stand for more than themselves, where a worker's
// dialect has them: "jobs*" serves whatever begins with jobs, the longest such
// name first; "jobs@1.2.3" serves who asks for jobs@ and a range of versions.

// learn notes what a service stands for, as a worker of dialect w serves it, and
// gives it what waits elsewhere for one that serves it.
func (d *dispatcher) learn(s *service, w *wire) {
	fresh := w.patterns && !s.pattern && d.name(s)
	if s.pattern || d.wildcards+len(d.versions) > 0 {
		if fresh || s.workers == 1 {
			d.redirect(s)
		}
	}
}

// name files a service whose name stands for more than itself.
func (d *dispatcher) name(s *service) bool {
	base, version, at := strings.Cut(s.name, "@")
	_, exact := parseVersion(version)
	switch {
	case strings.HasSuffix(s.name, "*"):
		d.wildcards++
	case at && exact:
		d.versions[base] = append(d.versions[base], s)
	default:
		return false
	}
	s.pattern = true
	return true
}

// may tells whether s may serve a name, if nothing fits that better.
func (s *service) may(name string) bool {
	switch {
	case name == s.name:
		return true
	case !s.pattern:
		return false
	case strings.HasSuffix(s.name, "*"):
		return strings.HasPrefix(name, s.name[:len(s.name)-1])
	}
	base, _, _ := strings.Cut(s.name, "@")
	return len(name) > len(base) && name[len(base)] == '@' && name[:len(base)] == base
}

// unversion forgets it.
func (d *dispatcher) unversion(s *service) {
	if !s.pattern {
		return
	}
	if strings.HasSuffix(s.name, "*") {
		d.wildcards--
		return
	}
	base, _, _ := strings.Cut(s.name, "@")
	d.versions[base] = slices.DeleteFunc(d.versions[base], func(x *service) bool { return x == s })
	if len(d.versions[base]) == 0 {
		delete(d.versions, base)
	}
}

// resolve finds the service that serves a name: the one that has it, if it has
// workers or nothing else fits.
func (d *dispatcher) resolve(name []byte) *service {
	s := d.services[string(name)]
	if d.wildcards+len(d.versions) == 0 || s != nil && s.workers > 0 {
		return s
	}
	if other := d.match(name); other != nil {
		return other
	}
	return s
}

func (d *dispatcher) match(name []byte) *service {
	if base, wanted, ok := bytes.Cut(name, []byte{'@'}); ok && len(d.versions) > 0 {
		if s := bestVersion(d.versions[string(base)], string(wanted)); s != nil {
			return s
		}
	}
	if d.wildcards == 0 {
		return nil
	}
	pattern := append(d.nameText[:0], name...)
	for n := min(len(name), maxService-1); n >= 0; n-- {
		pattern = append(pattern[:n], '*')
		if s := d.services[string(pattern)]; s != nil && s.pattern && s.workers > 0 {
			d.nameText = pattern
			return s
		}
	}
	d.nameText = pattern
	return nil
}

// redirect gives what waits at services without workers to s, which has its first
// worker now, or stands for more than before. What waits at a pattern or a version
// was asked for by other names than that.
func (d *dispatcher) redirect(s *service) {
	var names []string
	for name, from := range d.services { // order does not matter: sorted below
		if from != s && from.workers == 0 && from.queued > 0 && (from.pattern || s.may(name) && d.resolve([]byte(name)) == s) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		from := d.services[name]
		var moved []*request
		for t := from.turns.head; t != nil; t = t.next {
			for k := t.owner.requests.head; k != nil; k = k.next {
				if asks := k.owner.asks(); !from.pattern || s.may(asks) && d.resolve([]byte(asks)) == s {
					moved = append(moved, k.owner)
				}
			}
		}
		for _, r := range moved {
			d.move(r, s)
		}
		d.releaseService(from)
	}
}

// rehome gives what waits at a service whose last worker has gone to those that
// serve its name now.
func (d *dispatcher) rehome(from *service) {
	if from.queued == 0 || d.wildcards+len(d.versions) == 0 {
		return
	}
	var all []*request
	for t := from.turns.head; t != nil; t = t.next {
		for k := t.owner.requests.head; k != nil; k = k.next {
			all = append(all, k.owner)
		}
	}
	var gave []*service
	for _, r := range all {
		if to := d.resolve([]byte(r.asks())); to != nil && to.workers > 0 {
			d.move(r, to)
			if !slices.Contains(gave, to) {
				gave = append(gave, to)
			}
		}
	}
	for _, s := range gave {
		if !s.gone {
			d.pump(s)
		}
	}
}

// move has a queued request wait at another service.
func (d *dispatcher) move(r *request, to *service) {
	d.dequeue(r)
	r.service.requests--
	asks := r.asks()
	if r.bridge.name = ""; asks != to.name {
		r.bridge.name = asks
	}
	r.service = to
	to.requests++
	d.enqueue(r, false)
}

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
	if c := slices.Compare(v.n[:], w.n[:]); c != 0 {
		return c
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

// bestVersion is the newest of services with workers that a range allows.
func bestVersion(all []*service, wanted string) (best *service) {
	var newest version
	for _, s := range all {
		_, text, _ := strings.Cut(s.name, "@")
		v, ok := parseVersion(text)
		if ok && s.workers > 0 && allows(wanted, v) && (best == nil || v.compare(newest) > 0) {
			best, newest = s, v
		}
	}
	return best
}

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

// bump is the lowest version with a higher number at i.
func bump(v version, i int) version {
	v.n[i]++
	for j := i + 1; j < len(v.n); j++ {
		v.n[j] = 0
	}
	v.pre = "0" // and before its pre-releases
	return v
}
