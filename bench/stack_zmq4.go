package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	zmq "github.com/pebbe/zmq4"
)

// zmq4Stack is the C stack's plain port to Go: the same frames, one
// RecvMessageBytes or SendMessage at a time, one goroutine a socket.
type zmq4Stack struct{}

func init() { stacks["zmq4"] = zmq4Stack{} }

func zmq4Socket(t zmq.Type) (*zmq.Socket, error) {
	s, err := zmq.NewSocket(t)
	if err != nil {
		return nil, err
	}
	// What is in flight is bounded by the client, so no high water mark is needed.
	return s, errors.Join(s.SetSndhwm(0), s.SetRcvhwm(0), s.SetLinger(0))
}

func zmq4Dial(endpoint string) (*zmq.Socket, string, error) {
	s, err := zmq4Socket(zmq.DEALER)
	if err != nil {
		return nil, "", err
	}
	id := randomID(16)
	return s, id, errors.Join(s.SetIdentity(id), s.Connect(endpoint))
}

func randomID(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// zmq4Broker is the minimal broker; one goroutine owns all of it.
type zmq4Broker struct {
	sock     *zmq.Socket
	services map[string]*zmq4Service
	held     map[string]*zmq4Request // by token
}

type zmq4Service struct {
	queue []*zmq4Request
	free  []*zmq4Worker
}

type zmq4Worker struct {
	id      string
	room    int
	service *zmq4Service
}

type zmq4Request struct {
	client          []byte
	rid, data, opts []byte
	since           time.Time
	owner           *zmq4Worker
}

func (zmq4Stack) broker(work) (string, error) {
	s, err := zmq4Socket(zmq.ROUTER)
	if err != nil {
		return "", err
	}
	if err := errors.Join(s.SetRouterMandatory(1), s.SetBacklog(1024), s.Bind("tcp://127.0.0.1:*")); err != nil {
		return "", err
	}
	endpoint, err := s.GetLastEndpoint()
	if err != nil {
		return "", err
	}
	b := &zmq4Broker{sock: s, services: map[string]*zmq4Service{}, held: map[string]*zmq4Request{}}
	go b.run()
	return strings.TrimRight(endpoint, "\x00"), nil
}

func (b *zmq4Broker) run() {
	for {
		m, err := b.sock.RecvMessageBytes(0)
		if err != nil {
			fatal(err)
		}
		if len(m) < 4 {
			continue
		}
		switch kind := string(m[1]) + string(m[2]); {
		case kind == "C2" && len(m) == 7:
			b.onRequest(m)
		case kind == "W3" && len(m) >= 6, kind == "W6" && len(m) >= 6:
			b.onReply(m)
		case kind == "W1":
			b.onReady(m)
		}
	}
}

func (b *zmq4Broker) service(name string) *zmq4Service {
	s := b.services[name]
	if s == nil {
		s = &zmq4Service{}
		b.services[name] = s
	}
	return s
}

func (b *zmq4Broker) onRequest(m [][]byte) {
	s := b.service(string(m[3]))
	s.queue = append(s.queue, &zmq4Request{client: m[0], rid: m[4], data: m[5], opts: m[6], since: time.Now()})
	b.assign(s)
}

func (b *zmq4Broker) onReady(m [][]byte) {
	w := &zmq4Worker{id: string(m[0]), room: 1, service: b.service(string(m[3]))}
	if len(m) > 4 {
		if _, after, ok := strings.Cut(string(m[4]), `"concurrency":`); ok {
			if n, err := strconv.Atoi(strings.TrimRight(after, "}")); err == nil {
				w.room = n
			}
		}
	}
	w.service.free = append(w.service.free, w)
	b.assign(w.service)
}

func (b *zmq4Broker) assign(s *zmq4Service) {
	for len(s.queue) > 0 && len(s.free) > 0 {
		r, w := s.queue[0], s.free[0]
		s.queue[0] = nil
		s.queue, s.free = s.queue[1:], s.free[1:]
		w.room--
		if w.room > 0 {
			s.free = append(s.free, w)
		}
		r.owner = w
		token := rand.Text() // 26 characters
		b.held[token] = r
		left := 60000 - time.Since(r.since).Milliseconds()
		ext := fmt.Sprintf(`{"remaining":%d,"attempt":1,"credit":262144,"raw":true}`, left)
		if _, err := b.sock.SendMessage(w.id, "W", "2", token, r.rid, r.data, r.opts, ext); err != nil {
			delete(b.held, token)
		}
	}
}

func (b *zmq4Broker) onReply(m [][]byte) {
	r := b.held[string(m[3])]
	if r == nil || r.owner.id != string(m[0]) {
		return
	}
	// An error here is a client that is gone; its worker is free all the same.
	if len(m) == 6 {
		_, _ = b.sock.SendMessage(r.client, "C", m[2], m[4], m[5])
	} else {
		_, _ = b.sock.SendMessage(r.client, "C", m[2], m[4:])
	}
	if m[2][0] != '3' {
		return
	}
	delete(b.held, string(m[3]))
	w := r.owner
	if w.room++; w.room == 1 {
		w.service.free = append(w.service.free, w)
	}
	b.assign(w.service)
}

func (zmq4Stack) worker(w work) error {
	for _, name := range w.serviceNames() {
		s, id, err := zmq4Dial(w.Endpoint)
		if err != nil {
			return err
		}
		caps := fmt.Sprintf(`{"v":1,"id":"%s","concurrency":%d}`, id, w.Concurrency)
		if _, err := s.SendMessage("W", "1", name, caps); err != nil {
			return err
		}
		go zmq4Serve(s, w.Partials)
	}
	return nil
}

func zmq4Serve(s *zmq.Socket, partials int) {
	for {
		m, err := s.RecvMessageBytes(0)
		if err != nil {
			fatal(err)
		}
		if len(m) != 7 {
			continue
		}
		cid, rid, data := m[2], m[3], m[4]
		for range partials {
			if _, err := s.SendMessage("W", "6", cid, rid, "b", data[1:len(data)-1]); err != nil {
				fatal(err)
			}
		}
		body := make([]byte, 0, len(data)+21)
		body = append(append(append(body, `{"status":200,"msg":`...), data...), '}')
		if _, err := s.SendMessage("W", "3", cid, rid, body); err != nil {
			fatal(err)
		}
	}
}
