package omdp

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What our own peers write is read by the quick readers, and as the general
// ones read it.
func TestOwnForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := caps{
			V: rapid.IntRange(1, 3).Draw(t, "v"), ID: rapid.StringMatching(`[A-Za-z0-9_-]{1,22}`).Draw(t, "id"), HB: rapid.Int64Range(1, 86_400_000).Draw(t, "hb"),
			Concurrency: rapid.IntRange(0, 1000).Draw(t, "concurrency"), Credit: rapid.Int64Range(0, maxCredit).Draw(t, "credit"), Pack: rapid.IntRange(0, 1).Draw(t, "pack"), Grow: rapid.IntRange(0, 1).Draw(t, "grow"),
		}
		b := c.append(nil)
		if got, ok := parseOwnCaps(b); !ok || got != c {
			t.Fatalf("%s: got %+v, %v", b, got, ok)
		}
		if got, ok := parseAnyCaps(b); !ok || got != c {
			t.Fatalf("%s: the general reader got %+v, %v", b, got, ok)
		}
		o := options{
			timeout:  time.Duration(rapid.Int64Range(-1, 100_000).Draw(t, "timeout")) * time.Millisecond,
			failFast: rapid.Bool().Draw(t, "failFast"), credit: rapid.Int64Range(0, maxCredit).Draw(t, "credit"),
			key:     rapid.SampledFrom([]string{"", "k", "user 17", strings.Repeat("x", 255)}).Draw(t, "key"),
			attempt: rapid.SampledFrom([]int{0, 2, 3, maxAttempt}).Draw(t, "attempt"),
		}
		if o.timeout < 0 {
			o.timeout = timeoutNone
		}
		b, _ = appendOptions(nil, o, nil)
		if b == nil {
			return
		}
		if got, ok := parseOwnOptions(b); !ok || got != o {
			t.Fatalf("%s: got %+v, %v, want %+v", b, got, ok, o)
		}
		if got, ok := parseAnyOptions(b); !ok || got != o {
			t.Fatalf("%s: the general reader got %+v, %v, want %+v", b, got, ok, o)
		}
	})
}

// Whatever the quick readers take, the general ones take as well, and the same.
func FuzzOwnForms(f *testing.F) {
	for _, s := range []string{
		`{"v":1,"id":"life","hb":2500}`, `{"v":1,"id":"life","hb":2500,"concurrency":3,"credit":5,"pack":1}`, `{"timeout":-1}`, `{"timeout":01}`,
		`{"timeout":1,"failFast":true,"credit":7,"attempt":2}`, `{"failFast":true}`, `{"credit":7}`, `{"attempt":2}`, `{"attempt":1}`, `{}`, `{"credit":7,"credit":8}`, `{"key":"k"}`, `{"attempt":2,"key":"a b"}`, `{"timeout":1,"key":"\\u0041"}`, "}", "{", ",",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseOwnCaps(b); ok {
			if any, ok := parseAnyCaps(b); !ok || any != c {
				t.Errorf("%q: got %+v, the general reader %+v, %v", b, c, any, ok)
			}
		}
		if o, ok := parseOwnOptions(b); ok {
			if any, ok := parseAnyOptions(b); !ok || any != o {
				t.Errorf("%q: got %+v, the general reader %+v, %v", b, o, any, ok)
			}
		}
	})
}
