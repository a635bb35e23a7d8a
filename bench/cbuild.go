package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

//go:generate go run . -build

// benchDir is the folder of this module: the working directory, bench inside
// it, or where the binary was built to (bench/out).
var benchDir = sync.OnceValues(func() (string, error) {
	dirs := []string{".", "bench"}
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(filepath.Dir(exe)))
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "c", "stack.h")); err == nil {
			return filepath.Abs(d)
		}
	}
	return "", errors.New("the folder bench is not here: run from the repository or from bench")
})

// cStack gives the path of the C program, compiled anew if its sources are newer.
func cStack() (string, error) {
	dir, err := benchDir()
	if err != nil {
		return "", err
	}
	buildC.Do(func() { buildErr = compileC(dir) })
	return filepath.Join(dir, "out", "cstack"), buildErr
}

var (
	buildC   sync.Once
	buildErr error
)

func compileC(dir string) error {
	bin := filepath.Join(dir, "out", "cstack")
	sources, err := filepath.Glob(filepath.Join(dir, "c", "*.[ch]"))
	if err != nil {
		return err
	}
	if built, err := os.Stat(bin); err == nil && !newer(sources, built.ModTime()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libzmq").Output()
	if err != nil {
		return fmt.Errorf("pkg-config libzmq: %w (are libzmq's headers installed?)", err)
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	// Compiled beside it and renamed: another run never starts half a program.
	temp := fmt.Sprintf("%s.%d", bin, os.Getpid())
	args := []string{"-O2", "-Wall", "-Wextra", "-o", temp}
	for _, s := range sources {
		if strings.HasSuffix(s, ".c") {
			args = append(args, s)
		}
	}
	args = append(args, strings.Fields(string(flags))...)
	args = append(args, "-lpthread")
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("compile the C stack: %w\n%s", err, out)
	}
	return os.Rename(temp, bin)
}

func newer(files []string, than time.Time) bool {
	for _, f := range files {
		if s, err := os.Stat(f); err != nil || s.ModTime().After(than) {
			return true
		}
	}
	return false
}
