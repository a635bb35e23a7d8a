package interop_test

import (
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Majordomo bodies are frames of anything: a frame that is JSON is that value to
// peers whose data is JSON, any other its text, several frames an array. Among
// Majordomo peers they stay as they are.
func TestBodies(t *testing.T) {
	needPeers(t)
	peer, endpoints := buildPeer(t), startBroker(t)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			command := node(k.name, "worker", endpoints[k.dialect])
			if k.name == "omdp" {
				command = []string{peer, "worker", "--endpoint", endpoints[k.dialect]}
			}
			start(t, "worker", append(command, "--service", k.name)).want("ready")
			c := start(t, "client", append(node("mdp02", "client", endpoints[omdp.MDP02]), "--service", k.name, "--stdin"))
			for _, x := range []struct {
				body             []string
				json, text, same string // the answer of JSON's workers, of those that reply with text, of Majordomo's
			}{
				{[]string{"no JSON"}, `"no JSON"`, `"no JSON"`, `"no JSON"`},
				{[]string{""}, `""`, `""`, `""`},
				{[]string{"1", "two", `{"three":3}`, ""}, `[1,"two",{"three":3},""]`, `"[1,\"two\",{\"three\":3},\"\"]"`, `1 "two" {"three":3} ""`},
			} {
				want := x.json
				switch k.name {
				case "omdp-spec":
					want = x.text
				case "mdp02", "mdp01":
					want = x.same
				}
				c.tell(question{Data: x.body})
				if diff := difference(c.answers(), []string{"final " + want}); diff != "" {
					t.Errorf("%q: %s", x.body, diff)
				}
			}
		})
	}
}
