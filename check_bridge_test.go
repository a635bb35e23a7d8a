package omdp

import "strings"

// What check says of peers of several dialects.

// checkBridge: what a request keeps for the dialects of its peers is counted,
// and is kept only while it is of use.
func (k *checker) checkBridge(r *request) {
	b := r.bridge
	if b == nil {
		b = &bridge{}
	}
	size := int64(0)
	for _, p := range b.parts {
		size += int64(len(p)) + partialOverhead
	}
	k.joined += size
	if size != b.size || size > k.d.lim.frame {
		k.bad("S4, S5: request %q: %d bytes of partials wait, counted %d", r.rid(), b.size, size)
	}
	if len(b.parts) > 0 && (r.client.wire.partials || k.d.lim.dropPartials || r.slot == nil) {
		k.bad("request %q: partials wait for a final that its client does not need them with", r.rid())
	}
	k.queuedBytes += b.keeps()
	if sl := r.slot; b.has && sl == nil || b.whole && (!b.has || !sl.worker.wire.rejects && b.form == formJSON) {
		k.bad("S4: request %q: its data is kept for nobody", r.rid())
	}
	if b.back > 0 && b.back >= r.service.workers && r.queue == nil && r.slot == nil {
		k.bad("request %q: handed back %d times, by %d workers", r.rid(), b.back, r.service.workers)
	}
	if b.name != "" && !r.service.pattern {
		k.bad("I10: request %q asks for %q and is at %q, which stands for nothing", r.rid(), b.name, r.service.name)
	}
	if b.name != "" && !k.standsFor(r.service, b.name) {
		k.bad("I10: request %q asks for %q and is at %q", r.rid(), b.name, r.service.name)
	}
	if !r.client.wire.numbered && (r.window != 0 || r.grows) {
		k.bad("request %q: credit, of a client that knows of none", r.rid())
	}
}

// standsFor tells whether a service's name is a pattern that name matches.
func (k *checker) standsFor(s *service, name string) bool {
	if prefix, ok := strings.CutSuffix(s.name, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	base, version, _ := strings.Cut(s.name, "@")
	asked, wanted, _ := strings.Cut(name, "@")
	v, ok := parseVersion(version)
	return ok && base == asked && allows(wanted, v)
}

// checkBridges: the tables of patterns and the services agree, and what is joined
// is counted.
func (k *checker) checkBridges() {
	d := k.d
	if k.joined != d.joined {
		k.bad("S4: %d bytes of joined partials, counted %d", d.joined, k.joined)
	}
	if len(d.relieved) != 0 {
		k.bad("S2: a worker with a place that got free was not dealt with")
	}
	wildcards, versions := 0, 0
	for i := range k.services {
		s := k.services[i].s
		if !s.pattern {
			continue
		}
		if strings.HasSuffix(s.name, "*") {
			wildcards++
			continue
		}
		base, _, _ := strings.Cut(s.name, "@")
		n := 0
		for _, o := range d.versions[base] {
			if o.service == s {
				n++
			}
		}
		if versions++; n != 1 {
			k.bad("service %q is %d times among the versions of %q", s.name, n, base)
		}
	}
	for base, all := range d.versions {
		versions -= len(all)
		if len(all) == 0 {
			k.bad("S3: %q has no versions and is kept", base)
		}
	}
	for i := range k.services { // I13, with names that stand for others
		s := k.services[i].s
		for t := s.turns.head; t != nil && s.workers == 0; t = t.next {
			for e := t.owner.requests.head; e != nil; e = e.next {
				if o := d.resolve([]byte(e.owner.asks())); o != nil && o.workers > 0 {
					k.bad("I13: request %q waits at %q, which has no workers; %q serves it", e.owner.rid(), s.name, o.name)
				}
			}
		}
	}
	if wildcards != d.wildcards || versions != 0 {
		k.bad("S4: %d wildcards, counted %d; versions of services that are gone, or not: %d", d.wildcards, wildcards, versions)
	}
}

// checkForeign: what holds for a worker by its dialect.
func (k *checker) checkForeign(w *peer) {
	x := w.wire
	if w.adv && x != wires[OMDP] {
		k.bad("worker %q: advertised, and speaks %v", w.id, x.dialect)
	}
	if w.unclear && (!x.vague || w.adv || k.d.dialects[w.listener] != Auto) {
		k.bad("worker %q: unclear, though nothing is", w.id)
	}
	if w.clearAt > k.d.now && w.held > 0 {
		k.bad("worker %q: was given a request before it could show its dialect", w.id)
	}
	for e := w.slots.head; e != nil; e = e.next {
		sl := e.owner
		if x.takesOver && sl.req == nil {
			k.bad("S2: worker %q: a place drains, though it takes the next request at once", w.id)
		}
		if r := sl.req; r != nil && x.rejects && (r.bridge == nil || !r.bridge.has) && k.d.lim.totalBytes >= 1<<30 { // else there may have been no room
			k.bad("worker %q: may hand back a request of which nothing is kept", w.id)
		}
	}
}
