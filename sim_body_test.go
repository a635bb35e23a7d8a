package omdp

// Data in pieces, in the simulator: in some scenes a broker's frames are smaller
// than what calls carry, and some calls are uploads. Every byte has its value by
// its place, so that what is lost, doubled or out of order is seen at once.

// simFrame is the largest frame of a scene's brokers: 0 in most, of another make
// as far as pieces go; 4 is less than the data of any call; 64 is more.
func simFrame(head uint64) int64 { return [...]int64{0, 0, 4, 64}[mix64(head+1)%4] }

// uploads tells whether a call is an upload, and how many bytes it has.
func (w *simWorld) uploads(call int) (n int, ok bool) {
	return 1 + call%41, w.conf.frame > int64(len(simData[0])) && call%3 == 1
}

func simByte(i int) byte { return byte('a' + i%26) }

// carries finds the call of a REQUEST, whose data may be in pieces.
func (k *simBook) carries(m *message, byRID func() int) int {
	if len(m.data) > 0 {
		return k.callOf(m.dataFrames()[0])
	}
	return byRID()
}

// restarts tells of a request that is live whether a higher attempt on another
// connection has it start anew.
func (in *simInst) restarts(m *message) bool {
	return in.partial || in.more && (in.tok >= 0 || !m.pieces)
}

// room of a worker is for two bodies: others wait.
func simRoom(conf *simConf) bodyRoom {
	return bodyRoom{size: 16, window: [...]int64{100, 300}[conf.head%2], maxWindow: 400}
}

// feed sends what may go of the call that a CREDIT was for.
func (c *simClient) feed(k *simTableConn, p *pending) {
	f := &p.flow
	if n, ok := c.w.uploads(int(c.callOf(p))); ok {
		for f.sent < n {
			size := f.next(n - f.sent)
			if size == 0 {
				if f.ask() {
					appendClientCommand(&c.out, opBlocked, p.rid)
				}
				break
			}
			var b []byte
			for i := range size {
				b = append(b, simByte(f.sent+i))
			}
			appendClientPiece(&c.out, p.rid, b)
			f.sent += size
		}
		f.closing = f.sent == n
	}
	c.table.feed(p, &c.out)
	c.flush(k)
}

// sends has table.fit and put follow one another, as Client does.
func (c *simClient) fits(p *pending, best *tableLink) bool {
	switch err := c.table.fit(p, best); err {
	case nil:
		return true
	case errNotYet:
		c.table.hold(p)
	default:
		c.table.remove(p)
		c.ends(p, p.conclude(reply{err: &callError{err: err, outcome: p.outcome()}}))
	}
	return false
}

// grants says what the session grants.
func (c *simConn) grants(a *arrivals) {
	k := c.k
	for _, p := range a.pieces {
		j := k.job(p.t)
		if j == nil || p.t.at < 0 {
			continue
		}
		for _, b := range p.p {
			if b != simByte(j.read) {
				k.w.fail("byte %d of the upload of call %d is %c", j.read, j.call, b)
			}
			j.read++
		}
		if p.p == nil && j.call >= 0 {
			if n, ok := k.w.uploads(int(j.call)); !ok || n != j.read {
				k.w.fail("the upload of call %d ended after %d bytes", j.call, j.read)
			}
		}
		if p.p != nil && !p.t.in.over {
			if n := c.sess.took(k.now(), p.t, int64(len(p.p))+partialOverhead, true); n > 0 {
				p.t.in.allow += n
				a.grants = append(a.grants, creditTo{t: p.t, n: n})
			}
		}
	}
	for _, g := range a.grants {
		if c.link != nil && g.t.at >= 0 {
			appendWorkerCredit(&k.out, g.t.token(), g.t.rid(), g.n)
			k.w.sends(c.link, &k.out)
		}
	}
}

// leaves frees the room of what has ended.
func (k *simWorker) leaves(t *task) {
	for _, n := range k.room.leave(t) {
		for i := range k.all() {
			if c := &k.conns[i]; &c.dummy == n.res.conn {
				c.sess.roomy = append(c.sess.roomy, n)
				c.tickAt = k.now()
			}
		}
	}
}
