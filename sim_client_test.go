package omdp

import (
	"errors"
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simClient is a client's shell around its table: it takes links, one for each
// broker, and gives calls their ends.
type simClient struct {
	simProc
	num    int
	life   int
	hb     time.Duration
	table  *pendingTable
	conns  [simBrokers]simTableConn
	out    batch.Out
	m      message
	turns  clientTurn
	open   []simPending
	random uint64
}

// simTableConn is a client's connection to one broker, as clientConn is.
type simTableConn struct {
	known   *tableLink
	link    *simLink
	backoff backoff
	redial  instant // by the client's clock, while there is no link
	tickAt  instant
}

// simPending is a call that has not ended.
type simPending struct {
	p    *pending
	call int32
}

const (
	simAttempts = 3
	simBudget   = 4
)

func (c *simClient) beat() time.Duration { return c.hb }

func (c *simClient) start() {
	c.life++
	c.open = c.open[:0]
	c.random = uint64(c.num*1000 + c.life)
	life := fmt.Sprintf("life-of-client-%d-%05d", c.num, c.life)
	c.table = newPendingTable(tableConfig{
		life: life, prefix: fmt.Sprintf("r%d%05d-", c.num, c.life), beat: c.hb, liveness: c.w.conf.liveness, window: c.w.conf.credit, maxWindow: 4 * c.w.conf.credit, maxBody: 1 << 20,
		links: c.w.conf.brokers, maxAttempts: simAttempts, budget: simBudget, random: c.draw,
	})
	for i := range c.all() {
		c.conns[i] = simTableConn{known: &c.table.links[i], redial: c.now(), tickAt: never, backoff: backoff{min: c.w.conf.hb / 10, max: c.w.conf.hb}}
	}
	c.w.book.retries[c.num] = 0
}

func (c *simClient) draw() uint64 {
	c.random = c.random*6364136223846793005 + 1442695040888963407
	return c.random >> 8
}

func (c *simClient) all() []simTableConn { return c.conns[:c.w.conf.brokers] }

func (c *simClient) die(kind int) {
	for _, o := range c.open {
		k := &c.w.book.calls[o.call]
		k.ended, k.outcome = true, MayHaveExecuted // nobody is there to hear
	}
	c.open = c.open[:0]
	for i := range c.all() {
		c.conns[i].link = nil
	}
	c.cutAll(kind)
}

func (c *simClient) connOf(l *simLink) *simTableConn {
	if k := &c.conns[l.b.num]; k.link == l {
		return k
	}
	return nil
}

func (c *simClient) checked() {
	if err := c.table.check(); err != nil {
		c.w.fail("%s: %v", c.name, err)
	}
	if c.table.len() != len(c.open) {
		c.w.fail("C1: %s holds %d requests, %d calls are open", c.name, c.table.len(), len(c.open))
	}
}

// flush puts what was appended on a connection.
func (c *simClient) flush(k *simTableConn) {
	if c.out.Len() > 0 {
		c.w.book.asks(c, k.link, &c.out)
		c.w.sends(k.link, &c.out)
	}
}

func (c *simClient) dial(i int) {
	k := &c.conns[i]
	k.link = c.w.dial(&c.simProc, &c.w.brokers[i], false, 0, OMDP)
	k.redial = never
	c.out.Pack = false
	c.table.opened(k.known)
	c.table.appendHello(k.known, &c.out)
	c.flush(k)
	k.tickAt = c.now()
}

func (c *simClient) connected(l *simLink) {
	k := c.connOf(l)
	if k == nil {
		return
	}
	c.table.connected(k.known, c.now())
	c.sendWaiting()
	k.tickAt = c.now()
	c.checked()
}

// sendWaiting puts what waits on the connection for new requests.
func (c *simClient) sendWaiting() {
	best := c.table.best
	if best == nil || c.table.onLinks == c.table.len() {
		return
	}
	k := &c.conns[best.index]
	if k.link == nil {
		c.w.fail("%s prefers a connection that is gone", c.name)
	}
	for p := range c.table.waiting {
		if c.fits(p, best) {
			c.table.put(p, best, c.now(), uint64(k.link.seq+c.out.Len()), &c.out)
		}
	}
	c.flush(k)
}

// resume sees to requests that are to be sent again.
func (c *simClient) resume() {
	c.sendWaiting()
	c.wake()
}

// wake lets the first connection look at the timers if one is due sooner.
func (c *simClient) wake() {
	if c.table.timing.sooner {
		c.table.timing.sooner = false
		c.conns[0].tickAt = c.now()
	}
}

func (c *simClient) lost(l *simLink) {
	k := c.connOf(l)
	if k == nil {
		return
	}
	if k.known.heardOf && !k.known.leaving {
		k.backoff.reset()
	}
	k.link = nil
	k.redial = c.now() + k.backoff.next(uint64(l.num)*0x9E3779B97F4A7C15)
	for _, p := range c.table.lost(c.now(), k.known, uint64(l.sent())) {
		c.ends(p, p.conclude(reply{err: &callError{err: ErrBrokerLost, outcome: MayHaveExecuted}}))
	}
	c.resume()
	c.checked()
}

// drop gives a connection up.
func (c *simClient) drop(k *simTableConn, why error) {
	l := k.link
	if c.w.tracing {
		c.w.tracef("%s gives %s up: %v", c.name, l.id, why)
	}
	c.w.closeLink(l)
	c.lost(l)
}

func (c *simClient) receive(l *simLink, f [][]byte) {
	k := c.connOf(l)
	if k == nil {
		return
	}
	m := &c.m
	if !parseAtClient(f, m) {
		c.w.fail("%s got what it can't read", c.name)
	}
	now := c.now()
	before := c.table.best
	switch m.op {
	case opReply:
		c.onReply(k, m)
	case opPartial:
		c.onPartial(k, m)
	case opHeartbeat:
		c.table.onHeartbeat(now, k.known, m)
	case opHello:
		caps, ok := parseCaps(m.caps)
		if !ok {
			c.w.fail("%s can't read the broker's capabilities", c.name)
		}
		first, ok := c.table.onHello(now, k.known, &caps, &c.out)
		c.flush(k)
		if !ok {
			c.drop(k, errBrokerChanged)
			return
		}
		if first {
			c.resume()
			k.tickAt = now
		}
	case opCredit:
		if p := c.table.onCredit(now, k.known, m); p != nil {
			c.feed(k, p)
		}
	case opBlocked:
		c.onBlocked(k, m)
	case opDrain:
		c.table.onDrain(k.known)
		c.resume()
		k.tickAt = now
	}
	if k.link == nil {
		return
	}
	if foreign := c.table.hears(k.known, now); foreign || c.table.best != before {
		c.sendWaiting()
	}
	c.checked()
}

func (c *simClient) onReply(k *simTableConn, m *message) {
	p, end, parsed, late := c.table.onReply(c.now(), k.known, m)
	switch {
	case late:
	case p == nil:
		c.resume()
	default:
		if !parsed {
			end = parseReply(p.service, m.body)
		}
		i := c.callOf(p)
		said := c.w.book.final(&c.w.book.calls[i], k.link, m)
		end = p.conclude(end)
		if said != (end.err == nil || isHandlers(end.err)) && !c.w.book.calls[i].harmed {
			c.w.fail("C4: %s was told %v for %q", p.rid, end.err, m.body)
		}
		c.ends(p, end)
	}
}

func isHandlers(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// onBlocked: it reads at once, so it has caught up.
func (c *simClient) onBlocked(k *simTableConn, m *message) {
	p := c.table.find(m.rid)
	if p == nil || p.link != k.known {
		return
	}
	was := p.window
	window := c.table.widen(p)
	if window != 0 && (window <= was || window > c.table.maxWindow) {
		c.w.fail("%s widens a window from %d to %d", c.name, was, window)
	}
	if window > 0 {
		appendClientCredit(&c.out, p.rid, 0, window)
		c.flush(k)
	}
}

func (c *simClient) onPartial(k *simTableConn, m *message) {
	p := c.table.onPartial(c.now(), k.known, m)
	if p == nil {
		return
	}
	c.w.book.partial(&c.w.book.calls[c.callOf(p)], k.link, m)
	if k.known.extended && c.w.conf.credit > 0 {
		appendClientCredit(&c.out, p.rid, simPartial, 0)
		c.flush(k)
	}
}

func (c *simClient) callOf(p *pending) int32 {
	for _, o := range c.open {
		if o.p == p {
			return o.call
		}
	}
	c.w.fail("C1: %s ended before", p.rid)
	return -1
}

// ends gives a call its one end.
func (c *simClient) ends(p *pending, end reply) {
	i := c.callOf(p)
	for n, o := range c.open {
		if o.p == p {
			c.open[n] = c.open[len(c.open)-1]
			c.open = c.open[:len(c.open)-1]
			break
		}
	}
	c.w.book.ends(c, &c.w.book.calls[i], p, end)
}

func (c *simClient) due() instant {
	at := never
	for i := range c.all() {
		at = min(at, c.conns[i].redial, c.conns[i].tickAt)
	}
	return c.world(at)
}

func (c *simClient) turn() {
	c.wakes(c.hb)
	now := c.now()
	for i := range c.all() {
		k := &c.conns[i]
		if k.link == nil && now >= k.redial {
			c.dial(i)
		}
		if now >= k.tickAt {
			c.tick(k)
		}
	}
	c.checked()
	c.windows(now)
}

// tick does what the timers ask for; the first connection minds those of requests.
func (c *simClient) tick(k *simTableConn) {
	now, w := c.now(), &c.turns
	w.reset()
	k.tickAt = never
	if k.known.index == 0 {
		c.table.expire(now, w)
		k.tickAt = c.table.timing.alarm
	}
	c.table.turn(now, k.known, w)
	k.tickAt = min(k.tickAt, k.known.alarm)
	if k.link != nil && w.hello {
		c.table.appendHello(k.known, &c.out)
		for _, p := range w.beats {
			appendClientCommand(&c.out, opHeartbeat, p.rid)
		}
		c.flush(k)
	}
	if w.again {
		c.resume()
	}
	for _, p := range w.expired {
		c.cancelled(p)
		c.ends(p, p.conclude(reply{err: &callError{err: ErrTimeout, outcome: p.outcome()}}))
	}
	for _, p := range w.silent {
		c.ends(p, p.conclude(reply{err: &callError{err: ErrWorkerLost, outcome: MayHaveExecuted}}))
	}
	switch leave := k.known.gone(); {
	case k.link == nil:
	case w.lost:
		c.drop(k, errBrokerSilent)
	case leave:
		c.drop(k, errBrokerLeaving)
	}
}

// cancelled tells the broker that a request was given up.
func (c *simClient) cancelled(p *pending) {
	if p.link == nil {
		return
	}
	if k := &c.conns[p.link.index]; k.link != nil {
		c.table.cancel(p, &c.out)
		c.flush(k)
	}
}

// windows: C2: no call outlives its deadline, and the broker's silence is noticed in time.
func (c *simClient) windows(now instant) {
	const slack = 2 * time.Millisecond
	for _, o := range c.open {
		if k := &c.w.book.calls[o.call]; k.deadline != never && now > k.deadline+maxSlack+slack {
			c.w.fail("C2: %s is open %v after its deadline", o.p.rid, now-k.deadline)
		}
	}
	for i := range c.all() {
		if k := &c.conns[i]; k.link != nil && k.known.armed {
			if quiet := now - max(k.known.heard, c.graceOf); quiet > lifeLimit(k.known.told, c.hb, c.w.conf.liveness)+c.hb+slack {
				c.w.fail("%s keeps %s after %v of silence", c.name, k.link.id, quiet)
			}
		}
	}
}

// call asks for something.
func (c *simClient) call(service byte, idem, failFast bool, timeout time.Duration, script uint16) {
	if !c.running() || len(c.w.book.calls) >= len(simData) {
		return
	}
	w, now := c.w, c.now()
	p := &pending{n: uint64(len(w.book.calls)) + 1, service: w.service(service), idempotent: idem, deadline: never, window: w.conf.credit}
	p.rid = string(c.table.appendRID(nil, p.n))
	if timeout > 0 {
		p.deadline, p.slack = now+timeout, min(timeout/10, maxSlack)
	}
	p.options.failFast, p.options.key = failFast, w.key(len(w.book.calls))
	i := w.book.newCall(simCall{client: c.num, rid: p.rid, service: service, idem: idem, timeout: timeout, deadline: p.deadline, script: script})
	p.data = w.data(i)
	_, p.flow.upload = w.uploads(i)
	if w.tracing {
		w.tracef("%s calls %s: idempotent %v, timeout %v, script %#x", c.name, p.rid, idem, timeout, script)
	}
	c.open = append(c.open, simPending{p, int32(i)})
	c.table.add(p)
	best := c.table.best
	if best != nil && c.fits(p, best) {
		c.table.put(p, best, now, uint64(c.conns[best.index].link.seq), &c.out)
	}
	c.wake()
	if best != nil {
		c.flush(&c.conns[best.index])
	}
	c.checked()
}

// cancel gives a call up.
func (c *simClient) cancel(n int) {
	if !c.running() || len(c.open) == 0 {
		return
	}
	p := c.open[n%len(c.open)].p
	if c.w.tracing {
		c.w.tracef("%s gives %s up", c.name, p.rid)
	}
	c.table.remove(p)
	c.cancelled(p)
	c.ends(p, p.conclude(reply{err: &callError{err: ErrCanceled, outcome: p.outcome()}}))
	c.checked()
}

func (c *simClient) pending() int { return len(c.open) }

func (c *simClient) mustBeIdle() {
	for _, o := range c.open {
		c.w.fail("L2: %s of %s never ended", o.p.rid, c.name)
	}
}

// fresh asks when all is well.
func (c *simClient) fresh() { c.call(0, false, false, 60*time.Second, 0) }
