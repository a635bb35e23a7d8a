package omdp

import (
	"bytes"
	"slices"
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
	v, exact := parseVersion(version)
	switch {
	case strings.HasSuffix(s.name, "*"):
		d.wildcards++
	case at && exact:
		d.versions[base] = newer(d.versions[base], s, v)
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
	d.versions[base] = slices.DeleteFunc(d.versions[base], func(x versioned) bool { return x.service == s })
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
	b := d.bridgeOf(r)
	if b.name = ""; asks != to.name {
		b.name = asks
	}
	r.service = to
	to.requests++
	d.enqueue(r, false)
}
