package omdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

func TestMessage(t *testing.T) {
	for _, c := range []struct {
		m           Message
		bytes, json string
		null        bool
		len         int
	}{
		{Message{}, "", "null", true, 0},
		{Message{b: []byte("null")}, "", "null", true, 4},
		{Message{b: []byte(`"foo"`)}, "foo", `"foo"`, false, 5},
		{Message{b: []byte(`"a\"\u0041"`)}, `a"A`, `"a\"\u0041"`, false, 11},
		{Message{b: []byte(`""`)}, "", `""`, false, 2},
		{Message{b: []byte(`{"a":1}`)}, `{"a":1}`, `{"a":1}`, false, 7},
		{Message{b: []byte(`1.5`)}, `1.5`, `1.5`, false, 3},
		{Message{b: []byte(`{"type":"Buffer","data":[1,255,0]}`)}, "\x01\xff\x00", `{"type":"Buffer","data":[1,255,0]}`, false, 34},
		{Message{b: []byte(`{"type":"Buffer","data":[256]}`)}, `{"type":"Buffer","data":[256]}`, `{"type":"Buffer","data":[256]}`, false, 30},
		{Message{b: []byte("raw \"text\""), raw: true}, `raw "text"`, `"raw \"text\""`, false, 10},
		{Message{b: []byte{255}, raw: true}, "\xff", `{"type":"Buffer","data":[255]}`, false, 1},
		{Message{b: []byte{}, raw: true}, "", `""`, false, 0},
		{Message{b: []byte("null"), raw: true}, "null", `"null"`, false, 4},
	} {
		if got := c.m.Bytes(); string(got) != c.bytes || c.m.String() != c.bytes {
			t.Errorf("%s: bytes %q, want %q", c.json, got, c.bytes)
		}
		if got := c.m.JSON(); string(got) != c.json {
			t.Errorf("JSON %s, want %s", got, c.json)
		}
		if c.m.IsNull() != c.null || c.m.Len() != c.len {
			t.Errorf("%s: null %v, length %d", c.json, c.m.IsNull(), c.m.Len())
		}
		if (c.m.Bytes() == nil) != c.null {
			t.Errorf("%s: bytes are nil: %v", c.json, c.m.Bytes() == nil)
		}
		b, err := json.Marshal(map[string]Message{"m": c.m})
		var want bytes.Buffer
		json.Compact(&want, []byte(`{"m":`+c.json+`}`))
		if err != nil || !bytes.Equal(b, want.Bytes()) {
			t.Errorf("embedded: %s, %v, want %s", b, err, want.Bytes())
		}
	}
}

func TestMessageDecode(t *testing.T) {
	var s string
	var b []byte
	var m Message
	var n int
	var v struct{ A int }
	var a any
	for _, c := range []struct {
		json string
		into any
		got  func() bool
	}{
		{`"foo"`, &s, func() bool { return s == "foo" }},
		{`"foo"`, &b, func() bool { return string(b) == "foo" }},
		{`{"type":"Buffer","data":[255]}`, &b, func() bool { return string(b) == "\xff" }},
		{`{"A":3}`, &v, func() bool { return v.A == 3 }},
		{`{"A":3}`, &m, func() bool { return m.String() == `{"A":3}` }},
		{`7`, &n, func() bool { return n == 7 }},
		{`[1]`, &a, func() bool { return len(a.([]any)) == 1 }},
	} {
		if err := (Message{b: []byte(c.json)}).Decode(c.into); err != nil || !c.got() {
			t.Errorf("%s into %T: %v", c.json, c.into, err)
		}
	}
	raw := Message{b: []byte("foo"), raw: true}
	if err := raw.Decode(&s); err != nil || s != "foo" {
		t.Errorf("raw into a string: %q, %v", s, err)
	}
	if err := raw.Decode(&b); err != nil || string(b) != "foo" {
		t.Errorf("raw into bytes: %q, %v", b, err)
	}
	if b[0] = 'x'; raw.String() != "foo" {
		t.Error("decoded bytes are the message's own")
	}
	err := (Message{b: []byte(`"x"`)}).Decode(&n)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
		t.Errorf("a string into an int: %v", err)
	}
	if err := (Message{b: []byte(`1`)}).Decode(&s); err == nil {
		t.Error("a number into a string: no error")
	}
}
