package omdp_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's program compiles as pasted and prints what the README says.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```go\n(package main\n.*?)```\n.*?```text\n(.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatal("README.md has no ```go block that starts with package main, followed by a ```text block with its output")
	}
	program, want := m[1], string(m[2])
	if n := strings.Count(string(program), "\n"); n > 40 {
		t.Errorf("the program has %d lines, want a short one", n)
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, program, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gofmt", "-l", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("gofmt would change it: %s %v", out, err)
	}
	// A file given by name is built in the module of the working directory.
	out, err := exec.Command("go", "run", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := string(out); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
