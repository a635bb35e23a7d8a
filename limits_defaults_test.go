package omdp

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// docs/limits.md says of every field what its default is. This reads its table
// and compares each with what a config that says nothing is filled with; and
// none of Limits is missing there.
func TestLimitsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	var b BrokerConfig
	if _, err := b.fill(); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient("inproc://x", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWorker("inproc://x", "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	client, worker := c.config, w.config
	// What both have in common is filled into settings.
	for config, s := range map[any]settings{&client: c.settings, &worker: w.settings} {
		v := reflect.ValueOf(config).Elem()
		v.FieldByName("Heartbeat").Set(reflect.ValueOf(s.heartbeat))
		v.FieldByName("Liveness").Set(reflect.ValueOf(s.liveness))
		v.FieldByName("MaxBody").Set(reflect.ValueOf(s.maxBody))
		v.FieldByName("DrainTimeout").Set(reflect.ValueOf(s.drain))
	}
	roots := map[string]reflect.Value{"Limits": reflect.ValueOf(b.Limits), "BrokerConfig": reflect.ValueOf(b), "ClientConfig": reflect.ValueOf(client), "WorkerConfig": reflect.ValueOf(worker)}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)\\.(\\w+)` \\| ([^|]*?) \\|").FindAllStringSubmatch(string(text), -1) {
		name := m[1] + "." + m[2]
		named[name] = true
		f := roots[m[1]]
		if f.IsValid() {
			f = f.FieldByName(m[2])
		}
		if !f.IsValid() {
			t.Errorf("docs/limits.md names %s, which does not exist", name)
			continue
		}
		if got, ok := sameLimit(m[3], f); !ok {
			t.Errorf("docs/limits.md says that %s is %s, the default is %v (%s)", name, m[3], f, got)
		}
	}
	for i := range roots["Limits"].NumField() {
		if name := "Limits." + roots["Limits"].Type().Field(i).Name; !named[name] {
			t.Errorf("docs/limits.md does not name %s", name)
		}
	}
}

// sameLimit compares a number as it is written, or a time, with a field; a unit
// of bytes is KiB or MiB. What follows the number is for people.
func sameLimit(text string, f reflect.Value) (read string, same bool) {
	if text == "off" {
		return text, f.Int() == 0
	}
	if d, ok := f.Interface().(time.Duration); ok {
		got, err := time.ParseDuration(strings.ReplaceAll(text, " ", ""))
		return fmt.Sprint(got, err), err == nil && got == d
	}
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(strings.ReplaceAll(number, ",", ""), 10, 64)
	switch unit {
	case "KiB":
		n <<= 10
	case "MiB":
		n <<= 20
	}
	return fmt.Sprint(n, err), err == nil && n == f.Int()
}
