package omdp

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"
)

// minWindow is the smallest window: less would stop at every message.
const minWindow = 4 << 10

// maxMetadata bounds the JSON of a request's metadata, in bytes: it travels in
// a frame of its own, and a frame that is too large costs the connection.
const maxMetadata = 64 << 10

// A CallOption changes one request. Options are values; they may be kept and
// shared.
type CallOption struct {
	kind    optionKind
	timeout time.Duration
	window  int
	key     string
	meta    map[string]string
}

type optionKind uint8

const (
	optionTimeout optionKind = iota + 1
	optionFailFast
	optionMetadata
	optionWindow
	optionIdempotent
	optionIdle
	optionKey
)

// WithTimeout bounds the request, queueing included; the sooner of it and the
// context's deadline holds. Zero is the client's default, negative is none.
func WithTimeout(d time.Duration) CallOption { return CallOption{kind: optionTimeout, timeout: d} }

// WithIdleTimeout bounds the time without a partial: the request fails with
// ErrTimeout, and its handler's context ends, when none came for d since it was
// sent or since the last one was read. The time in its broker's queue counts;
// heartbeats don't, nor does the time for which a partial waits to be read.
// Zero or less is no bound, which is the default.
func WithIdleTimeout(d time.Duration) CallOption { return CallOption{kind: optionIdle, timeout: d} }

// FailFast makes the request fail with ErrNoWorker at once when no worker is
// registered for its service, instead of waiting for one until its timeout.
// A Node broker does not know it.
func FailFast() CallOption { return CallOption{kind: optionFailFast} }

// WithMetadata sends strings along with the data, such as those of a trace;
// the handler reads them with Request.Metadata. The map is copied. Its JSON may
// have 64 KiB; a request with more fails with ErrTooLarge.
func WithMetadata(m map[string]string) CallOption {
	return CallOption{kind: optionMetadata, meta: maps.Clone(m)}
}

// WithWindow sets how many bytes of partials the worker may be ahead of the
// reader of this request, from 4 KiB to 1 GiB: the window does not grow. Zero
// is ClientConfig.Window, which grows up to MaxWindow.
func WithWindow(bytes int) CallOption { return CallOption{kind: optionWindow, window: bytes} }

// WithKey names what the request is about, in 1 to 255 bytes of UTF-8: a broker
// whose policy for the service is [Sticky] gives requests with the same key to
// the same worker while it can. Others ignore it. "" is none.
func WithKey(key string) CallOption { return CallOption{kind: optionKey, key: key} }

// Idempotent says that executing the request more than once does no harm. When
// its worker is lost before a partial came, or the connection to its broker is,
// it is sent again under the same id, up to ClientConfig.MaxAttempts times in
// all, within its timeout and the client's RetryBudget, after a wait that grows
// and is jittered. Request.Attempt tells the handler. A broker that still holds
// the former attempt goes on with it instead of starting anew.
//
// Without it a request is never executed twice.
func Idempotent() CallOption { return CallOption{kind: optionIdempotent} }

// metadataSize is how many bytes the JSON of m has, or, as long as that is
// within the limit, at least as many.
func metadataSize(m map[string]string) int {
	const most = 6 // bytes of JSON for one of a string, as \u0000
	n := len("{}")
	for k, v := range m {
		n += most*(len(k)+len(v)) + len(`"":"",`)
	}
	if n <= maxMetadata {
		return n
	}
	b, _ := json.Marshal(m) // a map of strings marshals
	return len(b)
}

// apply takes the options over.
func (r *call) apply(opts []CallOption) (timeout time.Duration, err error) {
	window := r.client.config.Window
	for i := range opts {
		switch o := &opts[i]; o.kind {
		case optionTimeout:
			timeout = o.timeout
		case optionFailFast:
			r.options.failFast = true
		case optionMetadata:
			r.meta = o.meta
		case optionKey:
			if len(o.key) > maxKey || !utf8.ValidString(o.key) {
				return 0, &callError{err: fmt.Errorf("WithKey: %.40q, %d bytes, is not UTF-8 of at most 255", o.key, len(o.key)), service: r.service, outcome: NotSent}
			}
			r.options.key = o.key
		case optionIdempotent:
			r.idempotent = true
		case optionIdle:
			r.idle = o.timeout
		case optionWindow:
			if o.window != 0 {
				window, r.options.credit = o.window, int64(o.window)
			}
		}
	}
	if window < minWindow || window > maxWindow {
		return 0, &callError{err: fmt.Errorf("WithWindow: %d is not from 4 KiB to 1 GiB", window), service: r.service, outcome: NotSent}
	}
	if n := metadataSize(r.meta); n > maxMetadata {
		return 0, &callError{err: ErrTooLarge, service: r.service, outcome: NotSent, detail: fmt.Sprintf("metadata of %d bytes, the limit is %d", n, maxMetadata)}
	}
	r.consumed.Store(0)
	r.withheld.Store(0)
	r.window = int64(window)
	r.share.Store(r.window / creditShare)
	if timeout < 0 {
		timeout = -1
	}
	return timeout, nil
}
