package main

import (
	"fmt"
	"reflect"
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

// setDialect sets that of a *WorkerConfig or *ClientConfig, which do not have it yet.
func setDialect(config any, name string) error {
	if name == "" {
		return nil
	}
	d, err := parseDialect(name)
	if err != nil {
		return err
	}
	f := reflect.ValueOf(config).Elem().FieldByName("Dialect")
	if !f.IsValid() {
		if d == omdp.OMDP {
			return nil
		}
		return fmt.Errorf("this library has no %v peers", d)
	}
	f.SetUint(uint64(d))
	return nil
}
