package omdp

import (
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	const connect, bind, no = 1, 2, 0
	for s, want := range map[string]int{
		"tcp://127.0.0.1:5555":              connect | bind,
		"tcp://localhost:1":                 connect | bind,
		"tcp://[::1]:65535":                 connect | bind,
		"tcp://eth0:5555":                   connect | bind,
		"tcp://*:5555":                      bind,
		"tcp://127.0.0.1:*":                 bind,
		"tcp://127.0.0.1:0":                 bind,
		"tcp://*:*":                         bind,
		"ipc:///tmp/broker":                 connect | bind,
		"ipc://@abstract":                   connect | bind,
		"ipc://*":                           bind,
		"inproc://broker":                   connect | bind,
		"":                                  no,
		"tcp":                               no,
		"tcp://":                            no,
		"tcp://127.0.0.1":                   no,
		"tcp://:5555":                       no,
		"tcp://127.0.0.1:":                  no,
		"tcp://127.0.0.1:x":                 no,
		"tcp://127.0.0.1:-1":                no,
		"tcp://127.0.0.1:65536":             no,
		"tcp://::1:5555":                    no,
		"tcp://a b:5555":                    no,
		"tcp://127.0.0.1:5555/x":            no,
		"http://127.0.0.1:80":               no,
		"127.0.0.1:5555":                    no,
		"ipc://":                            no,
		"inproc://":                         no,
		"inproc://a\x00b":                   no,
		"ipc://" + strings.Repeat("p", 107): connect | bind,
		"ipc://" + strings.Repeat("p", 108): no,
	} {
		for _, as := range []struct {
			bit  int
			name string
		}{{connect, "connect"}, {bind, "bind"}} {
			err := parseEndpoint(s, as.bit == bind)
			if (err == nil) != (want&as.bit != 0) {
				t.Errorf("%s %q: got %v", as.name, s, err)
			}
			if err != nil && !strings.Contains(err.Error(), `"`+strings.ReplaceAll(s, "\x00", `\x00`)+`"`) {
				t.Errorf("%s %q: %v does not quote the endpoint", as.name, s, err)
			}
		}
	}
}
