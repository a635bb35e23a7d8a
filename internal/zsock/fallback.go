//go:build cgo

package zsock

import (
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The fallback does what zs_exchange does, by the same rules, with zmq4's public
// calls: one cgo call and one allocation or more a frame.

// maxRefused is MAX_REFUSED of exchange.c.
const maxRefused = 64

func (s *socket) exchangeFallback(out *batch.Out, first int, in *batch.In) (oc outcome, err error) {
	blocked := false
	if out != nil && first < out.Len() {
		oc.sent, blocked, err = s.sendFallback(out, first)
	}
	if err == nil {
		oc.more, err = s.receiveFallback(in)
	}
	if err != nil {
		var e zmq4.Errno
		if errors.As(err, &e) {
			err = socketError(syscall.Errno(e))
		}
		s.err = err
		return oc, err
	}
	if blocked && !s.router {
		readable, writable := s.eventsFallback()
		oc.more = oc.more || readable
		oc.writable = writable
	}
	return oc, nil
}

func (s *socket) sendFallback(out *batch.Out, first int) (sent int, allAgain bool, err error) {
	refused := map[string]batch.Status{}
	refreshed := false
	for i := first; i < out.Len(); i++ {
		if err != nil {
			out.Results[i] = batch.Failed
			continue
		}
		if allAgain {
			out.Results[i] = batch.Again
			continue
		}
		m := out.Message(i)
		if binary.NativeEndian.Uint32(m) == 0 {
			out.Results[i], err = batch.Failed, zmq4.Errno(syscall.EINVAL)
			continue
		}
		id := m[8 : 8+binary.NativeEndian.Uint32(m[4:])]
		if st, ok := refused[string(id)]; ok {
			out.Results[i] = st
			continue
		}
		out.Read(i, &s.out)
		e := s.sendMessage(&s.out)
		if e == zmq4.Errno(syscall.EAGAIN) && !refreshed {
			refreshed = true
			s.eventsFallback()
			out.Read(i, &s.out)
			e = s.sendMessage(&s.out)
		}
		switch e {
		case nil:
			out.Results[i] = batch.Sent
			sent++
			continue
		case zmq4.Errno(syscall.EAGAIN):
			out.Results[i] = batch.Again
		case zmq4.EHOSTUNREACH:
			out.Results[i] = batch.Unreachable
		default:
			out.Results[i], err = batch.Failed, e
			continue
		}
		if !s.router || len(refused) == maxRefused {
			allAgain = true
		} else {
			refused[string(id)] = out.Results[i]
		}
	}
	return sent, allAgain, err
}

// sendMessage sends the one message in m; see send_message in exchange.c.
func (s *socket) sendMessage(m *batch.In) (again error) {
	frames := m.NextWhole()
	for i, f := range frames {
		flags := zmq4.DONTWAIT
		if i+1 < len(frames) {
			flags |= zmq4.SNDMORE
		}
		if _, err := s.z.SendBytes(f, flags); err != nil {
			if i == 0 || err != zmq4.Errno(syscall.EAGAIN) {
				return err
			}
			if again != nil {
				return zmq4.Errno(syscall.EFAULT)
			}
			again = err
		}
	}
	return again
}

func (s *socket) receiveFallback(in *batch.In) (more bool, err error) {
	if cap(in.B) > roomSoft {
		in.B = make([]byte, 0, roomSoft)
	}
	for len(in.B) < roomSoft {
		start := len(in.B)
		in.B = append(in.B, 0, 0, 0, 0)
		n := 0
		for rcvmore := true; rcvmore; {
			flags := zmq4.DONTWAIT
			if n > 0 {
				flags = 0 // a message arrives whole
			}
			f, err := s.z.RecvBytes(flags)
			if err != nil {
				in.B = in.B[:start]
				if err == zmq4.Errno(syscall.EAGAIN) {
					return false, nil
				}
				return false, err
			}
			if rcvmore, err = s.z.GetRcvmore(); err != nil {
				in.B = in.B[:start]
				return false, err
			}
			if n++; n <= s.keep {
				in.B = binary.NativeEndian.AppendUint32(in.B, uint32(len(f)))
				in.B = append(in.B, f...)
			}
		}
		binary.NativeEndian.PutUint32(in.B[start:], uint32(min(n, s.keep)))
	}
	return true, nil
}

func (s *socket) eventsFallback() (in, out bool) {
	ev, err := s.z.GetEvents()
	if err != nil {
		return true, true
	}
	return ev&zmq4.POLLIN != 0, ev&zmq4.POLLOUT != 0
}
