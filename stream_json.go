package omdp

import (
	"context"
	"errors"
	"iter"
)

// RangeJSON reads a stream as values of type T: each message of it, as
// Stream.All gives them, decoded as Message.Decode does. An error is the last
// pair: the stream's, or that of a message that does not fit T, which cancels
// the request. Breaking off the loop is Stream.Close.
//
// The final counts as a message only if it is not null, which it is for
// handlers made by [StreamJSON].
func RangeJSON[T any](s *Stream) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for m, err := range s.All() {
			var v T
			if err == nil {
				if err = m.Decode(&v); err != nil {
					err = &callError{err: errors.Unwrap(err), service: s.call.service, outcome: MayHaveExecuted, detail: "decode message"}
				}
			}
			if err != nil {
				var zero T
				yield(zero, err)
				return // out of All as well, which closes the stream
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// StreamJSON makes a Handler of a function that gives its reply piece by
// piece: the request's data is decoded into In, each Out is sent as one
// partial, and the end of the sequence is a final of null. An error ends it
// and is the final, as a Handler's. Data that does not fit In is an error with
// code 400.
//
// The sequence is not asked for more while the client has no room, and is
// broken off when ctx ends.
func StreamJSON[In, Out any](f func(ctx context.Context, in In) iter.Seq2[Out, error]) Handler {
	return func(ctx context.Context, req *Request, res *Response) error {
		var in In
		if err := req.Decode(&in); err != nil {
			return &Error{Code: "400", Message: err.Error()}
		}
		for out, err := range f(ctx, in) {
			if err != nil {
				return err
			}
			if err := res.Send(out); err != nil {
				return err
			}
		}
		return nil
	}
}
