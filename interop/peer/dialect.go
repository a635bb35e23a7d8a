package main

import (
	"fmt"
	"strings"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/interop/dialect"
)

// addListener adds DIALECT=ENDPOINT.
func addListener(config *omdp.BrokerConfig, s string) error {
	name, endpoint, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("-listen %q is not DIALECT=ENDPOINT", s)
	}
	return dialect.Listen(config, name, endpoint)
}

func setDialect(config any, name string) error { return dialect.Set(config, name) }
