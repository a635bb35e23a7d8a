package conformance_test

import (
	"context"
	"fmt"
	"os"

	"github.com/zmq-omdp/omdp/conformance"
)

// The scripts for one requirement, against this library.
func ExampleRun() {
	kit, err := conformance.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range conformance.Run(context.Background(), kit.Select("omdp.protocol.notify"), conformance.Options{Driver: conformance.Ours()}) {
		fmt.Println(r.Script.Name, r.Passed())
	}
	// Output: omdp/broker-notify true
}

// A broker of another make that listens at an endpoint.
func ExampleForeign() {
	check := func(endpoint string) bool {
		kit, err := conformance.Load()
		if err != nil {
			return false
		}
		results := conformance.Run(context.Background(), kit.Scripts, conformance.Options{
			Driver:   &conformance.Foreign{Endpoint: endpoint, Dialects: []string{"mdp02"}},
			Parallel: 32,
		})
		binding, _ := kit.Print(os.Stdout, results, false)
		return binding == 0
	}
	_ = check
}
