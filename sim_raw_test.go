package omdp

import (
	"strings"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simRaw is a hostile peer: a client or a worker that forges, repeats and
// garbles. What it may do to others is nothing.
type simRaw struct {
	simProc
	num   int
	b     *simBroker
	link  *simLink
	out   batch.Out
	m     message
	last  []byte // the last message that it sent
	token string // the last that it was given
	rid   string
}

func (r *simRaw) connected(*simLink) {}

func (r *simRaw) lost(l *simLink) {
	if r.link == l {
		r.link = nil
	}
}

func (r *simRaw) due() instant { return never }
func (r *simRaw) turn()        {}
func (r *simRaw) die(kind int) { r.cutAll(kind) }

// start forgets what it knew.
func (r *simRaw) start() { r.link, r.last, r.token, r.rid = nil, r.last[:0], "", "" }

func (r *simRaw) receive(l *simLink, f [][]byte) {
	if parseAtWorker(f, &r.m) && r.m.op == opRequest {
		r.token, r.rid = string(r.m.token), string(r.m.rid)
	}
}

// act sends something; b and c say what.
func (r *simRaw) act(what, c int) {
	w := r.w
	if r.down || r.stopped || r.b.down {
		return
	}
	if r.link == nil || !r.link.peerOpen {
		r.link = w.dial(&r.simProc, r.b, false, c%w.conf.listeners, OMDP)
		r.link.book.rude = true
	}
	if len(w.book.toks) > 0 && what%16 >= 8 && c&1 == 0 { // somebody else's token
		t := &w.book.toks[len(w.book.toks)-1-c%min(len(w.book.toks), 8)]
		r.token = string(t.token[:])
		if t.inst >= 0 {
			r.rid = w.book.calls[w.book.insts[t.inst].call].rid
		}
	}
	if len(w.book.calls) > 0 && c&2 == 0 { // somebody else's id
		r.rid = w.book.calls[len(w.book.calls)-1-c%min(len(w.book.calls), 8)].rid
	}
	if r.rid == "" {
		r.rid = "r"
	}
	token := r.token
	if token == "" {
		token = strings.Repeat("A", tokenLen)
	}
	o := &r.out
	if w.conf.listeners > 1 && what >= 128 {
		r.foreign(what, c, token)
		what = 256
	}
	switch what % 16 {
	case 0:
		if what == 256 { // it said its word
			break
		}
		r.say("C", "2", w.service(byte(c)&1), r.rid, `"x"`, `{"timeout":`+[...]string{"50", "700", "-1", "x"}[c>>2&3]+`}`)
	case 1:
		r.say("C", "4", r.rid)
	case 2:
		r.say("C", "10", r.rid)
	case 3:
		r.say("C", "9", r.rid, "100")
	case 4:
		r.say("C", "8", `{"v":1,"id":"hostile","hb":1000}`)
	case 5, 6:
		r.say("W", "1", w.service(byte(c)&1), `{"v":1,"id":"hostile","hb":1000,"concurrency":2}`)
	case 7:
		r.say("W", "1", w.service(byte(c)&1))
	case 8:
		r.say("W", "3", token, r.rid, `{"status":200,"msg":"forged"}`)
	case 9:
		r.say("W", "6", token, r.rid, `{"status":200,"msg":"forged"}`)
	case 10:
		r.say("W", "4", token, r.rid)
	case 11:
		r.say("W", "5")
	case 12: // once more
		if len(r.last) > 0 {
			o.AppendPacked(r.last)
		}
	case 13: // garbled
		r.say("W", [...]string{"", "3", "x", "99"}[c&3], token)
	case 14:
		r.say("C", [...]string{"2", "8", "6", "\x01"}[c&3], strings.Repeat("z", c))
	case 15:
		o.Begin()
		o.Frame([]byte{batch.Mark, byte(c), 0, 0, 0, 'W'})
		o.End()
	}
	if o.Len() > 0 {
		r.last = append(r.last[:0], o.Message(o.Len()-1)...)
		w.sends(r.link, o)
	}
}

func (r *simRaw) say(frames ...string) {
	r.out.Begin()
	for _, f := range frames {
		r.out.FrameString(f)
	}
	r.out.End()
}

// rudeRequests counts what hostile peers have at b, which the book does not follow.
func (w *simWorld) rudeRequests(b *simBroker) int {
	n := 0
	for _, l := range b.book.links {
		if l.book.rude {
			if p := b.d.peers[l.lis][l.id]; p != nil {
				n += p.outstanding
			}
		}
	}
	return n
}

// foreign sends something of another dialect, be it the link's or not.
func (r *simRaw) foreign(what, c int, token string) {
	service := r.w.service(byte(c) & 1)
	switch what % 16 {
	case 0:
		r.say("W", "3", token, r.rid, "0", `"forged"`)
	case 1:
		r.say("W", "3", token, "", r.rid, "0", `"forged"`, "{}")
	case 2:
		r.say("W", "7", token, "", r.rid)
	case 3:
		r.say("W", "4", "", [...]string{`{"concurrency":3}`, `{"concurrency":-1}`, `{}`, "x"}[c&3])
	case 4:
		r.say("MDPW02", "\x01", service)
	case 5:
		r.say("MDPW02", "\x03", token, "", "forged", "twice")
	case 6:
		r.say("MDPW02", "\x04", token, "", "forged")
	case 7:
		r.say("", "MDPW01", "\x01", service)
	case 8:
		r.say("", "MDPW01", "\x03", token, "", "forged")
	case 9:
		r.say("", "MDPC01", service, "x", "y")
	case 10:
		r.say("MDPC02", "\x01", service, "x")
	case 11:
		r.say("W", "1", service)
	case 12:
		r.say("C", "2", service, r.rid, `"x"`, `{"timeout":700,"retry":0,"workerId":"w"}`)
	case 13:
		r.say([...]string{"MDPW02", "MDPW01"}[c&1], [...]string{"\x05", "\x06", "\x00", ""}[c>>1&3])
	case 14:
		r.say("MDPC02", "\x01", [...]string{"mmi.service", "mmi.stats", "mmi.", "$dir"}[c&3], service)
	case 15:
		r.say("W", "6", token, [...]string{r.rid, ""}[c&1], "-1", `{"code":1}`)
	}
}
