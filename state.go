package omdp

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// A State says how a Worker or a Client stands with its broker.
type State uint8

const (
	Connecting State = iota // no broker has been reached yet; the zero value
	Ready                   // the broker answers
	Lost                    // the connection was lost; a new one is being tried
	Draining                // Shutdown was called, or the broker said that it is leaving
	Closed                  // closed, for good
)

var stateTexts = [...]string{"connecting", "ready", "lost", "draining", "closed"}

func (s State) String() string {
	if int(s) < len(stateTexts) {
		return stateTexts[s]
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// Defaults that Worker and Client have in common.
const (
	defaultReconnectMin = 100 * time.Millisecond
	defaultReconnectMax = 5 * time.Second
	defaultMaxBody      = 64 << 20 // bytes of a body, in pieces if it is larger than a frame
	defaultDrain        = 10 * time.Second
)

// settings are the fields that WorkerConfig and ClientConfig have in common.
type settings struct {
	heartbeat    time.Duration
	liveness     int
	reconnectMin time.Duration
	reconnectMax time.Duration
	maxBody      int
	drain        time.Duration // negative: no wait at all
}

// fill puts the defaults in and checks the ranges. The error names the field
// and its value; the caller says what it was making.
func (s *settings) fill() error {
	s.heartbeat = orDefault(s.heartbeat, defaultHeartbeat)
	s.liveness = orDefault(s.liveness, defaultLiveness)
	s.reconnectMin = orDefault(s.reconnectMin, defaultReconnectMin)
	s.reconnectMax = orDefault(s.reconnectMax, max(defaultReconnectMax, s.reconnectMin))
	s.maxBody = orDefault(s.maxBody, defaultMaxBody)
	s.drain = orDefault(s.drain, defaultDrain)
	switch {
	case s.heartbeat < 10*time.Millisecond || s.heartbeat > 24*time.Hour:
		return fieldError("Heartbeat", s.heartbeat, "is not from 10ms to 24h")
	case s.liveness < 2 || s.liveness > 1000:
		return fieldError("Liveness", s.liveness, "is not from 2 to 1000")
	case s.reconnectMin < time.Millisecond:
		return fieldError("ReconnectMin", s.reconnectMin, "is under 1ms")
	case s.reconnectMax < s.reconnectMin:
		return fieldError("ReconnectMax", s.reconnectMax, "is under ReconnectMin, "+s.reconnectMin.String())
	case s.maxBody < 1024 || s.maxBody > 1<<30:
		return fieldError("MaxBody", s.maxBody, "is not from 1 KiB to 1 GiB")
	}
	return nil
}

// fieldError says what is wrong with the value of a config's field.
func fieldError(field string, value any, wrong string) error {
	return fmt.Errorf("%s: %v %s", field, value, wrong)
}

// orDefault gives a field's value, or its default for zero.
func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// newLifeID returns 22 printable characters of 128 random bits: what tells one
// life of a Worker, Client or Broker from every other.
func newLifeID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// hooks runs the user's OnState and OnError one after another, in the order in
// which they were given, on a goroutine that lives only while there are some.
// The zero value is ready. Safe for concurrent use.
type hooks struct {
	mu      sync.Mutex
	queue   []func()
	running bool
	idle    chan struct{} // closed when the goroutine ended; nil if it never ran
}

func (h *hooks) add(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, f)
	if !h.running {
		h.running, h.idle = true, make(chan struct{})
		go h.run(h.idle)
	}
}

func (h *hooks) run(idle chan struct{}) {
	ended := false
	defer func() {
		if !ended { // a hook ended the goroutine (runtime.Goexit): the others go on
			go h.run(idle)
			return
		}
		close(idle)
	}()
	for f := h.next(); f != nil; f = h.next() {
		f()
	}
	ended = true
}

func (h *hooks) next() func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		h.queue, h.running = nil, false
		return nil
	}
	f := h.queue[0]
	h.queue = h.queue[1:]
	return f
}

// done is closed when every hook that was given so far has returned.
func (h *hooks) done() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil {
		h.idle = make(chan struct{})
		close(h.idle)
	}
	return h.idle
}
