package omdp

import (
	"fmt"
	"time"
)

// Attempts: which requests are sent again, when, and what is known in the end
// of whether they were executed.

// The wait before an attempt: doubling from the one to the other, with jitter.
const (
	againMin = 10 * time.Millisecond
	againMax = time.Second
)

// retry decides on a request that a broker ended by an error of its own, and
// reports whether it is to be sent again.
func (t *pendingTable) retry(now instant, p *pending, status string, o Outcome) bool {
	switch status {
	case statusDraining:
		if !t.wire.extends { // a handler may say the same
			return t.again(now, p, MayHaveExecuted)
		}
		t.onDrain(p.link)
		if t.best == nil && !p.idempotent { // there is nowhere to go: it is told so at once
			return false
		}
		return t.again(now, p, o)
	case statusWorkerLost, statusLost:
		if !t.again(now, p, MayHaveExecuted) {
			return false
		}
		if o == NotExecuted { // the worker said so in a final: for its broker the id has ended
			t.rename(p)
		}
		return true
	case statusDuplicate:
		// What the former attempt said is gone, and the id is used up.
		if !t.again(now, p, o) {
			return false
		}
		t.rename(p)
		return true
	}
	return false
}

// again takes p off its connection to be sent another time, and reports
// whether it may: at no cost if it was not executed, else if that does no harm,
// nothing of it was seen yet, and attempts, time and budget are left.
func (t *pendingTable) again(now instant, p *pending, o Outcome) bool {
	if p.flow.upload && p.flow.started { // what was written is gone
		return false
	}
	if o == NotExecuted {
		if p.options.failFast || p.deadline <= now {
			return false
		}
		p.bounced = true
		t.unlink(p)
		return true
	}
	wait := t.wait(p.attempt)
	if !p.idempotent || p.partial || p.attempt >= t.maxAttempts || p.deadline-now <= wait || !t.budget.take(now) {
		return false
	}
	t.retries++
	p.attempt++
	p.maybe = true
	p.after = now + wait
	foreign := !p.link.extended // its broker may still hold the old id, and would mix up the two
	t.unlink(p)
	if foreign {
		t.rename(p)
	}
	return true
}

// wait is how long attempt n+1 waits.
func (t *pendingTable) wait(n int) time.Duration {
	b := backoff{min: againMin, max: againMax, n: n - 1}
	return b.next(t.random())
}

// outcome of a request that is given up here: what was put on a link may run.
func (p *pending) outcome() Outcome {
	switch {
	case p.maybe || p.link != nil:
		return MayHaveExecuted
	case p.bounced:
		return NotExecuted
	}
	return NotSent
}

// conclude completes how a request ended by what its attempts before tell.
func (p *pending) conclude(end reply) reply {
	e, ok := end.err.(*callError)
	if !ok {
		return end
	}
	if p.maybe && (e.outcome == NotExecuted || e.outcome == NotSent) {
		e.outcome = MayHaveExecuted
	}
	if p.attempt > 1 {
		if e.detail != "" {
			e.detail += ", "
		}
		e.detail += fmt.Sprintf("attempt %d", p.attempt)
	}
	return end
}

// retryBudget bounds how many attempts besides the first a client makes, so
// that a broker in trouble is not asked more than ever: a bucket that each new
// request fills by a fifth, and a second by a hundredth of its size.
type retryBudget struct {
	size   int64 // thousandths of an attempt; 0: no limit
	tokens int64
	at     instant
}

func newRetryBudget(n int) retryBudget {
	if n < 0 {
		return retryBudget{}
	}
	return retryBudget{size: int64(n) * 1000, tokens: int64(n) * 1000}
}

func (b *retryBudget) earn() { b.tokens = min(b.tokens+200, b.size) }

func (b *retryBudget) take(now instant) bool {
	if b.size == 0 {
		return true
	}
	if ms := int64((now - b.at) / time.Millisecond); ms > 0 {
		b.tokens = min(b.tokens+min(ms, 100_000)*b.size/100_000, b.size)
		b.at += time.Duration(ms) * time.Millisecond
	}
	if b.tokens < 1000 {
		return false
	}
	b.tokens -= 1000
	return true
}
