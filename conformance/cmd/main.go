// Command cmd runs the scripts of the conformance kit.
//
//	go run ./conformance/cmd -ours                             this library
//	go run ./conformance/cmd -endpoint tcp://127.0.0.1:5555    any broker
//	go run ./conformance/cmd -role worker -dialect mdp02 -command 'node worker.js --endpoint {endpoint} --service {service}'
//	go run ./conformance/cmd -role worker -dialect mdp02 -listen tcp://127.0.0.1:5556
//
// It prints a line for each script, and ends with 1 if one failed that shows
// what a peer MUST or SHALL do, or what a message is; with 2 if nothing could be
// run, or not all to the end.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp/conformance"
)

type options struct {
	foreign  conformance.Foreign
	ours     bool
	role     string
	dialect  string
	only     string
	command  string
	has      string
	doc      string
	list     bool
	verbose  bool
	parallel int
	patience time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends it at once
	var o options
	flags := flag.NewFlagSet("conformance", flag.ExitOnError)
	flags.BoolVar(&o.ours, "ours", false, "this library is under test")
	flags.StringVar(&o.foreign.Endpoint, "endpoint", "", "where the broker under test is")
	flags.StringVar(&o.role, "role", "", "what is under test: broker, worker or client (default broker, or all with -ours)")
	flags.StringVar(&o.dialect, "dialect", "", "only scripts of mdp01, mdp02 or omdp")
	flags.StringVar(&o.only, "only", "", "only these scripts or requirements: a name or an id, or the beginning of one")
	flags.StringVar(&o.foreign.At, "listen", "", "where the kit's broker is bound for a worker that you start")
	flags.StringVar(&o.command, "command", "", "starts a worker, or a client for one call; {endpoint}, {service}, {data} and {timeout} in ms are replaced")
	flags.StringVar(&o.foreign.ServiceName, "service", "", "the service of a worker that you start")
	flags.DurationVar(&o.foreign.Heartbeat, "heartbeat", 2500*time.Millisecond, "the heartbeat interval of what is under test")
	flags.DurationVar(&o.foreign.Lost, "expiry", 0, "how long it may take to miss a silent peer (default six heartbeats)")
	flags.DurationVar(&o.foreign.Timeout, "timeout", 0, "the broker's timeout of requests, if it is short")
	flags.StringVar(&o.has, "has", "", `what else it offers: "hold", "twice"`)
	flags.StringVar(&o.doc, "doc", "", "write the checklist to this file")
	flags.BoolVar(&o.list, "list", false, "list the scripts and run none")
	flags.BoolVar(&o.verbose, "v", false, "print the messages, and what is not run")
	flags.IntVar(&o.parallel, "parallel", 32, "scripts at a time")
	flags.DurationVar(&o.patience, "patience", 3*time.Second, "how long an answer may take")
	_ = flags.Parse(os.Args[1:])
	code, err := 0, error(nil)
	if flags.NArg() > 0 {
		err = fmt.Errorf("%q is no flag", flags.Arg(0))
	} else {
		code, err = o.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		code = 2
	}
	stop()
	os.Exit(code)
}

func (o *options) run(ctx context.Context) (code int, err error) {
	kit, err := conformance.Load()
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return 0, err
	}
	scripts := kit.Select(o.only)
	var d conformance.Driver = conformance.Ours()
	if !o.ours {
		if d, err = o.driver(); err != nil {
			return 0, err
		}
	}
	scripts = slices.DeleteFunc(scripts, func(s *conformance.Script) bool {
		return o.role != "" && s.Role != o.role || o.dialect != "" && !slices.Equal(s.Dialects, []string{o.dialect})
	})
	if len(scripts) == 0 {
		return 0, fmt.Errorf("no script is selected")
	}
	if o.list {
		for _, s := range scripts {
			fmt.Printf("%-45s %-7s %-12s %s\n", s.Name, s.Role, strings.Join(s.Dialects, ","), strings.Join(s.Requirements, " "))
		}
		return 0, nil
	}
	results := conformance.Run(ctx, scripts, conformance.Options{Driver: d, Parallel: o.parallel, Patience: o.patience, Trace: o.verbose})
	failed, _ := kit.Print(os.Stdout, results, o.verbose)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if !slices.ContainsFunc(results, func(r conformance.Result) bool { return r.Skipped == "" }) {
		return 0, fmt.Errorf("no script was run: %s", results[0].Skipped)
	}
	if o.doc != "" {
		if err := os.WriteFile(o.doc, []byte(kit.Document(results)), 0o644); err != nil {
			return 0, err
		}
	}
	if failed > 0 {
		code = 1
	}
	return code, nil
}

// check tells which flags can't be.
func (o *options) check() error {
	f := &o.foreign
	for _, c := range []struct {
		what, value string
		known       []string
	}{{"role", o.role, []string{"broker", "worker", "client"}}, {"dialect", o.dialect, []string{"mdp01", "mdp02", "omdp"}}} {
		if c.value != "" && !slices.Contains(c.known, c.value) {
			return fmt.Errorf("%s %q is none of %v", c.what, c.value, c.known)
		}
	}
	switch {
	case o.ours && (f.Endpoint != "" || f.At != "" || o.command != ""):
		return fmt.Errorf("-ours goes without -endpoint, -listen and -command")
	case f.Endpoint != "" && o.role != "" && o.role != "broker":
		return fmt.Errorf("-endpoint is a broker's, and a %s is under test", o.role)
	case f.Endpoint != "" && !strings.Contains(f.Endpoint, "://"):
		return fmt.Errorf("-endpoint %q is not like tcp://127.0.0.1:5555", f.Endpoint)
	case f.At != "" && !strings.Contains(f.At, "://"):
		return fmt.Errorf("-listen %q is not like tcp://127.0.0.1:5555", f.At)
	}
	return nil
}

// driver is that of a foreign subject.
func (o *options) driver() (conformance.Driver, error) {
	f := &o.foreign
	f.Command, f.Has = strings.Fields(o.command), strings.FieldsFunc(o.has, func(r rune) bool { return r == ',' || r == ' ' })
	if len(f.Command) == 0 {
		f.Command = nil
	}
	if o.role == "" {
		o.role = "broker"
	}
	if o.verbose {
		f.Stderr = os.Stderr
	}
	switch {
	case o.role == "broker" && f.Endpoint == "":
		return nil, fmt.Errorf("a broker under test needs -endpoint (or -ours)")
	case o.role == "client" && f.Command == nil:
		return nil, fmt.Errorf("a client under test needs -command")
	case o.role == "worker" && f.Command == nil && f.At == "":
		return nil, fmt.Errorf("a worker under test needs -command or -listen")
	case o.role == "worker" && f.Command == nil && o.dialect == "":
		return nil, fmt.Errorf("a worker that you start needs -dialect")
	}
	if f.At != "" {
		o.parallel = 1 // one endpoint, one broker at a time
	}
	return f, nil
}
