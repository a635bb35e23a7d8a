package omdp

import (
	"context"
	"fmt"
	"strconv"
)

// unsupported says what of a request the dialect can't carry; "": nothing.
func (r *call) unsupported() string {
	switch w := r.client.wire; {
	case w.extends:
		return ""
	case r.flow.upload:
		return "an upload"
	case r.options.failFast:
		return "FailFast"
	case r.options.key != "":
		return "WithKey"
	case len(r.meta) > 0 && !w.options:
		return "WithMetadata"
	}
	return ""
}

// Lookup asks the broker whether a worker is registered for a service; one that is
// busy counts. It is the question mmi.service of RFC 8, which this library's
// broker answers in every dialect. A broker that says that it can't tell, or
// something else, is ErrUnsupported. One that does not know the question takes it
// for a request to a service of that name, which has no worker: so there is always
// a timeout, the client's, or 60 s if that has none, or the sooner deadline of ctx,
// and then ErrTimeout.
func (c *Client) Lookup(ctx context.Context, service string) (bool, error) {
	const question = "mmi.service"
	if n := len(service); n == 0 || n > maxService {
		return false, &callError{err: fmt.Errorf("a service name of %d bytes is not of 1 to %d", n, maxService), service: question, outcome: NotSent}
	}
	var name any = service
	if c.wire.opaque { // RFC 8: a frame with the name
		name = []byte(service)
	}
	opts := [...]CallOption{Idempotent(), WithTimeout(max(c.config.Timeout, 0))}
	if c.config.Timeout < 0 {
		opts[1] = WithTimeout(defaultTimeout)
	}
	m, err := c.Call(ctx, question, name, opts[:]...)
	if err != nil {
		if said, ok := err.(*Error); ok {
			return false, &callError{err: ErrUnsupported, service: question, outcome: Executed, detail: said.Error()}
		}
		return false, err
	}
	answer, outcome := m.String(), MayHaveExecuted
	switch answer {
	case "200":
		return true, nil
	case "404":
		return false, nil
	case "501":
		outcome = NotExecuted
	}
	return false, &callError{err: ErrUnsupported, service: question, outcome: outcome, detail: "the answer is " + strconv.Quote(answer[:min(len(answer), 32)])}
}
