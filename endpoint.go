package omdp

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Bounds of libzmq: sun_path of a Unix socket, and what is sensible elsewhere.
const (
	maxIPCPath = 107
	maxHost    = 255
	maxInproc  = 255
)

var errEndpoint = errors.New("is not tcp://host:port, ipc://path or inproc://name")

// parseEndpoint checks an endpoint's syntax, before any I/O: libzmq itself
// refuses some of these only later, and without a reason. Wildcards (tcp://*:5555,
// tcp://host:*, tcp://host:0, ipc://*) are for endpoints that are bound.
// The error says what is wrong and quotes the endpoint; the caller names the field.
func parseEndpoint(s string, bind bool) error {
	transport, address, ok := strings.Cut(s, "://")
	if !ok || strings.ContainsAny(s, "\x00\r\n") {
		return fmt.Errorf("%q %w", s, errEndpoint)
	}
	var err error
	switch transport {
	case "tcp":
		err = parseTCP(address, bind)
	case "ipc":
		switch {
		case address == "":
			err = errors.New("the path is empty")
		case len(address) > maxIPCPath:
			err = fmt.Errorf("the path has %d bytes, over %d", len(address), maxIPCPath)
		case address == "*" && !bind:
			err = errors.New("a wildcard can only be bound")
		}
	case "inproc":
		switch {
		case address == "":
			err = errors.New("the name is empty")
		case len(address) > maxInproc:
			err = fmt.Errorf("the name has %d bytes, over %d", len(address), maxInproc)
		}
	default:
		return fmt.Errorf("%q %w", s, errEndpoint)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	return nil
}

func parseTCP(address string, bind bool) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return errEndpoint
	case host == "":
		return errors.New("the host is empty")
	case len(host) > maxHost:
		return fmt.Errorf("the host has %d bytes, over %d", len(host), maxHost)
	case strings.ContainsAny(host, " \t/"):
		return errors.New("the host is not a name or an address")
	case !bind && host == "*":
		return errors.New("a wildcard can only be bound")
	case port == "*" || port == "0":
		if !bind {
			return errors.New("a wildcard can only be bound")
		}
		return nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port %q is not a number from 1 to 65535", port)
	}
	return nil
}
