package omdp

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

var errNotJSON = errors.New("json.RawMessage is not valid JSON")

// A Message is one value as it crossed the wire: the data of a request, a
// partial or a final. It owns its bytes and never changes; it may be kept and
// shared between goroutines. The zero value is JSON null.
type Message struct {
	b   []byte // JSON text, or the bytes themselves if raw
	raw bool
}

// Bytes returns the content: the bytes that Write or a []byte sent, the text
// of a JSON string, the bytes of a Buffer as Node prints it, and the JSON text
// of any other value; nil for null. The caller must not change the result.
func (m Message) Bytes() []byte {
	if m.raw || m.b == nil {
		return m.b
	}
	if s, ok := unquote(m.b); ok {
		return s
	}
	if p, ok := parseBuffer(m.b); ok {
		return p
	}
	if m.IsNull() {
		return nil
	}
	return m.b
}

// String is Bytes as a string.
func (m Message) String() string { return string(m.Bytes()) }

// JSON returns the value as JSON text. Raw bytes are a JSON string if they are
// UTF-8, else the form {"type":"Buffer","data":[…]}.
func (m Message) JSON() json.RawMessage {
	if m.raw {
		return appendBytes(nil, m.b)
	}
	if m.b == nil {
		return json.RawMessage("null")
	}
	return m.b
}

// MarshalJSON makes a Message embed as the value that it holds.
func (m Message) MarshalJSON() ([]byte, error) { return m.JSON(), nil }

// Decode stores the value in v, a pointer, as json.Unmarshal does. Into a
// *[]byte, *string or *Message go the content (Bytes), its text, and m itself.
func (m Message) Decode(v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = append([]byte(nil), m.Bytes()...)
		return nil
	case *Message:
		*v = m
		return nil
	case *string:
		if s, ok := m.text(); ok {
			*v = s
			return nil
		}
	}
	if err := json.Unmarshal(m.JSON(), v); err != nil {
		return &decodeError{err}
	}
	return nil
}

type decodeError struct{ err error }

func (e *decodeError) Error() string { return "omdp: decode message: " + e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

// text returns the value if it is a string.
func (m Message) text() (string, bool) {
	if m.raw {
		return string(m.b), utf8.Valid(m.b)
	}
	s, ok := unquote(m.b)
	return string(s), ok
}

// IsNull tells whether the value is JSON null.
func (m Message) IsNull() bool { return !m.raw && (m.b == nil || string(m.b) == "null") }

// Len is the size of the value as it crossed the wire, in bytes.
func (m Message) Len() int { return len(m.b) }

func (m Message) appendJSON(b []byte) []byte {
	switch {
	case m.raw:
		return appendBytes(b, m.b)
	case m.b == nil:
		return append(b, "null"...)
	}
	return append(b, m.b...)
}
