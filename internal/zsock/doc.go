// Package zsock is omdp's socket engine: the only importer of zmq4 and the only cgo.
//
// zmq4 opens, configures, monitors and closes sockets. Messages go another way:
// one C function, exchange, sends a packed batch and receives a packed batch in
// one call (see package batch for the layout and for who owns the bytes). Where
// zmq4's socket handle can't be read, or OMDP_ZSOCK=fallback is set, the same
// work is done with zmq4's public calls, one frame at a time.
//
// # Waiting
//
// A goroutine that waits for a socket parks in Go's netpoller on a duplicate of
// ZMQ_FD. It holds no OS thread and uses no CPU. That descriptor is
// edge-triggered: after any send or receive whatever became readable has to be
// taken out before parking, and ZMQ_EVENTS is read inside the RawConn.Read
// callback, after the readiness was reset. Measured: read before it, wake-ups are
// lost.
//
// # Sharing
//
// A [Router] belongs to one goroutine. A [Conn] is used from many by combining:
// a caller appends under a mutex, and whoever finds the socket idle does the
// exchange for all; the mutex is the full fence that libzmq asks for when a socket
// changes threads. An owner goroutine that is woken per batch was measured to be
// as fast for one caller and slower from eight on (BenchmarkShapes has the figures).
//
// All sockets of the process share one context of the library's own, never
// zmq4's default one, so that inproc endpoints meet. It is made at first use and
// terminated with the last socket.
package zsock
