package omdp

// What travels under credit, as the broker sees it: partials and pieces of
// replies, which the client grants, and pieces of a request's data, which the
// worker grants. The broker passes a grant on before anything is sent on it,
// so who is honest is never over it here; who is loses that request alone.

// inflowOfSlot is the data of a request that comes in pieces: after its
// dispatch, as its worker grants it, so that the broker holds none of it.
type inflowOfSlot struct {
	due  int64 // bytes that the worker granted and that have not come
	most int64 // the most that was ever due
	owed int64 // credit that the client was not told of, as its pipe was full
	over bool  // the end came
}

// giveForeign gives a request, of which the worker that is next takes less or
// knows neither raw data nor pieces, to another that is free, or to it as JSON.
func (d *dispatcher) giveForeign(r *request, w *peer, data, options []byte) bool {
	if r.more != 0 || w.body > 0 {
		o := roomier(w.service, max(int64(len(data)), r.more), r.more == 0)
		switch {
		case o == nil && r.more == moreUpload && w.body == 0:
			return d.refuseGiven(r, statusForeign)
		case o == nil:
			return d.refuseGiven(r, statusTooLarge)
		}
		w = o
	}
	switch {
	case r.form > formRaw && !w.wire.opaque:
		return d.giveFrames(r, w, data, options)
	case r.form == formRaw && w.body == 0 && !w.wire.opaque:
		return d.giveText(r, w, data, options, appendBytes(d.text[:0], data))
	}
	d.dispatch(r, w, data, options, r.form)
	return true
}

// roomier finds a free worker that takes so many bytes, or, if whole, one that
// was never told that there may be too many.
func roomier(s *service, size int64, whole bool) *peer {
	for k := s.ready.head; k != nil; k = k.next {
		if w := k.owner; w.body > 0 && size <= w.body || whole && w.body == 0 {
			return w
		}
	}
	return nil
}

// giveFrames gives a request, whose data are frames that may be anything, to a
// worker for whom data is JSON, or raw data as well.
func (d *dispatcher) giveFrames(r *request, w *peer, data, options []byte) bool {
	switch {
	case r.form == formFrames:
		return d.giveText(r, w, data, options, appendForm(d.text[:0], data, r.form))
	case isJSONText(data):
		d.dispatch(r, w, data, options, formJSON)
	case w.body > 0:
		d.dispatch(r, w, data, options, formRaw)
	default:
		return d.giveText(r, w, data, options, appendBytes(d.text[:0], data))
	}
	return true
}

// giveText gives a request with the text of its data, which is in d.text's memory.
// Should it come back, the next worker may want the data as they were.
func (d *dispatcher) giveText(r *request, w *peer, data, options, text []byte) bool {
	d.text = text
	size := int64(len(text))
	if w.body > 0 && size > w.body {
		if o := roomier(w.service, size, false); o != nil {
			w = o
		}
	}
	given := size <= d.lim.frame && (w.body == 0 || size <= w.body)
	if given {
		if d.original = data; data == nil {
			d.original = []byte{}
		}
		d.dispatch(r, w, text, options, formJSON)
		d.original = nil
	} else {
		d.refuseGiven(r, statusTooLarge)
	}
	if cap(d.text) > maxScratch {
		d.text = nil
	}
	return given
}

// refuseGiven ends a request that can't be given to a worker, and reports false.
func (d *dispatcher) refuseGiven(r *request, status string) bool {
	d.stats.Unfit++
	d.end(r, status, "false", "")
	return false
}

// within counts a partial or piece of a worker, and reports false if it may not
// send it now.
func (d *dispatcher) within(sl *slot, m *message) bool {
	r, n := sl.req, int64(len(m.data))
	switch {
	case m.op == opPartial:
		n = int64(len(m.body[len(m.body)-1]))
	case n > min(maxPiece, r.client.body): // 0: it joins nothing, and its worker was told so
		return false
	}
	if r.window == 0 || !sl.worker.adv {
		return true
	}
	c := credit{window: r.window, sent: sl.way}
	ok := c.take(n + partialOverhead)
	sl.way = c.sent
	return ok
}

// fits tells whether a client takes a payload: else it would cost it its
// connection. Its worker was told how much that is.
func (c *peer) fits(m *message) bool {
	return c.body == 0 || m.op == opPiece || int64(len(m.body[len(m.body)-1])) <= c.body+frameOverhead
}

// breach ends a request whose worker or client broke the rules about it.
func (d *dispatcher) breach(r *request) {
	d.stats.Overdrawn++
	d.end(r, statusProtocol, "", causeProtocol)
}

// onPiece passes a piece of a request's data on, or its end.
func (d *dispatcher) onPiece(p *peer, m *message) {
	r := d.lookup(p, m.rid)
	if r == nil { // it may have crossed with the end
		d.stats.Stray++
		return
	}
	sl, n := r.slot, int64(0)
	if m.data != nil {
		n = int64(len(m.data)) + partialOverhead
	}
	if r.more == 0 || sl == nil || sl.inflow.over || n > sl.inflow.due || len(m.data) > maxPiece {
		d.breach(r)
		return
	}
	sl.inflow.due -= n
	w := sl.worker
	if m.data == nil {
		sl.inflow.over = true
		appendToWorker(d.open(w), w.id, opPiece, sl.token[:], m.rid, "")
	} else {
		appendPieceToWorker(d.open(w), w.id, sl.token[:], m.rid, m.data)
	}
	d.close(w, origin{})
}

// onWorkerCredit: a worker takes so many bytes more of a request's data.
func (d *dispatcher) onWorkerCredit(w *peer, m *message) {
	sl := d.slotOf(w, m)
	if sl == nil {
		d.unauthentic(w, m)
		return
	}
	sl.progress = d.now
	f := &sl.inflow
	if sl.req == nil || sl.req.more == 0 || f.over {
		d.stats.Stray++
		return
	}
	n := min(m.credit, maxCredit-f.due)
	f.due += n
	f.owed += n
	if f.due > f.most {
		w.windows += f.due - f.most
		f.most = f.due
	}
	d.payInflow(sl)
}

// payInflow passes a worker's credit on. While the client's pipe is full it adds
// up, and while the client, which was forgotten, did not greet again.
func (d *dispatcher) payInflow(sl *slot) {
	if r := sl.req; sl.inflow.owed > 0 && r != nil && r.client.adv && !r.client.backlog.blocked() {
		appendCreditToClient(d.open(r.client), r.client.id, r.rid(), sl.inflow.owed)
		d.close(r.client, origin{})
		sl.inflow.owed = 0
	}
}

// payInflows does so for all that a client has in progress.
func (d *dispatcher) payInflows(p *peer) {
	for k := p.requests.head; k != nil && p.bodies > 0 && !p.dead; k = k.next {
		if k.owner.slot != nil {
			d.payInflow(k.owner.slot)
		}
	}
}

// onClientBlocked passes on that a client waits for credit. It asks again with
// the next credit, so this is not kept for a worker without room.
func (d *dispatcher) onClientBlocked(p *peer, m *message) {
	r := d.lookup(p, m.rid)
	if r == nil {
		d.stats.Stray++
		return
	}
	if sl := r.slot; r.more != 0 && sl != nil && !sl.worker.backlog.blocked() {
		w := sl.worker
		appendToWorker(d.open(w), w.id, opBlocked, sl.token[:], m.rid, "")
		d.close(w, origin{})
	}
}
