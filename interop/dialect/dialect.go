// Package dialect sets the dialects of configs by their names. It works on a
// library without them as well, where there is only its own.
package dialect

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/zmq-omdp/omdp"
)

// names are those of omdp.Dialect, by their values.
var names = []string{"Auto", "OMDP", "OMDPFinal", "PIGATO", "MDP02", "MDP01"}

// Have tells whether the library knows dialects.
func Have() bool {
	_, ok := reflect.TypeFor[omdp.BrokerConfig]().FieldByName("Dialect")
	return ok
}

// Set sets the Dialect of a *WorkerConfig or *ClientConfig; "" leaves it.
func Set(config any, name string) error { return set(reflect.ValueOf(config).Elem(), name) }

func set(v reflect.Value, name string) error {
	if name == "" {
		return nil
	}
	i := slices.Index(names, name)
	f := v.FieldByName("Dialect")
	switch {
	case i < 0:
		return fmt.Errorf("dialect %q is not one of %v", name, names)
	case !f.IsValid() && name != "OMDP" && name != "Auto":
		return fmt.Errorf("this library has no dialect %s", name)
	case f.IsValid():
		f.SetUint(uint64(i))
	}
	return nil
}

// Listen adds a listener of a dialect to a broker's.
func Listen(config *omdp.BrokerConfig, name, endpoint string) error {
	f := reflect.ValueOf(config).Elem().FieldByName("Listeners")
	l := reflect.New(f.Type().Elem()).Elem()
	if l.Kind() == reflect.String {
		l.SetString(endpoint)
	} else {
		l.FieldByName("Endpoint").SetString(endpoint)
		if err := set(l, name); err != nil {
			return err
		}
	}
	f.Set(reflect.Append(f, l))
	return nil
}
