package interop_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Client.Lookup, which is RFC 8's mmi.service, at our broker in every dialect
// and at Majordomo brokers of another make.
func TestLookup(t *testing.T) {
	needPeers(t)
	type place struct {
		name, endpoint, worker string
		dialect                omdp.Dialect
	}
	var places []place
	ours := startBroker(t)
	for _, k := range kinds[1:] {
		places = append(places, place{"ours, " + k.dialect.String(), ours[k.dialect], k.name, k.dialect})
	}
	for _, k := range kinds[4:] {
		b := start(t, "broker", []string{"node", filepath.Join("js", k.name+"-broker.js"), "--endpoint", "tcp://127.0.0.1:*"})
		places = append(places, place{"theirs, " + k.name, b.want("ready"), k.name, k.dialect})
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			c, err := omdp.NewClient(p.endpoint, &omdp.ClientConfig{Dialect: p.dialect, Timeout: limit})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			service := "lookup-" + p.worker
			if there, err := c.Lookup(ctx, service); there || err != nil {
				t.Errorf("before there is a worker: got %v, %v; want false", there, err)
			}
			start(t, "worker", node(p.worker, "worker", p.endpoint, "--service", service)).want("ready")
			if _, err := c.Call(ctx, service, "x"); err != nil { // it is registered then
				t.Fatal(err)
			}
			if there, err := c.Lookup(ctx, service); !there || err != nil {
				t.Errorf("with a worker: got %v, %v; want true", there, err)
			}
		})
	}
}
