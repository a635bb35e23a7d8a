package omdp

import "time"

// instant is a point in time: nanoseconds since its owner was made. Pure code
// is handed the present one and never reads a clock.
type instant = time.Duration

// never is an instant that does not come.
const never instant = 1<<63 - 1

// Defaults for all roles (protocol.md: 2.5 s at zmq-omdp's
// last revision; a peer that told its interval is lost after three of them,
// any other after 15 s, three of the 5 s that Node peers use, at the least).
const (
	defaultHeartbeat = 2500 * time.Millisecond
	defaultLiveness  = 3
	foreignLiveness  = 15 * time.Second
)

// lifeLimit is how long a peer may be silent: liveness of its own intervals if
// it told one (0: it did not). Else both sides have agreed on one (RFC 18, "regular
// and agreed-upon intervals"), so that it is own, and at least what Node's peers have.
func lifeLimit(told, own time.Duration, liveness int) time.Duration {
	if told <= 0 {
		return max(foreignLiveness, own*time.Duration(liveness))
	}
	return told * time.Duration(liveness)
}

// clock guards liveness against jumps: after a pause of this process
// (suspend, SIGSTOP) nobody had a chance to be heard, so silence is counted
// from the end of the pause. Deadlines of requests are not touched.
type clock struct {
	last  instant // the last turn
	grace instant // silence before this does not count
}

// turn notes a turn of the loop at now, which was to come at due at the
// latest (never: no timer). It reports whether the loop was away so long that
// liveness is re-armed: more than half a beat late.
func (c *clock) turn(now, due, beat instant) bool {
	late := due != never && now-max(due, c.last) > beat/2
	c.last = now
	if late {
		c.grace = now
	}
	return late
}

// silentSince is the instant from which a peer heard at seen counts as silent.
func (c *clock) silentSince(seen instant) instant { return max(seen, c.grace) }

// backoff gives the waits between attempts to reach a broker: from min,
// doubling up to max, each with jitter of half its size, so that many peers of
// one broker do not come back in step.
type backoff struct {
	min, max time.Duration
	n        int
}

// next returns the next wait; random is any 64 random bits.
func (b *backoff) next(random uint64) time.Duration {
	d := b.max
	if b.n < 30 && b.min<<b.n < b.max {
		d = b.min << b.n
	}
	b.n++
	half := d / 2
	return half + time.Duration(random%uint64(half+1))
}

// reset is called when a session proved well.
func (b *backoff) reset() { b.n = 0 }
