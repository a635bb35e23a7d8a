package omdp

import (
	"bytes"
	"time"
)

var minus = []byte{'-'}

// What our own peers write, read without encoding/json: capabilities come with
// every greeting, which our clients send in place of each bare heartbeat, and
// options with every request. Whatever is not written just so is left to the
// general readers, which say the same of what is.

// ownInt reads ,"key":N, or nothing if it is not there.
func ownInt(b []byte, key string) (n int64, rest []byte) {
	if len(b) <= len(key) || string(b[:len(key)]) != key {
		return 0, b
	}
	if c := b[len(key)]; c < '1' || c > '9' { // 0 is never written, and has many forms
		return 0, b
	}
	n, rest, ok := parseInt(b[len(key):])
	if !ok {
		return 0, b
	}
	return n, rest
}

// ownKey reads ,"key":"TEXT", or nothing if it is not there or has more in it
// than plain ASCII.
func ownKey(b []byte, key string) (text string, rest []byte) {
	if len(b) <= len(key) || string(b[:len(key)]) != key {
		return "", b
	}
	t := b[len(key):]
	n := 0
	for n < len(t) && t[n] >= ' ' && t[n] <= '~' && t[n] != '"' && t[n] != '\\' {
		n++
	}
	if n == 0 || n > maxKey || n == len(t) || t[n] != '"' {
		return "", b
	}
	return string(t[:n]), t[n+1:]
}

// parseOwnCaps reads what caps.append writes.
func parseOwnCaps(b []byte) (c caps, ok bool) {
	v, b := ownInt(b, `{"v":`)
	const head = `,"id":"`
	if v == 0 || len(b) < len(head) || string(b[:len(head)]) != head {
		return caps{}, false
	}
	b = b[len(head):]
	n := 0
	for n < len(b) && n <= maxRID && b[n] > ' ' && b[n] <= '~' && b[n] != '"' && b[n] != '\\' {
		n++
	}
	if n == 0 || n > maxRID || n == len(b) || b[n] != '"' {
		return caps{}, false
	}
	c.V, c.ID = int(v), string(b[:n])
	b = b[n+1:]
	c.HB, b = ownInt(b, `,"hb":`)
	concurrency, b := ownInt(b, `,"concurrency":`)
	c.Credit, b = ownInt(b, `,"credit":`)
	pack, b := ownInt(b, `,"pack":`)
	grow, b := ownInt(b, `,"grow":`)
	c.Frame, b = ownInt(b, `,"frame":`)
	c.Body, b = ownInt(b, `,"body":`)
	c.Concurrency, c.Pack, c.Grow = int(concurrency), int(pack), int(grow)
	if string(b) != "}" || c.HB < 1 || c.HB > 86_400_000 {
		return caps{}, false
	}
	return c, true
}

// parseOwnOptions reads what appendOptions writes, but for metadata.
func parseOwnOptions(b []byte) (o options, ok bool) {
	sep := byte('{')
	if key := `{"timeout":`; len(b) > len(key) && string(b[:len(key)]) == key {
		digits := bytes.TrimPrefix(b[len(key):], minus)
		n, rest, ok := parseInt(b[len(key):])
		if !ok || digits[0] == '0' { // 01 is no JSON, and 0 is never written
			return options{}, false
		}
		o.timeout, b, sep = timeoutOf(n), rest, ','
		if _, rest, ok := parseKeyInt(b, `,"retry":`); ok && string(rest) == "}" && b[len(b)-2] != '-' && (b[len(`,"retry":`)] != '0' || len(b) == len(`,"retry":0}`)) { // as PIGATO's clients write
			return o, o.timeout >= timeoutNone && o.timeout <= time.Duration(maxTimeoutMS)*time.Millisecond
		}
	}
	const failFast = `"failFast":true`
	if len(b) > len(failFast) && b[0] == sep && string(b[1:1+len(failFast)]) == failFast {
		o.failFast, b, sep = true, b[1+len(failFast):], ','
	}
	if len(b) == 0 || b[0] != sep && (b[0] != '}' || sep == '{') { // a } alone ends nothing
		return options{}, false
	}
	var n int64
	if b[0] == '{' { // neither came before
		if n, b = ownInt(b, `{"credit":`); n > 0 {
			o.credit = min(n, maxCredit)
		} else if n, b = ownInt(b, `{"attempt":`); n > 1 && n <= maxAttempt {
			o.attempt = int(n)
			o.key, b = ownKey(b, `,"key":"`)
			return o, string(b) == "}"
		} else if o.key, b = ownKey(b, `{"key":"`); o.key != "" {
			return o, string(b) == "}"
		} else {
			return options{}, false
		}
	} else if n, b = ownInt(b, `,"credit":`); n > 0 {
		o.credit = min(n, maxCredit)
	}
	if n, b = ownInt(b, `,"attempt":`); n > 1 && n <= maxAttempt {
		o.attempt = int(n)
	} else if n != 0 {
		return options{}, false
	}
	o.key, b = ownKey(b, `,"key":"`)
	return o, string(b) == "}" && o.timeout >= timeoutNone && o.timeout <= time.Duration(maxTimeoutMS)*time.Millisecond
}
