//go:build !linux

package main

import (
	"errors"
	"syscall"
	"time"
)

// Chaos and soak stop processes and look into them as only Linux lets them.
var errLinux = errors.New("chaos and soak run on Linux only")

func childAttributes() *syscall.SysProcAttr { return nil }

func (c *child) stop() error { return errLinux }
func (c *child) cont()       {}

func resident(int) (int64, error)  { return 0, errLinux }
func peak(int) (int64, error)      { return 0, errLinux }
func descriptors(int) (int, error) { return 0, errLinux }
func ephemeral() int               { return 32768 }

type threadWatch struct{}

func (*threadWatch) look() time.Duration { return 0 }
