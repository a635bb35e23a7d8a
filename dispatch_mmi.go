package omdp

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Services of the broker's own: MMI (RFC 8) in every dialect, and the directory
// of PIGATO.

const (
	mmiPrefix = "mmi."
	directory = "$dir"
)

func isInternal(service []byte) bool {
	return len(service) >= len(mmiPrefix) && string(service[:len(mmiPrefix)]) == mmiPrefix
}

// internal answers a REQUEST that is for the broker itself, and reports whether it was.
func (d *dispatcher) internal(p *peer, m *message) bool {
	if len(m.service) == 0 || m.service[0] != mmiPrefix[0] && m.service[0] != directory[0] {
		return false
	}
	var answer []byte
	switch name := string(m.service); {
	case isInternal(m.service):
		answer = d.mmi(name, m)
	case name == directory && p.wire.patterns && !d.hasWorkers(directory):
		answer = d.workersOf(nameIn(m))
	default:
		return false
	}
	d.stats.Internal++
	if !d.mayTell(p) {
		return true
	}
	s := &d.say
	*s = message{op: opReply, marks: p.adv}
	if m.pieces {
		s.says(saidStatus, statusMalformed, formJSON, nil)
		s.executed = "false"
	} else {
		s.says(saidValue, "", formJSON, answer)
	}
	if !p.fits(s) {
		s.says(saidStatus, statusTooLarge, formJSON, nil)
		s.executed = "false"
	}
	p.wire.appendReply(d.open(p), target{p.id, string(m.service), m.rid}, s)
	d.close(p, origin{})
	return true
}

func (d *dispatcher) hasWorkers(name string) bool {
	s := d.services[name]
	return s != nil && s.workers > 0
}

// nameIn is the name of a service as the data of a request has it.
func nameIn(m *message) []byte {
	if m.form == formRaw {
		return m.data
	}
	if s, ok := unquote(m.data); ok {
		return s
	}
	return m.data
}

// served is resolve for a name that came as data: what is no name is not served,
// and not looked at, however long it is.
func (d *dispatcher) served(name []byte) *service {
	if !validService(name) {
		return nil
	}
	return d.resolve(name)
}

// mmi is the answer to a question by its name. RFC 8 has codes of three digits.
func (d *dispatcher) mmi(name string, m *message) []byte {
	switch name {
	case "mmi.service":
		if s := d.served(nameIn(m)); s != nil && s.workers > 0 {
			return []byte("200")
		}
		return []byte("404")
	case "mmi.services", "mmi.stats":
		return d.told(name)
	}
	return []byte("501")
}

// mmiAge is how old the answer to a question may be that costs more than the asking.
const mmiAge = 10 * time.Millisecond

type mmiAnswer struct {
	text []byte
	at   instant
}

func (d *dispatcher) told(name string) []byte {
	a, text := &d.mmiServices, d.servicesJSON
	if name == "mmi.stats" {
		a, text = &d.mmiStats, d.statsJSON
	}
	if a.text == nil || d.now-a.at >= mmiAge {
		*a = mmiAnswer{text(), d.now}
	}
	return a.text
}

func (d *dispatcher) statsJSON() []byte {
	b, err := json.Marshal(d.snapshot(d.now))
	if err != nil {
		return []byte("501")
	}
	return b
}

// servicesJSON lists the services: [{"name":…,"workers":…,"free":…,"queued":…,"inProgress":…}].
func (d *dispatcher) servicesJSON() []byte {
	type entry struct {
		Name       string `json:"name"`
		Workers    int    `json:"workers"`
		Free       int    `json:"free"`
		Queued     int    `json:"queued"`
		InProgress int    `json:"inProgress"`
	}
	all := []entry{}
	for _, name := range slices.Sorted(maps.Keys(d.services)) { // order does not matter: sorted
		s := d.services[name]
		all = append(all, entry{strings.ToValidUTF8(name, "\uFFFD"), s.workers, s.ready.n, s.queued, s.requests - s.queued})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(all) != nil {
		return []byte("501")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// workersOf lists the ids of a service's workers: ["…"]. Of a dialect where nobody is
// told them they stay secret: who knows one can take the worker's place.
func (d *dispatcher) workersOf(name []byte) []byte {
	s := d.served(name)
	switch {
	case s == nil || s.workers == 0:
		return []byte("[]")
	case s.directory != nil: // it costs a look at every peer
		return s.directory
	}
	b := []byte{'['}
	d.eachPeer(func(p *peer) {
		if p.service != s {
			return
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		id := p.id
		if !p.wire.patterns {
			id = "worker-" + strconv.Itoa(int(p.num))
		}
		b = appendJSONString(b, id)
	})
	s.directory = append(b, ']')
	return s.directory
}
