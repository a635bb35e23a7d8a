package omdp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// The JSON inside frames: values, capabilities, options and the extra frame.
// What every request carries is read and written here without encoding/json,
// which takes several hundred nanoseconds even for the smallest object.

// caps is what a peer that advertises tells of itself.
type caps struct {
	V           int    `json:"v"`
	ID          string `json:"id"` // the peer's life: 22 printable characters
	HB          int64  `json:"hb"` // its heartbeat interval in ms
	Concurrency int    `json:"concurrency"`
	Credit      int64  `json:"credit"` // the client's window in bytes
	Pack        int    `json:"pack"`   // 1: it reads envelopes
	Grow        int    `json:"grow"`   // 1: its windows grow
	Frame       int64  `json:"frame"`  // the broker's largest frame in bytes; it reads raw data and pieces
	Body        int64  `json:"body"`   // the most in pieces that the client or worker takes, in bytes; the worker reads raw data
}

func (c *caps) append(b []byte) []byte {
	b = append(b, `{"v":`...)
	b = appendInt(b, int64(c.V))
	b = append(b, `,"id":`...)
	b = appendJSONString(b, c.ID)
	b = append(b, `,"hb":`...)
	b = appendInt(b, c.HB)
	if c.Concurrency != 0 {
		b = append(b, `,"concurrency":`...)
		b = appendInt(b, int64(c.Concurrency))
	}
	if c.Credit != 0 {
		b = append(b, `,"credit":`...)
		b = appendInt(b, c.Credit)
	}
	if c.Pack != 0 {
		b = append(b, `,"pack":`...)
		b = appendInt(b, int64(c.Pack))
	}
	if c.Grow != 0 {
		b = append(b, `,"grow":`...)
		b = appendInt(b, int64(c.Grow))
	}
	if c.Frame != 0 {
		b = append(b, `,"frame":`...)
		b = appendInt(b, c.Frame)
	}
	if c.Body != 0 {
		b = append(b, `,"body":`...)
		b = appendInt(b, c.Body)
	}
	return append(b, '}')
}

// parseCaps reads capabilities; unknown keys are ignored. It reports false
// unless they are an object with v ≥ 1, an id of 1 to 64 printable bytes, and
// an interval of at most a day; other numbers are taken as they are and
// clipped where they are used.
func parseCaps(b []byte) (c caps, ok bool) {
	if c, ok := parseOwnCaps(b); ok {
		return c, true
	}
	return parseAnyCaps(b)
}

func parseAnyCaps(b []byte) (c caps, ok bool) {
	if len(b) > 4096 || json.Unmarshal(b, &c) != nil {
		return caps{}, false
	}
	if c.V < 1 || c.ID == "" || len(c.ID) > maxRID || c.HB < 1 || c.HB > 86_400_000 || c.Concurrency < 0 || c.Credit < 0 || c.Frame < 0 || c.Body < 0 {
		return caps{}, false
	}
	for i := range len(c.ID) {
		if c.ID[i] <= ' ' || c.ID[i] > '~' {
			return caps{}, false
		}
	}
	return c, true
}

func (c *caps) interval() time.Duration { return time.Duration(c.HB) * time.Millisecond }

// extra is the frame that a REQUEST carries towards a worker that advertised.
type extra struct {
	remaining int64 // ms; negative is no deadline
	attempt   int   // 1 for the first
	credit    int64 // the client's window in bytes; 0: it grants none
	raw       bool  // the client reads raw bytes
	grow      bool  // the window grows where the worker says that it waits for credit
	more      int64 // bytes of data that follow in pieces; moreUpload: an upload does
	body      int64 // the most that the client joins of pieces, in bytes
}

// moreUpload, as the bytes that follow a REQUEST: nobody knows how many.
const moreUpload = -1

func (x *extra) append(b []byte) []byte {
	b = append(b, `{"remaining":`...)
	b = appendInt(b, x.remaining)
	b = append(b, `,"attempt":`...)
	b = appendInt(b, int64(x.attempt))
	b = append(b, `,"credit":`...)
	b = appendInt(b, x.credit)
	if x.raw {
		b = append(b, `,"raw":true`...)
	} else {
		b = append(b, `,"raw":false`...)
	}
	if x.grow {
		b = append(b, `,"grow":true`...)
	}
	if x.more != 0 {
		b = append(b, `,"more":`...)
		b = appendInt(b, x.more)
	}
	if x.body != 0 {
		b = append(b, `,"body":`...)
		b = appendInt(b, x.body)
	}
	return append(b, '}')
}

// parseExtra reads what append writes: the four keys in their order. What
// follows them, from later versions, is ignored.
func parseExtra(b []byte) (x extra, ok bool) {
	var n int64
	if x.remaining, b, ok = parseKeyInt(b, `{"remaining":`); !ok {
		return extra{}, false
	}
	if n, b, ok = parseKeyInt(b, `,"attempt":`); !ok || n < 1 || n > math.MaxInt32 {
		return extra{}, false
	}
	x.attempt = int(n)
	if x.credit, b, ok = parseKeyInt(b, `,"credit":`); !ok || x.credit < 0 {
		return extra{}, false
	}
	if rest, found := bytes.CutPrefix(b, []byte(`,"raw":true`)); found {
		x.raw, b = true, rest
	} else if b, found = bytes.CutPrefix(b, []byte(`,"raw":false`)); !found {
		return extra{}, false
	}
	if rest, found := bytes.CutPrefix(b, []byte(`,"grow":true`)); found {
		x.grow, b = true, rest
	}
	if n, rest, ok := parseKeyInt(b, `,"more":`); ok {
		x.more, b = n, rest
	}
	if n, rest, ok := parseKeyInt(b, `,"body":`); ok {
		x.body, b = max(n, 0), rest
	}
	if x.more < moreUpload {
		return extra{}, false
	}
	return x, len(b) > 0 && (b[0] == '}' || b[0] == ',') && b[len(b)-1] == '}'
}

func parseKeyInt(b []byte, key string) (n int64, rest []byte, ok bool) {
	if len(b) < len(key) || string(b[:len(key)]) != key {
		return 0, b, false
	}
	return parseInt(b[len(key):])
}

// Timeouts of a request, as the options frame says them.
const (
	timeoutDefault time.Duration = 0  // absent, null or 0
	timeoutNone    time.Duration = -1 // any negative number
)

const maxTimeoutMS = int64(math.MaxInt64 / int64(time.Millisecond) / 2)

// options is what the broker reads of a request's options. The frame itself is
// passed on untouched.
type options struct {
	timeout  time.Duration // timeoutDefault, timeoutNone, or the time itself
	failFast bool          // ours: NO_WORKER at once instead of waiting for a worker
	credit   int64         // ours: this request's window in bytes, if it is not the client's usual one
	key      string        // ours: requests with the same one go to the same worker, where the broker's policy says so
	attempt  int           // ours: which attempt of an idempotent request this is; 0: the first
	more     int64         // ours: bytes of data that follow in pieces; moreUpload: an upload does
}

// maxKey bounds a request's key, in bytes.
const maxKey = 255

// maxAttempt is the highest number of an attempt that is believed.
const maxAttempt = 1_000_000

// parseOptions reads a request's options: timeout in milliseconds, 0 or absent
// for the default, negative for none (zmq-omdp 4f18192). It reports false for
// options that are not a JSON object or a timeout that is not a number.
func parseOptions(b []byte) (options, bool) {
	if len(b) == 0 || string(b) == "{}" {
		return options{}, true
	}
	if o, ok := parseOwnOptions(b); ok {
		return o, true
	}
	return parseAnyOptions(b)
}

func parseAnyOptions(b []byte) (options, bool) {
	var o map[string]json.RawMessage // not a struct, which would fold the case of users' own keys
	if b[0] != '{' || json.Unmarshal(b, &o) != nil {
		return options{}, false
	}
	var ms float64
	if v := o["timeout"]; v != nil && json.Unmarshal(v, &ms) != nil { // null stays 0
		return options{}, false
	}
	t := timeoutDefault
	switch {
	case ms < 0 || ms > float64(maxTimeoutMS):
		t = timeoutNone
	case ms > 0 && ms < 1:
		t = time.Millisecond
	default:
		t = timeoutOf(int64(ms))
	}
	// Of another type these are some user's own options.
	var failFast bool
	var credit float64
	if json.Unmarshal(o["failFast"], &failFast) != nil {
		failFast = false
	}
	if json.Unmarshal(o["credit"], &credit) != nil {
		credit = 0
	}
	var attempt int
	if json.Unmarshal(o["attempt"], &attempt) != nil || attempt < 2 || attempt > maxAttempt {
		attempt = 0
	}
	var key string
	if json.Unmarshal(o["key"], &key) != nil || len(key) > maxKey {
		key = ""
	}
	var more int64
	if json.Unmarshal(o["more"], &more) != nil || more < moreUpload || more > maxCredit {
		more = 0
	}
	return options{t, failFast, int64(min(max(credit, 0), maxCredit)), key, attempt, more}, true
}

func timeoutOf(ms int64) time.Duration {
	switch {
	case ms < 0, ms > maxTimeoutMS:
		return timeoutNone
	case ms == 0:
		return timeoutDefault
	}
	return time.Duration(ms) * time.Millisecond
}

// appendOptions writes the options of a request; nil means {}. The timeout is
// written in ms, rounded up, if it is not the protocol's default.
func appendOptions(b []byte, o options, meta map[string]string) ([]byte, error) {
	if o == (options{}) && len(meta) == 0 {
		return nil, nil
	}
	sep := byte('{')
	if o.timeout != timeoutDefault {
		b = append(b, `{"timeout":`...)
		if o.timeout < 0 {
			b = append(b, "-1"...)
		} else {
			b = appendInt(b, int64((o.timeout+time.Millisecond-1)/time.Millisecond))
		}
		sep = ','
	}
	if o.failFast {
		b = append(append(b, sep), `"failFast":true`...)
		sep = ','
	}
	if o.credit != 0 {
		b = append(append(b, sep), `"credit":`...)
		b = appendInt(b, o.credit)
		sep = ','
	}
	if o.attempt > 1 {
		b = append(append(b, sep), `"attempt":`...)
		b = appendInt(b, int64(o.attempt))
		sep = ','
	}
	if o.key != "" {
		b = append(append(b, sep), `"key":`...)
		b = appendJSONString(b, o.key)
		sep = ','
	}
	if o.more != 0 {
		b = append(append(b, sep), `"more":`...)
		b = appendInt(b, o.more)
		sep = ','
	}
	if len(meta) > 0 {
		m, err := json.Marshal(meta) // sorts the keys
		if err != nil {
			return nil, err
		}
		b = append(append(b, sep), `"meta":`...)
		b = append(b, m...)
	}
	return append(b, '}'), nil
}

// parseMeta reads the metadata of a request's options: the strings under meta.
func parseMeta(options []byte) map[string]string {
	if !bytes.Contains(options, []byte(`"meta"`)) {
		return nil
	}
	var o struct {
		Meta map[string]any `json:"meta"`
	}
	if json.Unmarshal(options, &o) != nil {
		return nil
	}
	m := make(map[string]string, len(o.Meta))
	for k, v := range o.Meta {
		if s, ok := v.(string); ok {
			m[k] = s
		}
	}
	return m
}

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// plainText tells whether b can stand inside a JSON string as it is: valid
// UTF-8 without quotes, backslashes and control characters. It looks at eight
// bytes at a time, as bodies may be large.
func plainText(b []byte) bool {
	if len(b) >= 256 {
		return plainLong(b)
	}
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i, or := 0, uint64(0)
	for ; i+8 <= len(b); i += 8 {
		w := binary.NativeEndian.Uint64(b[i:])
		or |= w
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		low := (w - ones*0x20) &^ w
		if (low|(quote-ones)&^quote|(slash-ones)&^slash)&highs != 0 {
			return false
		}
	}
	for ; i < len(b); i++ {
		c := b[i]
		or |= uint64(c)
		if c < 0x20 || c == '"' || c == '\\' {
			return false
		}
	}
	return or&highs == 0 || utf8.Valid(b)
}

// plainLong is plainText for long ones, three times as fast: the searches of
// package bytes and of utf8 use the CPU's wide registers.
func plainLong(b []byte) bool {
	const spaces, highs = 0x2020202020202020, 0x8080808080808080
	if bytes.IndexByte(b, '"') >= 0 || bytes.IndexByte(b, '\\') >= 0 {
		return false
	}
	i, or := 0, uint64(0)
	for ; i+32 <= len(b); i += 32 {
		c := b[i : i+32]
		w0, w1 := binary.NativeEndian.Uint64(c), binary.NativeEndian.Uint64(c[8:])
		w2, w3 := binary.NativeEndian.Uint64(c[16:]), binary.NativeEndian.Uint64(c[24:])
		or |= w0 | w1 | w2 | w3
		if ((w0-spaces)&^w0|(w1-spaces)&^w1|(w2-spaces)&^w2|(w3-spaces)&^w3)&highs != 0 {
			return false
		}
	}
	for ; i < len(b); i++ {
		if b[i] < 0x20 {
			return false
		}
		or |= uint64(b[i])
	}
	return or&highs == 0 || utf8.Valid(b)
}

// appendJSONString appends s as a JSON string, as JSON.stringify would write
// it. Invalid UTF-8 becomes U+FFFD.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	start := len(b)
	b = append(b, s...)
	if plainText(b[start:]) {
		return append(b, '"')
	}
	return append(appendEscaped(b[:start], s), '"')
}

func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			default:
				if c < 0x20 {
					b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
				} else {
					b = append(b, c)
				}
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r) // RuneError for an invalid byte
		i += n
	}
	return b
}

// isJSON tells whether b is one JSON value. Plain strings, the common large
// value, are checked without the scanner of encoding/json.
func isJSON(b []byte) bool {
	if n := len(b); n >= 2 && b[0] == '"' && b[n-1] == '"' && plainText(b[1:n-1]) {
		return true
	}
	return json.Valid(b)
}

// isJSONText is isJSON for bytes that may be anything: JSON is UTF-8 (RFC 8259 §8.1),
// which encoding/json does not ask for, and Node would replace what is not.
func isJSONText(b []byte) bool { return isJSON(b) && utf8.Valid(b) }

// unquote returns the text of a JSON string, and false for any other value.
// The result may share memory with b.
func unquote(b []byte) ([]byte, bool) {
	n := len(b)
	if n < 2 || b[0] != '"' || b[n-1] != '"' {
		return nil, false
	}
	if plainText(b[1 : n-1]) {
		return b[1 : n-1], true
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil, false
	}
	return []byte(s), true
}

// appendBuffer writes bytes as Node's Buffer prints itself: the reversible
// JSON form for bytes that are not UTF-8.
func appendBuffer(b, p []byte) []byte {
	b = append(b, `{"type":"Buffer","data":[`...)
	for i, c := range p {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendInt(b, int64(c))
	}
	return append(b, ']', '}')
}

// parseBuffer reads what appendBuffer writes.
func parseBuffer(b []byte) ([]byte, bool) {
	if !bytes.HasPrefix(b, []byte(`{"type":"Buffer","data":[`)) {
		return nil, false
	}
	var v struct {
		Data []uint16 `json:"data"`
	}
	if json.Unmarshal(b, &v) != nil {
		return nil, false
	}
	p := make([]byte, len(v.Data))
	for i, n := range v.Data {
		if n > 255 {
			return nil, false
		}
		p[i] = byte(n)
	}
	return p, true
}

// appendBytes writes p as a JSON value: a string if it is UTF-8, else Node's Buffer.
func appendBytes(b, p []byte) []byte {
	if !utf8.Valid(p) {
		return appendBuffer(b, p)
	}
	b = append(b, '"')
	if plainText(p) {
		b = append(b, p...)
	} else {
		b = appendEscaped(b, string(p))
	}
	return append(b, '"')
}

// appendValue writes v as JSON, by the fixed meanings that the package comment
// states: strings, []byte, json.RawMessage and Message are not marshalled.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case string:
		return appendJSONString(b, v), nil
	case []byte:
		return appendBytes(b, v), nil
	case Message:
		return v.appendJSON(b), nil
	case json.RawMessage:
		if !isJSON(v) {
			return b, errNotJSON
		}
		return append(b, v...), nil
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false) // as JSON.stringify writes
	if err := e.Encode(v); err != nil {
		return b, err
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})...), nil
}

// appendData writes the data of a request: as appendValue, but bytes stay as
// they are, raw.
func appendData(b []byte, v any) (data []byte, raw bool, err error) {
	switch v := v.(type) {
	case []byte:
		return append(b, v...), true, nil
	case Message:
		if v.raw {
			return append(b, v.b...), true, nil
		}
	}
	b, err = appendValue(b, v)
	return b, false, err
}
