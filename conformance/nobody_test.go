package conformance

import (
	"testing"
	"time"
)

// nobody is a broker that takes everything and says nothing, and a worker and a
// client that never come.
type nobody struct {
	noCalls
	hub *hub
}

func (nobody) Beat() time.Duration                 { return 20 * time.Millisecond }
func (nobody) Expiry() time.Duration               { return 100 * time.Millisecond }
func (nobody) Service(fresh string) string         { return fresh }
func (nobody) Listen() (string, bool)              { return anyPort, false }
func (nobody) Offers(string, string) bool          { return true }
func (nobody) Refuses(role, dialect string) string { return "" }

func (n nobody) Start(s Start) (Subject, error) {
	if s.Script.Role != "broker" {
		return nobodyHere{&calls{}}, nil
	}
	h, err := bind(anyPort, func(*peer, []string) {}, nil)
	return nobody{hub: h}, err
}

func (n nobody) Endpoint() string { return n.hub.endpoint }
func (n nobody) Stop() error      { return nil }
func (n nobody) Close()           { n.hub.close() }

// nobodyHere is the worker and the client.
type nobodyHere struct{ *calls }

func (nobodyHere) Endpoint() string                         { return "" }
func (nobodyHere) Stop() error                              { return nil }
func (nobodyHere) Close()                                   {}
func (nobodyHere) Call(string, string, time.Duration) error { return nil }

// Nothing is shown by who does nothing: every script fails.
func TestNobody(t *testing.T) {
	t.Parallel()
	for _, r := range Run(t.Context(), load(t).Scripts, Options{Driver: nobody{}, Parallel: 32, Patience: 100 * time.Millisecond}) {
		if !r.Failed() {
			t.Errorf("%s: passes", r.Script.Name)
		}
	}
}
