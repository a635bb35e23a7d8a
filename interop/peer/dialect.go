package main

import (
	"fmt"
	"strings"

	"github.com/zmq-omdp/omdp"
)

// parseDialect finds a dialect by its name.
func parseDialect(name string) (omdp.Dialect, error) {
	for d := omdp.Auto; d <= omdp.MDP01; d++ {
		if d.String() == name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is no dialect: omdp, omdp-final, pigato, mdp02 or mdp01", name)
}

// parseListener reads DIALECT=ENDPOINT.
func parseListener(s string) (l omdp.Listener, err error) {
	name, endpoint, ok := strings.Cut(s, "=")
	if !ok {
		return l, fmt.Errorf("-listen %q is not DIALECT=ENDPOINT", s)
	}
	l.Endpoint = endpoint
	l.Dialect, err = parseDialect(name)
	return l, err
}
