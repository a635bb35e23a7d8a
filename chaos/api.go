package main

import "github.com/zmq-omdp/omdp"

// What the library does not have yet.

const (
	failover = false
	retries  = false
)

func idempotent() omdp.CallOption { return omdp.CallOption{} }

func setClientEndpoints(*omdp.ClientConfig, []string) {}

func setWorkerEndpoints(*omdp.WorkerConfig, []string) {}
