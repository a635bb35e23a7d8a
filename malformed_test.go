package omdp_test

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The table of malformed messages. Every command is spoiled in every frame, in
// every way below, and sent to a live broker, a live worker and a live client;
// each message has a name of its own and an effect that is seen from outside.
// Here are the messages as they should be and the ways to spoil one; who is
// told what by it is in malformed_broker_test.go and its neighbours.

// kind is what a frame is, which decides what is wrong in its place.
type kind uint8

const (
	kindHeader kind = iota
	kindCommand
	kindService
	kindRID
	kindToken
	kindData
	kindOptions
	kindExtra
	kindCaps
	kindAmount
	kindPayload
	kindCause
)

type field struct {
	name  string
	kind  kind
	value string
}

// form is one message as it should be. In its values, and in all that is made
// of them, {SERVICE}, {LIVE}, {TOKEN}, {NEW} and {LIFE} stand for what a case
// has: the service, id and token of a request in progress, an id that is not
// used yet, and the life of the peer.
type form struct {
	name   string
	fields []field
}

// thorough are the forms whose header and command are spoiled in every way; the
// others show that these frames are read in the same way everywhere.
var thorough = []string{"REQUEST", "READY", "REPLY"}

// spoiled is a message with one thing wrong.
type spoiled struct {
	name   string // FORM/what is wrong
	frames []string
	fine   bool // it looks wrong, and is to be taken as the form itself
}

// variant is a value of the wrong type, or of an absurd size.
type variant struct {
	name, value string
	fine        bool
}

const bulk = 1 << 16 // bytes of a huge frame where nothing bounds it

// huge is just over the limit of each kind, or large where there is none.
var huge = map[kind]string{
	kindHeader: strings.Repeat("C", bulk), kindCommand: strings.Repeat("2", bulk), kindService: strings.Repeat("s", 256), kindRID: strings.Repeat("r", 65), kindToken: strings.Repeat("t", 256),
	kindData: `"` + strings.Repeat("d", bulk) + `"`, kindOptions: `{"x":"` + strings.Repeat("o", bulk) + `"}`, kindExtra: `{"remaining":` + strings.Repeat("1", bulk) + "}",
	kindCaps: goodCaps + strings.Repeat(" ", 4096), kindAmount: strings.Repeat("1", bulk), kindPayload: `{"status":200,"msg":"` + strings.Repeat("p", bulk) + `"}`, kindCause: strings.Repeat("c", bulk),
}

func (f form) frames() (all []string) {
	for _, p := range f.fields {
		all = append(all, p.value)
	}
	return all
}

// spoil makes every message that differs from the form in one respect. Frames
// that are missing, empty, huge, doubled or swapped with the next are common
// to all; the rest depends on what the frame is.
func (f form) spoil() (all []spoiled) {
	good := f.frames()
	add := func(name string, fine bool, frames []string) {
		all = append(all, spoiled{f.name + "/" + name, frames, fine})
	}
	with := func(i int, value string) []string {
		frames := slices.Clone(good)
		frames[i] = value
		return frames
	}
	for i, p := range f.fields {
		add(p.name+" missing", false, slices.Delete(slices.Clone(good), i, i+1))
		add(p.name+" empty", false, with(i, ""))
		add(p.name+" huge", false, with(i, huge[p.kind]))
		add(p.name+" doubled", false, slices.Insert(slices.Clone(good), i, p.value))
		if i+1 < len(good) {
			frames := with(i, good[i+1])
			frames[i+1] = p.value
			add(p.name+" and "+f.fields[i+1].name+" swapped", false, frames)
		}
		if p.kind <= kindCommand && !slices.Contains(thorough, f.name) {
			continue
		}
		for _, v := range variantsOf(p) {
			add(p.name+" "+v.name, v.fine, with(i, v.value))
		}
	}
	add("cut after the header", false, good[:1])
	if len(good) > 3 {
		add("cut after the command", false, good[:2])
	}
	add("17 frames", false, append(slices.Clone(good), slices.Repeat([]string{"x"}, 17-len(good))...))
	add("1000 frames", false, append(slices.Clone(good), slices.Repeat([]string{""}, 1000-len(good))...))
	add("all in one frame", false, []string{strings.Join(good, "")})
	add("an empty frame first", false, append([]string{""}, good...)) // PIGATO's and REQ's habit
	return all
}

func variantsOf(p field) []variant {
	switch p.kind {
	case kindHeader:
		return []variant{{"X", "X", false}, {"in lower case", strings.ToLower(p.value), false}, {"with a blank", p.value + " ", false}, {"binary", "\x01", false}, {"of MDP", "MDP" + p.value + "02", false}}
	case kindCommand:
		all := []variant{
			{"0", "0", false}, {"7, PIGATO's", "7", false}, {"14", "14", false}, {"99", "99", false}, {"-1", "-1", false}, {"a fraction", p.value + ".0", false}, {"after a blank", " " + p.value, false},
			{"with a zero in front", "0" + p.value, false}, {"a word", "REQUEST", false}, {"null", "null", false}, {"NUL", "\x00", false}, {"14 in binary", "\x0e", false}, {"255 in binary", "\xff", false},
		}
		n := 0
		fmt.Sscan(p.value, &n)
		return append(all, variant{"in binary", string(rune(n)), true}) // MDP's habit, read and never sent
	case kindService:
		return []variant{{"binary", "\x00\xff\xfe", false}, {"__proto__", "__proto__", false}, {"toString", "toString", false}, {"of 255 bytes", strings.Repeat("s", 255), false}}
	case kindRID:
		return []variant{{"binary", "\x00\xff\xfe", false}, {"unknown", "unknown", false}, {"of 64 bytes", strings.Repeat("r", 64), false}}
	case kindToken:
		return []variant{
			{"binary", "\x00\xff\xfe", false}, {"cut", "{TOKEN:25}", false}, {"longer", "{TOKEN}A", false}, {"guessed", strings.Repeat("A", 26), false}, {"of 26 NULs", strings.Repeat("\x00", 26), false}, {"of the largest place", "____" + strings.Repeat("A", 22), false},
		}
	case kindData:
		return []variant{{"undefined", "undefined", false}, {"cut JSON", `{"a":`, false}, {"binary", "\xff\xfe\x00", false}, {"nested 20,000 deep", strings.Repeat("[", 20_000), false}, {"two values", "1 2", false}}
	case kindOptions:
		return optionsVariants
	case kindExtra:
		return extraVariants
	case kindCaps:
		return capsVariants()
	case kindAmount:
		return []variant{
			{"negative", "-5", false}, {"zero", "0", false}, {"minus zero", "-0", false}, {"with a plus", "+5", false}, {"a word", "many", false}, {"a fraction", "1.5", false}, {"an exponent", "1e3", false}, {"hexadecimal", "0x10", false},
			{"after a blank", " 5", false}, {"with a blank", "5 ", false}, {"in quotes", `"5"`, false}, {"binary", "\x00\x00\x00\x05", false}, {"over 1 TiB", "1099511627777", false}, {"of 20 digits", "99999999999999999999", false}, {"null", "null", false},
		}
	case kindPayload:
		return payloadVariants
	case kindCause:
		return []variant{{"unknown", "whim", false}, {"binary", "\xff\x00", false}}
	}
	return nil
}

// Options of the wrong type. What only looks like one of the protocol's own is
// some user's own option and passed on: failFast, credit and meta of another
// type, and an attempt that is no integer from 2 to 1,000,000.
var optionsVariants = func() []variant {
	all := []variant{
		{"an array", "[]", false}, {"a string", `"x"`, false}, {"a number", "1", false}, {"null", "null", false}, {"undefined", "undefined", false}, {"cut", "{", false}, {"its end alone", "}", false}, {"two objects", "{}{}", false}, {"binary", "\xff\x00", false}, {"after a blank", " {}", false},
		{"nested 20,000 deep", `{"a":` + strings.Repeat("[", 20_000), false}, {"with a trailing comma", `{"timeout":5000,}`, false}, {"with a bare key", "{timeout:5000}", false},
		{"timeout a word", `{"timeout":"soon"}`, false}, {"timeout a number in quotes", `{"timeout":"5000"}`, false}, {"timeout true", `{"timeout":true}`, false}, {"timeout an array", `{"timeout":[5000]}`, false},
		{"timeout an object", `{"timeout":{}}`, false}, {"timeout 1e999", `{"timeout":1e999}`, false}, {"timeout NaN", `{"timeout":NaN}`, false}, {"timeout twice, then a word", `{"timeout":5000,"timeout":"x"}`, false}, {"timeout with a plus", `{"timeout":+5}`, false}, {"timeout with a zero in front", `{"timeout":05000}`, false}, {"timeout minus zero-one", `{"timeout":-01}`, false},
		{"timeout null", `{"timeout":null}`, true}, {"timeout -1e300", `{"timeout":-1e300}`, true}, {"timeout 1e300", `{"timeout":1e300}`, true}, {"timeout of 15 digits", `{"timeout":999999999999999}`, true}, {"Timeout of another case", `{"Timeout":"x"}`, true},
		{"failFast a word", `{"failFast":"yes"}`, true}, {"failFast 1", `{"failFast":1}`, true}, {"credit a word", `{"credit":"x"}`, true}, {"credit negative", `{"credit":-1}`, true}, {"credit an object", `{"credit":{}}`, true},
		{"meta a number", `{"meta":1}`, true}, {"meta of numbers", `{"meta":{"a":1}}`, true}, {"meta an array", `{"meta":["a"]}`, true}, {"meta null", `{"meta":null}`, true}, {"unknown keys", `{"__proto__":{"timeout":1},"constructor":1}`, true},
	}
	for name, v := range map[string]string{
		"a word": `"x"`, "a number in quotes": `"2"`, "null": "null", "true": "true", "an array": "[2]", "an object": `{"n":2}`, "0": "0", "1": "1", "negative": "-2", "a fraction": "2.5", "over a million": "1000001", "1e300": "1e300", "1e999": "1e999", "of 20 digits": "99999999999999999999",
	} {
		all = append(all, variant{"attempt " + name, `{"attempt":` + v + "}", true})
	}
	slices.SortStableFunc(all, func(a, b variant) int { return cmp.Compare(a.name, b.name) })
	return all
}()

const goodExtra = `{"remaining":60000,"attempt":1,"credit":0,"raw":false}`

var extraVariants = func() []variant {
	all := []variant{
		{"not JSON", "x", false}, {"an empty object", "{}", false}, {"an array", "[]", false}, {"null", "null", false}, {"cut", goodExtra[:20], false}, {"without its end", strings.TrimSuffix(goodExtra, "}"), false}, {"binary", "\xff\x00", false},
		{"in another order", `{"attempt":1,"remaining":60000,"credit":0,"raw":false}`, false}, {"with blanks", `{ "remaining": 60000, "attempt": 1, "credit": 0, "raw": false }`, false}, {"with a key more", strings.TrimSuffix(goodExtra, "}") + `,"later":[]}`, true},
	}
	for key, values := range map[string][]string{
		`"remaining":60000`: {`"remaining":"soon"`, `"remaining":null`, `"remaining":1.5`, `"remaining":99999999999999999999`},
		`"attempt":1`:       {`"attempt":0`, `"attempt":-1`, `"attempt":"1"`, `"attempt":2147483648`},
		`"credit":0`:        {`"credit":-1`, `"credit":"x"`, `"credit":99999999999999999999`},
		`"raw":false`:       {`"raw":maybe`, `"raw":null`, `"raw":1`},
	} {
		for _, v := range values {
			all = append(all, variant{"with " + v, strings.Replace(goodExtra, key, v, 1), false})
		}
	}
	slices.SortStableFunc(all, func(a, b variant) int { return cmp.Compare(a.name, b.name) })
	return all
}()

const goodCaps = `{"v":1,"id":"{LIFE}","hb":60000,"concurrency":3,"credit":0,"pack":0}`

// capsVariants spoils the capabilities as a whole, and each key of them.
func capsVariants() []variant {
	all := []variant{
		{"not JSON", "x", false}, {"null", "null", false}, {"an array", "[" + goodCaps + "]", false}, {"a string", `"x"`, false}, {"a number", "1", false}, {"an empty object", "{}", false}, {"cut", goodCaps[:len(goodCaps)-1], false}, {"twice", goodCaps + goodCaps, false},
		{"nested 2,000 deep", `{"v":` + strings.Repeat("[", 2000), false}, {"binary", "\xff\x00", false}, {"with an unknown key", strings.TrimSuffix(goodCaps, "}") + `,"later":{"a":[1]}}`, true},
	}
	for _, k := range []struct {
		key, good   string
		wrong, fine []string
	}{
		{"v", `"v":1`, []string{"", "null", "0", "-1", `"1"`, "1.5", "[]", "{}", "true", "1e400"}, nil},
		{"id", `"id":"{LIFE}"`, []string{"", "null", `""`, "7", "[]", "{}", `"a b"`, `"a\n"`, `"é"`, `"` + strings.Repeat("i", 65) + `"`}, nil},
		{"hb", `"hb":60000`, []string{"", "null", "0", "-5", `"50"`, "1.5", "86400001", "1e30", "[]", "{}"}, nil},
		{"concurrency", `"concurrency":3`, []string{"-1", `"2"`, "1.5", "1e30", "[]", "{}", "true"}, []string{"", "null", "1000000000"}},
		{"credit", `"credit":0`, []string{"-1", `"x"`, "1.5", "1e30", "9223372036854775808", "[]", "{}"}, []string{"", "null", "9223372036854775807"}},
		{"pack", `"pack":0`, []string{`"1"`, "true", "1.5", "1e30", "[]", "{}"}, []string{"", "null", "-1"}},
	} {
		spoil := func(v string, fine bool) {
			name, to := k.key+" "+v, fmt.Sprintf("%q:%s", k.key, v)
			if v == "" {
				name, to = "without "+k.key, `"x":1`
			}
			all = append(all, variant{name, strings.Replace(goodCaps, k.good, to, 1), fine})
		}
		for _, v := range k.wrong {
			spoil(v, false)
		}
		for _, v := range k.fine {
			spoil(v, true)
		}
	}
	return all
}

// What stands in the place of {"status":200,"msg":VALUE}. A broker passes it
// on; a client ends the call of this id, and no other, with ErrProtocol.
var payloadVariants = []variant{
	{"a word", "x", false}, {"binary", "\xff\x00", false}, {"cut", `{"status":200,"msg":`, false}, {"an array", "[]", false}, {"null", "null", false}, {"a number", "200", false}, {"an empty object", "{}", false}, {"two objects", `{"status":200,"msg":1}{}`, false},
	{"status null", `{"status":null,"msg":1}`, false}, {"status an array", `{"status":[200],"msg":1}`, false}, {"status an object", `{"status":{},"msg":1}`, false}, {"status true", `{"status":true,"msg":1}`, false}, {"status empty", `{"status":"","msg":1}`, false},
	{"status missing", `{"msg":1}`, false}, {"status unknown", `{"status":"UNHEARD_OF"}`, false}, {"msg undefined", `{"status":200,"msg":undefined}`, false}, {"msg cut", `{"status":200,"msg":"x}`, false}, {"executed a word", `{"status":"TIMEOUT","executed":"no"}`, false},
	{"nested 20,000 deep", `{"status":200,"msg":` + strings.Repeat("[", 20_000), false},
}

// bare are the commands that can't stand alone: all numbers that there are and
// some that there are not, but for those in fine.
func bare(fine ...string) (all []string) {
	for n := range 16 {
		if c := fmt.Sprint(n); !slices.Contains(fine, c) {
			all = append(all, c)
		}
	}
	return append(all, "99", "255", "")
}

// countersOf gives the counters of a Stats by name.
func countersOf(stats any) map[string]uint64 {
	m := map[string]uint64{}
	v := reflect.ValueOf(stats)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if f.Type.Kind() == reflect.Uint64 && f.Name != "Bytes" {
			m[f.Name] = v.FieldByIndex(f.Index).Uint()
		}
	}
	return m
}

// moved says which counters moved between two Stats and by how much, besides
// what the test itself did.
func moved(before, after any, own map[string]uint64) string {
	b, a := countersOf(before), countersOf(after)
	var all []string
	for name := range a {
		if n := int64(a[name] - b[name] - own[name]); n != 0 {
			all = append(all, fmt.Sprint(name, " ", n))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// excerpt shortens a message for a failure's text.
func excerpt(frames []string) string {
	s := strings.Join(frames, "|")
	if len(s) > 200 {
		return fmt.Sprintf("%.200q… (%d frames, %d bytes)", s, len(frames), len(s))
	}
	return fmt.Sprintf("%q", s)
}

// TestMalformedTable: the table is as large as was promised, and no two cases
// have one name.
func TestMalformedTable(t *testing.T) {
	seen := map[string]bool{}
	count := func(at string, names []string) {
		for _, n := range names {
			if n = at + "/" + n; seen[n] {
				t.Errorf("%s is there twice", n)
			}
			seen[n] = true
		}
		t.Logf("%d malformed messages to the %s", len(names), at)
	}
	names := func(n int, name func(i int) string) (all []string) {
		for i := range n {
			all = append(all, name(i))
		}
		return all
	}
	b, w, c, x := brokerCases(), workerCases(), clientCases(), wireCases()
	count("broker", names(len(b), func(i int) string { return b[i].name }))
	count("worker", names(len(w), func(i int) string { return w[i].name }))
	count("client", names(len(c), func(i int) string { return c[i].name }))
	count("wire", names(len(x), func(i int) string { return x[i].name }))
	if n := len(seen); n < 500 {
		t.Errorf("got %d malformed messages, want at least 500", n)
	}
}
