package main

import "github.com/zmq-omdp/omdp"

// newWorkers gives the workers of a process: until a worker takes several
// brokers, one for each.
func newWorkers(endpoints []string, service string, config *omdp.WorkerConfig) ([]*omdp.Worker, error) {
	var all []*omdp.Worker
	for _, e := range endpoints {
		w, err := omdp.NewWorker(e, service, config)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}
