//go:build cgo

package zsock

/*
#cgo pkg-config: libzmq
#cgo noescape zs_exchange
#cgo nocallback zs_exchange
#cgo noescape zs_events
#cgo nocallback zs_events
#include "exchange.h"
*/
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"reflect"
	"syscall"
	"unsafe"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Room for receiving, in bytes: an In starts small, doubles while batches fill
// it, and stops growing at roomSoft. Only a single larger message makes it
// larger, for the next largeTurns exchanges.
const (
	roomFirst  = 16 << 10
	roomSoft   = 256 << 10
	largeTurns = 64
)

// socket is a zmq4 socket and the way to exchange batches on it. It is used by
// one goroutine at a time.
type socket struct {
	z      *zmq4.Socket
	st     *C.zs_state // nil: the fallback
	router bool
	keep   int          // frames kept of a message
	store  *batch.Store // of large frames received; nil: they are copied
	full   bool
	large  int // exchanges for which a large buffer is kept
	err    error
	out    batch.In // the fallback's: what it sends
}

// outcome is what an exchange did beside filling its buffers.
type outcome struct {
	sent     int  // messages taken by libzmq
	more     bool // the socket was not drained
	writable bool // a DEALER refused messages and would take them now
}

func openSocket(t zmq4.Type, o Options) (*socket, error) {
	if t == zmq4.ROUTER {
		if err := seed(); err != nil {
			return nil, err
		}
	}
	z, err := newSocket(t)
	if err != nil {
		return nil, err
	}
	s := &socket{z: z, router: t == zmq4.ROUTER, keep: o.MaxFrames + 1}
	if s.router {
		s.keep++ // the routing id
	}
	if err := o.apply(z); err != nil {
		_ = closeSocket(z)
		return nil, err
	}
	if !o.Fallback {
		if h := handle(z, t); h != nil {
			router := C.int(0)
			if s.router {
				router = 1
			}
			large := C.size_t(0)
			if o.Store != nil {
				large = batch.Large
			}
			s.store = o.Store
			s.st = C.zs_open(h, router, C.uint32_t(s.keep), large)
		}
	}
	return s, nil
}

// seed makes the identities that a ROUTER gives anonymous peers unpredictable:
// libzmq takes the first from rand(), which nobody seeds, and a peer that claims
// the next one makes the following anonymous connect abort the process
// (libzmq#4633).
func seed() error {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("seed routing ids: %w", err)
	}
	C.zs_srand(C.uint(binary.NativeEndian.Uint32(b[:])))
	return nil
}

// handle returns the libzmq socket inside z, or nil if z is not made as zmq4
// 1.4.0 makes it. The pointer is checked by asking libzmq for its type.
func handle(z *zmq4.Socket, t zmq4.Type) unsafe.Pointer {
	f := reflect.ValueOf(z).Elem().FieldByName("soc")
	if !f.IsValid() || f.Kind() != reflect.UnsafePointer {
		return nil
	}
	h := f.UnsafePointer()
	if h == nil || C.zs_type(h) != C.int(t) {
		return nil
	}
	return h
}

// exchange sends the messages of out from first on, sets their Results, and
// receives into in. An error says that the socket is of no more use.
func (s *socket) exchange(out *batch.Out, first int, in *batch.In) (outcome, error) {
	in.Invalidate()
	if s.err != nil {
		return outcome{}, s.err
	}
	if s.st == nil {
		return s.exchangeFallback(out, first, in)
	}
	s.makeRoom(in)

	var msgs, results *C.uint8_t
	var n int
	if out != nil {
		if n = out.Len() - first; n > 0 {
			msgs = (*C.uint8_t)(unsafe.SliceData(out.Message(first)))
			results = (*C.uint8_t)(unsafe.Pointer(&out.Results[first]))
		}
	}
	C.zs_exchange(s.st, msgs, C.uint32_t(n), results,
		(*C.uint8_t)(unsafe.SliceData(in.B)), C.size_t(cap(in.B)))
	s.collect(in)
	oc := outcome{sent: int(s.st.sent), more: s.st.more != 0, writable: s.st.writable != 0}

	if s.st.in_len == 0 && s.st.need > 0 && s.st.error == 0 {
		// One message larger than all the room; it waits in the state.
		in.B = make([]byte, 0, int(s.st.need))
		s.large = largeTurns
		C.zs_exchange(s.st, nil, 0, nil,
			(*C.uint8_t)(unsafe.SliceData(in.B)), C.size_t(cap(in.B)))
		s.collect(in)
		oc.more = s.st.more != 0
	}
	in.B = in.B[:s.st.in_len]
	s.full = oc.more
	if s.st.error != 0 {
		s.err = socketError(syscall.Errno(s.st.error))
		return oc, s.err
	}
	return oc, nil
}

// collect gives in the large frames that the last zs_exchange did not copy.
func (s *socket) collect(in *batch.In) {
	for _, b := range unsafe.Slice(s.st.blocks, s.st.nblocks) {
		in.AddBlock(s.store.Add(uintptr(b.msg), unsafe.Slice((*byte)(b.data), b.size)))
		blocks.Add(1)
	}
}

// makeRoom gives the emptied in the buffer for the next batch.
func (s *socket) makeRoom(in *batch.In) {
	switch c := cap(in.B); {
	case c < roomFirst:
		in.B = make([]byte, 0, roomFirst)
	case c > roomSoft:
		if s.large--; s.large <= 0 {
			in.B = make([]byte, 0, roomSoft)
		}
	case s.full && c < roomSoft:
		in.B = make([]byte, 0, min(2*c, roomSoft))
	}
}

// events reads ZMQ_EVENTS: what may be received or, for a DEALER, sent now. An
// error counts as both, so that the next exchange reports it.
func (s *socket) events() (in, out bool) {
	if s.st == nil {
		return s.eventsFallback()
	}
	ev := C.zs_events(s.st)
	if ev < 0 {
		return true, true
	}
	return ev&C.ZMQ_POLLIN != 0 || s.st.nframes != 0 && s.st.complete != 0, ev&C.ZMQ_POLLOUT != 0
}

// close frees the socket. Its own messages linger as the options say.
func (s *socket) close() error {
	if s.z == nil {
		return nil
	}
	if s.st != nil {
		C.zs_free(s.st)
		s.st = nil
	}
	z := s.z
	s.z, s.err = nil, ErrClosed
	return closeSocket(z)
}

func socketError(e syscall.Errno) error {
	switch zmq4.Errno(e) {
	case zmq4.ETERM, zmq4.ENOTSOCK:
		return ErrClosed
	}
	return fmt.Errorf("exchange: %w", errno(zmq4.Errno(e)))
}
