// Command mutants plants faults in the library, one at a time, and sees
// whether the simulator or the properties find each of them in time. Run it by
// `make mutants`. It ends with 1 if one survives, does not compile or does not
// apply.
//
// The tree is left alone: the compiler is given copies of the files that
// mutants change, with all mutants in them, of which each run of the tests
// chooses one. Time is the processor's, of one thread, so that it makes no
// difference what else the machine does.
package main

import (
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

// limit ends a test that a fault keeps from ending.
const limit = 2 * within

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
	{"simulator", "TestSim|TestSimDeterministic", []string{"-sim.count=6000", "-sim.base=1"}},
	{"worker's properties", "TestWorkerSessionProperty|TestPlaces|TestCreditProperty|TestCreditNeverDeadlocks|TestBodyCreditProperty|TestBodyRoomProperty",
		[]string{"-rapid.checks=20000", "-rapid.steps=60", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}},
	{"client's properties", "TestPendingProperties|TestPoolProperties|TestPendingWidenProperty|TestPendingJoinIsOfOneAttempt|TestAgainProperty|TestCreditReachesWorkersProperty|TestFinishedAgainstModel",
		[]string{"-rapid.checks=60000", "-rapid.steps=60", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}},
	{"core's properties", "TestDialectHistories|TestVersionsProperty|TestUnclearFirstRequestIsLong|TestUnclearLeaves|TestUnclearTooLate|TestRehome|TestLateTurnsProperty|TestCoreHistories|TestCoreDeterministic|TestBodyCoreProperty|TestBodyNotAdopted",
		[]string{"-rapid.checks=1500", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}},
}

var (
	root = flag.String("root", ".", "the top of the repository")
	only = flag.String("run", "", "only mutants whose name matches this")
	jobs = flag.Int("j", 2, "mutants at a time")
	show = flag.Bool("v", false, "print what the tests said")
	use  = flag.String("checks", "", "only checks whose name matches this")
)

func main() {
	flag.Parse()
	err := os.Chdir(*root)
	var all []mutant
	if err == nil {
		all, err = chosen()
	}
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
		stale = append(stale, fmt.Errorf("no mutant of %d is called like %q", len(all), *only))
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
	bin := filepath.Join(tmp, "planted.test")
	if err := build(bin, tmp, all); err != nil {
		return err
	}
	if v := try(bin, 0); v.by != "" || v.err != nil {
		return fmt.Errorf("without a fault: found by %q in %.1f s, %v\n%s", v.by, v.took.Seconds(), v.err, v.output)
	}
	verdicts := make([]chan verdict, len(all))
	places := make(chan bool, *jobs)
	for i := range all {
		verdicts[i] = make(chan verdict, 1)
	}
	go func() {
		for i := range all {
			places <- true
			go func() {
				verdicts[i] <- try(bin, i+1)
				<-places
			}()
		}
	}()
	const row = "%-31s %-10s %-33s %-5s %7s\n"
	fmt.Printf(row, "mutant", "breaks", "found by", "as", "seconds")
	found := 0
	for i, m := range all {
		v := <-verdicts[i]
		switch seconds := fmt.Sprintf("%.1f", v.took.Seconds()); {
		case v.err != nil:
			fmt.Printf(row, m.name, m.breaks, v.err, "", seconds)
		case v.by == "":
			fmt.Printf(row, m.name, m.breaks, "NOT FOUND", "", seconds)
		default:
			found++
			fmt.Printf(row, m.name, m.breaks, v.by, v.says, seconds)
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

// build compiles the tests of the root package, without those of the outside,
// with all mutants in them.
func build(bin, tmp string, all []mutant) error {
	files, err := plant(".", all)
	if err != nil {
		return err
	}
	replace := map[string]string{}
	for name, text := range files {
		at := filepath.Join(tmp, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			return err
		}
		replace[name] = at
	}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		return err
	}
	for _, name := range tests {
		text, err := read(".", name)
		if err != nil {
			return err
		}
		if strings.Contains(text, "\npackage omdp_test\n") || strings.HasPrefix(text, "package omdp_test\n") {
			replace[name] = ""
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	list := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("go", "test", "-c", "-overlay", list, "-o", bin, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("a mutant does not compile: %w\n%s", err, out)
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

// try runs the checks until one finds mutant n.
func try(bin string, n int) (v verdict) {
	for _, c := range checks {
		if c.run(bin, n, &v); v.by != "" || v.err != nil {
			break
		}
	}
	return v
}

var (
	failed = regexp.MustCompile(`(?m)^\s*--- FAIL: (\w+)`)
	rule   = regexp.MustCompile(`\b[ISRLCK][0-9]{1,2}[ab]?\b`)
)

// run runs one check with mutant n, and notes what it found.
func (c *check) run(bin string, n int, v *verdict) {
	ulimit := fmt.Sprintf("ulimit -t %d && exec \"$0\" \"$@\"", int(limit.Seconds()))
	args := append([]string{"-c", ulimit, bin, "-test.run=^(" + c.tests + ")$", "-test.failfast", "-test.short", "-test.timeout=0"}, c.flags...)
	cmd := exec.Command("sh", args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", fmt.Sprintf("%s=%d", chooser, n))
	out, err := cmd.CombinedOutput()
	v.output += string(out)
	if cmd.ProcessState == nil {
		v.err = err
		return
	}
	took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	v.took = max(v.took, took)
	switch {
	case cmd.ProcessState.ExitCode() < 0 && took < within: // by a signal that is not ours
		v.err = fmt.Errorf("KILLED: %v", err)
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
