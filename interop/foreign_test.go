package interop_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// foreignBroker is a broker of another make, which our client and worker join.
type foreignBroker struct {
	name        string       // of its kind
	dialect     omdp.Dialect // of ours
	timeout     string       // how its clients say that a request's time is over
	beat        string       // ms between two of its clients, which look after their timeouts then
	heldTimeout int          // ms: after it the broker knows that a worker is lost
	except      []exception
}

const forgets = "it forgets the requests of a worker that is lost, and tells nobody: the client's timeout"

// forgotten is what becomes of a request whose worker is killed, at most brokers.
var forgotten = exception{check: held, want: func(s said) []string { return []string{"error " + s.timeout} }, why: forgets}

var foreignBrokers = []foreignBroker{
	{"omdp-spec", omdp.OMDP, `{"status":"TIMEOUT"}`, "5000", 60000, nil},
	{"omdp-final", omdp.OMDPFinal, `"C_TIMEOUT"`, "300", 3500, []exception{forgotten}},
	{"pigato", omdp.PIGATO, `"C_TIMEOUT"`, "300", 3500, []exception{forgotten}},
	{"mdp02", omdp.MDP02, `"TIMEOUT"`, "300", 1000, []exception{forgotten}},
	{"mdp01", omdp.MDP01, `"TIMEOUT"`, "300", 1000, []exception{forgotten, {
		client: "omdp", worker: "omdp", check: "partials", why: "MDP/0.1 has no partials: omdp's worker joins them to the final, and its client makes an array of the frames",
		want: lines(`final ["partials-0","partials-1","partials-2","partials-final"]`),
	}}},
}

// Our client and our worker through brokers of other makes, with peers of these
// makes and with one another.
func TestForeignBrokers(t *testing.T) {
	needPeers(t)
	peer := buildPeer(t)
	m := &table{title: "Through brokers of other makes, client-worker", corner: "broker", cells: map[[2]string]result{}}
	columns := []string{"omdp-omdp", "omdp-its own", "its own-omdp"}
	var rows []string
	many := make(chan struct{}, 2*cap(slots)) // cells that wait for timeouts most of the time
	t.Run("cells", func(t *testing.T) {
		for _, b := range foreignBrokers {
			rows = append(rows, b.name)
			broker := start(t, b.name+"-broker", []string{"node", filepath.Join("js", b.name+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*", "--heartbeat", "500"})
			t.Cleanup(func() {
				if notes := broker.notes(); notes != "" { // what it did not understand
					t.Errorf("the broker of %s noted\n%s", b.name, notes)
				}
			})
			endpoint := broker.want("ready")
			for i, column := range columns {
				s := scene{client: "omdp", worker: "omdp", said: errorsOf["omdp"], heldTimeout: b.heldTimeout, slots: many}
				s.clientCommand = []string{peer, "client", "--endpoint", endpoint, "--dialect", b.dialect.String(), "--heartbeat", "300"}
				s.workCommand = []string{peer, "worker", "--endpoint", endpoint, "--dialect", b.dialect.String(), "--heartbeat", "400"}
				switch i {
				case 1:
					s.worker, s.workCommand = b.name, node(b.name, "worker", endpoint, "--heartbeat", "400")
				case 2:
					s.client, s.clientCommand = b.name, node(b.name, "client", endpoint, "--heartbeat", b.beat)
					s.said = errorsOf[b.name]
					s.said.timeout = b.timeout
				}
				s.except = append(slices.Clone(b.except), exceptions...)
				m.run(t, b.name, column, s)
			}
		}
	})
	m.print(t, rows, columns)
}
