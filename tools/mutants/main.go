// Command mutants plants faults in the library, one at a time, and sees
// whether the simulator or the properties find each of them in time. Run it by
// `make mutants`. It ends with 1 if one survives, does not compile or does not
// apply.
//
// The tree is left alone: the compiler is given a copy of what a mutant
// changes. Time is the processor's, of one thread, so that it makes no
// difference what else the machine does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// within is how soon a fault has to be found.
const within = 10 * time.Second

// patience is how long that may take by the clock, on a busy machine.
const patience = 5 * time.Minute

// check is something that is to find the faults. It plays the same cases in
// every run, and finds nothing where there is no fault. With -short nothing is
// made smaller that fails.
type check struct {
	name  string
	tests string
	flags []string
}

// checks are run in this order until one finds something.
var checks = []check{
	{"simulator", "TestSim|TestSimDeterministic", []string{"-sim.count=8000", "-sim.base=1"}},
	{"properties", "TestPendingProperties|TestWorkerSessionProperty|TestCreditProperty|TestCreditNeverDeadlocks|TestFinishedAgainstModel",
		[]string{"-rapid.checks=100000", "-rapid.steps=60", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}},
	{"core's properties", "TestCoreHistories|TestCoreDeterministic",
		[]string{"-rapid.checks=1500", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}},
}

var (
	only = flag.String("run", "", "only mutants whose name matches this")
	jobs = flag.Int("j", 2, "mutants at a time")
	show = flag.Bool("v", false, "print what the tests said")
	use  = flag.String("checks", "", "only checks whose name matches this")
)

func main() {
	flag.Parse()
	all, err := chosen()
	if err == nil {
		err = judge(all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// chosen reads the mutants. All must apply, whichever are chosen.
func chosen() ([]mutant, error) {
	names, err := regexp.Compile(*only)
	if err != nil {
		return nil, err
	}
	if checks, err = matching(checks, *use); err != nil {
		return nil, err
	}
	all, err := readMutants("tools/mutants/patches")
	if err != nil {
		return nil, err
	}
	var some []mutant
	var stale []error
	for _, m := range all {
		_, err := m.apply(".")
		stale = append(stale, err)
		if names.MatchString(m.name) {
			some = append(some, m)
		}
	}
	if len(some) == 0 {
		stale = append(stale, fmt.Errorf("no mutant of %d is called like %q; this runs at the top of the repository", len(all), *only))
	}
	return some, errors.Join(stale...)
}

func matching(all []check, pattern string) (some []check, err error) {
	r, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if r.MatchString(c.name) {
			some = append(some, c)
		}
	}
	return some, nil
}

// judge tries every mutant, after the tree without a fault, and prints the table.
func judge(all []mutant) error {
	tmp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	none := mutant{name: "none"}
	if v := none.try(tmp, "none"); v.by != "" || v.err != nil {
		return fmt.Errorf("without a fault: found by %s in %.1f s (%s): %w\n%s", v.by, v.took.Seconds(), v.says, v.err, v.output)
	}
	verdicts := make([]chan verdict, len(all))
	places := make(chan int, *jobs)
	for i := range all {
		verdicts[i] = make(chan verdict, 1)
	}
	go func() {
		for i := range all {
			places <- i
			go func() {
				verdicts[i] <- all[i].try(tmp, fmt.Sprint(i))
				<-places
			}()
		}
	}()
	row := "%-33s %-10s %-28s %-8s %s\n"
	fmt.Printf(row, "mutant", "breaks", "found by", "says", "seconds")
	found := 0
	for i, m := range all {
		v := <-verdicts[i]
		switch {
		case v.err != nil:
			fmt.Printf(row, m.name, m.breaks, "- "+v.err.Error(), "", "")
		case v.by == "":
			fmt.Printf(row, m.name, m.breaks, "- NOT FOUND", "", fmt.Sprintf("%.1f", v.took.Seconds()))
		default:
			found++
			fmt.Printf(row, m.name, m.breaks, v.by, v.says, fmt.Sprintf("%.1f", v.took.Seconds()))
		}
		if *show || v.err != nil {
			fmt.Println(v.output)
		}
	}
	fmt.Printf("%d of %d mutants found\n", found, len(all))
	if found != len(all) {
		return fmt.Errorf("%d survived", len(all)-found)
	}
	return nil
}

// verdict is what became of a mutant.
type verdict struct {
	by     string // the test that found it; empty: none
	says   string // the rule that it named
	took   time.Duration
	output string
	err    error // it could not be tried
}

// try builds the tests with a mutant in the library and runs the checks until
// one finds it.
func (m *mutant) try(tmp, name string) (v verdict) {
	bin := filepath.Join(tmp, name+".test")
	defer os.Remove(bin)
	if v.output, v.err = m.build(bin, filepath.Join(tmp, name)); v.err != nil {
		return v
	}
	for _, c := range checks {
		if c.run(bin, &v); v.by != "" || v.err != nil {
			break
		}
	}
	return v
}

// build compiles the tests of the root package, those of the outside left
// out, with the files that m changes in place of the tree's.
func (m *mutant) build(bin, dir string) (output string, err error) {
	files, err := m.apply(".")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	replace := map[string]string{}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		return "", err
	}
	for _, name := range tests {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if strings.Contains(string(text), "\npackage omdp_test\n") {
			replace[name] = ""
		}
	}
	for name, text := range files {
		at := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[name] = at
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-c", "-overlay", list, "-o", bin, ".").CombinedOutput()
	if err != nil {
		err = errors.New("DOES NOT COMPILE")
	}
	return string(out), err
}

var (
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\w+)`)
	rule   = regexp.MustCompile(`\b[ISRLCK][0-9]{1,2}[ab]?\b`)
)

// run runs one check on a test binary, and notes what it found.
func (c *check) run(bin string, v *verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	args := append([]string{"-test.run=^(" + c.tests + ")$", "-test.failfast", "-test.short", "-test.timeout=0"}, c.flags...)
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	v.output += string(out)
	if cmd.ProcessState == nil {
		v.err = err
		return
	}
	took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	v.took = max(v.took, took)
	switch {
	case ctx.Err() != nil:
		v.err = fmt.Errorf("NO END OF THE %s", strings.ToUpper(c.name))
	case took > within:
		v.err = fmt.Errorf("%s TOOK %.0f s", strings.ToUpper(c.name), took.Seconds())
	case err != nil:
		v.by, v.took = c.name, took
		if f := failed.FindStringSubmatch(string(out)); f != nil {
			v.by = f[1]
		}
		v.says = rule.FindString(string(out))
		if v.says == "" && strings.Contains(string(out), "panic: ") {
			v.says = "panic"
		}
	}
}
