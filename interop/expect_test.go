package interop_test

import (
	"fmt"
	"slices"

	"github.com/zmq-omdp/omdp"
)

// kind is one of those that meet at the broker.
type kind struct {
	name    string
	dialect omdp.Dialect // of the broker's listener
	client  []string     // arguments of its client besides the usual
}

// never is a client's heartbeat that does not come in a test: the clients that
// look after their timeouts at each beat leave it to the broker.
var never = []string{"--heartbeat", "100000"}

var kinds = []kind{
	{name: "omdp", dialect: omdp.OMDP},
	{name: "omdp-spec", dialect: omdp.OMDP},
	{name: "omdp-final", dialect: omdp.OMDPFinal, client: never},
	{name: "pigato", dialect: omdp.PIGATO, client: never},
	{name: "mdp02", dialect: omdp.MDP02},
	{name: "mdp01", dialect: omdp.MDP01},
}

// said is how the client of a kind prints an error.
type said struct {
	teapot  string // a worker's error of code 418 and text TEAPOT
	lost    string // the worker is gone
	timeout string // the request's time is over
}

var errorsOf = map[string]said{
	"omdp":       {`{"status":418,"msg":"TEAPOT"}`, `"W_ERROR"`, `"TIMEOUT"`},
	"omdp-spec":  {`{"status":418,"msg":"TEAPOT"}`, `{"status":"W_ERROR"}`, `{"status":"TIMEOUT"}`},
	"omdp-final": {`{"code":418,"text":"TEAPOT"}`, `"W_ERROR"`, `"TIMEOUT"`},
	"pigato":     {`{"code":418,"text":"TEAPOT"}`, `"W_ERROR"`, `"TIMEOUT"`},
	"mdp02":      {`{"status":418,"msg":"TEAPOT"}`, `{"status":"W_ERROR"}`, `"TIMEOUT"`}, // its own timeout: no request has one there
	"mdp01":      {`{"status":418,"msg":"TEAPOT"}`, `{"status":"W_ERROR"}`, `"TIMEOUT"`},
}

// check is one thing that is asked in each cell. want is what the client prints
// when nothing of the dialects stands in the way.
type check struct {
	name string
	ask  question
	want func(said) []string
}

const (
	object  = `{"foo":"bar","n":1,"a":[1,2,null]}`
	unicode = `"žluťoučký kůň ☃ 日本語 😀"`
)

// The checks in their order. The worker that holds a request is killed; null is
// the last, as there are workers that never answer it.
var checks = []check{
	echo("text", `"foo"`), echo("number", `-1.5`), echo("object", object), echo("unicode", unicode),
	{"error", question{Data: []string{`"fail"`}}, func(s said) []string { return []string{"error " + s.teapot} }},
	{"partials", question{Data: []string{`"partials"`}}, func(said) []string {
		return []string{`partial "partials-0"`, `partial "partials-1"`, `partial "partials-2"`, `final "partials-final"`}
	}},
	inARow("in a row", `"again"`, 200),
	{held, question{Data: []string{`"hold"`}}, func(s said) []string { return []string{"error " + s.lost} }},
	inARow("takeover", `"next"`, 5),
	{"null", question{Data: []string{`null`}, Timeout: 500}, func(said) []string { return []string{"final null"} }},
}

// held is the check in which the worker that has the request is killed.
const held = "held"

func echo(name, value string) check {
	return check{name, question{Data: []string{value}}, func(said) []string { return []string{"final " + value} }}
}

func inARow(name, value string, n int) check {
	return check{name, question{Data: []string{value}, Count: n}, func(said) []string {
		return append(slices.Repeat([]string{"final " + value}, n), fmt.Sprint("done ", n))
	}}
}

// exception is what a check gives for two kinds that is not what was asked for,
// and why it cannot be. "" is any kind.
type exception struct {
	client, worker, check string
	want                  func(said) []string
	why                   string
}

const (
	textOnly  = "omdp-spec's workers reply with text or null: any other value comes back as its JSON, in text"
	neverNull = "omdp-final's workers never send a reply of null: the request's time passes"
	noParts   = "MDP/0.1 has no partials: its worker takes the request for them as text, and echoes it"
	joined    = "MDP/0.1 has no partials: they and the final come to its client as frames of one body"
)

func lines(l ...string) func(said) []string { return func(said) []string { return l } }

// exceptions, the first that fits counts.
var exceptions = []exception{
	{worker: "omdp-spec", check: "number", want: lines(`final "-1.5"`), why: textOnly},
	{worker: "omdp-spec", check: "object", want: lines(fmt.Sprintf("final %q", object)), why: textOnly},
	{worker: "omdp-final", check: "null", want: func(s said) []string { return []string{"error " + s.timeout} }, why: neverNull},
	{worker: "mdp01", check: "partials", want: lines(`final "partials"`), why: noParts},
	{client: "mdp01", check: "partials", want: lines(`final "partials-0" "partials-1" "partials-2" "partials-final"`), why: joined},
}

// expected is what a check prints in a scene, and why if it is not what was asked for.
func expected(s scene, c check) (want []string, why string) {
	for _, e := range s.except {
		if (e.client == "" || e.client == s.client) && (e.worker == "" || e.worker == s.worker) && e.check == c.name {
			return e.want(s.said), e.why
		}
	}
	return c.want(s.said), ""
}
