// Package omdp is brokered, streaming request-reply over ZeroMQ: a [Client]
// asks a service by name, a [Broker] queues the request until a [Worker] of
// that service is free, and the worker answers with any number of partials and
// one final. It speaks the Obsessive Majordomo Protocol (OMDP) and mirrors the
// Node library zmq-omdp.
//
// # Usage
//
// A broker is a few lines in any program:
//
//	b, err := omdp.NewBroker("tcp://*:5555", nil)
//	…
//	err = b.Run(ctx) // serves until ctx ends, then shuts down
//
// A worker serves one service. Its handler writes partials and ends the
// response; [Response] is an io.Writer, so a file streams with io.Copy:
//
//	w, err := omdp.NewWorker("tcp://127.0.0.1:5555", "file", nil)
//	…
//	w.OnRequest(func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
//		f, err := root.Open(string(req.Bytes()))
//		if err != nil {
//			return err
//		}
//		defer f.Close()
//		_, err = io.Copy(res, f)
//		return err
//	})
//	err = w.Run(ctx)
//
// A client calls in one of three ways: [Client.Call] returns the final,
// [Client.Request] gives partials and the final to callbacks, and
// [Client.RequestStream] returns a [Stream] to read from:
//
//	c, err := omdp.NewClient("tcp://127.0.0.1:5555", nil)
//	…
//	err = c.Start()
//	…
//	m, err := c.Call(ctx, "echo", "data")
//	_, err = io.Copy(os.Stdout, c.RequestStream(ctx, "file", "README.md"))
//
// Data is any value that encoding/json knows. A string is a JSON string;
// json.RawMessage and [Message] go verbatim; []byte and what [Response.Write]
// sends is bytes, and arrives as the same bytes. Endpoints are tcp://host:port,
// ipc://path, or inproc://name within one process. Broker, workers and clients
// may be started in any order.
//
// # Concurrency
//
// All methods of Broker, Worker, Client, Response and Stream are safe for
// concurrent use. Each request's handler runs on a goroutine of its own; the
// callbacks of one request run in order on one goroutine, never on one that
// does I/O, so a slow callback holds up nothing but its own request. Close and
// Shutdown wait for handlers and callbacks, which therefore call them on a
// goroutine of their own. A worker takes WorkerConfig.Concurrency requests at a
// time, by default one; [Worker.SetConcurrency] changes it.
//
// A handler's ctx ends when the client cancels or vanishes, the deadline
// passes, the broker is lost or the worker stops; context.Cause says which.
// A handler that does not heed that is reported after WorkerConfig.StuckAfter,
// and another takes its place. A reader that is slow slows the worker that
// writes to it, and nobody else.
//
// # Delivery guarantees
//
// Nothing is kept on disk. Every call ends exactly once at its caller, with a
// value or an error, at the latest at its deadline, broker or no broker. A
// request is executed at most once, unless its call is [Idempotent]. Partials
// arrive in order, without a gap; where that can't be kept, the call ends in
// an error, and never with a final after a gap. A [Stream] gives io.EOF only
// after a good final.
//
// A call that says [Idempotent] may run more than once: it is sent again after
// a lost worker or broker, within its timeout. A client and a worker of several
// brokers (their configs' Endpoints) outlive the loss of one, and Shutdown of
// broker and worker loses nothing that can go on elsewhere.
//
// [OutcomeOf] tells of every error whether the work ran: [NotSent],
// [NotExecuted], [MayHaveExecuted] or [Executed]. After the first two it is
// safe to call again; after MayHaveExecuted only if the request may run twice.
// What the handler itself reported has the type [*Error], and nothing local has.
//
// # Limits
//
// Whatever a peer can make this process hold is bounded, by fields of the
// configs with their defaults: the size of a message, queued requests by number
// and bytes, requests of one client, services, workers, clients, bytes that
// wait for a slow reader. Hitting one is an error at the side that did,
// [ErrTooLarge], [ErrOverloaded] or [ErrSlowConsumer], and leaves the others
// alone. See [Limits] and [ClientConfig].
//
// # Peers of other makes
//
// Broker, worker and client each work with the Node library's. Only among
// themselves, where both have said so, they go beyond the specification: credit
// and windows, cancelling, draining, the remaining time, raw bytes, more than
// one request at a time for a worker, and small messages as one frame. README.md
// has the frames.
//
// There is no authentication or encryption: bind to networks that you trust.
package omdp
