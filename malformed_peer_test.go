package omdp_test

import (
	"slices"
	"strings"
)

// What is malformed for who says it or when: commands of the wrong peer, out
// of order, twice; and envelopes.

// common tells the ways to spoil a frame that all frames share.
func common(name string) bool {
	for _, end := range []string{" missing", " empty", " huge", " doubled", " swapped", "the header", "the command"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

func wrongPeerCases() (all []brokerCase) {
	add := func(name string, from sender, want brokerWant, send ...[]string) {
		all = append(all, brokerCase{string(from) + " " + name, from, send, want, nil})
	}
	f := func(text string) []string { return strings.Split(text, "|") }

	// In the other role, by who has one already, and by strangers.
	for _, k := range toBroker {
		frames := k.form.frames()
		if k.from == theClient {
			add("as a client: "+k.form.name, theWorker, refused(theWorker), frames)
			add("as a client: "+k.form.name, otherWorker, refused(otherWorker), frames)
			continue
		}
		add("as a worker: "+k.form.name, theClient, refused(theClient), frames)
		add("as a worker: "+k.form.name, otherClient, refused(otherClient), frames)
		switch {
		case k.form.name == "READY":
		case k.form.name == "DISCONNECT": // never answered by another
			add("before READY: "+k.form.name, newWorker, nothing, frames)
			add("after DISCONNECT: "+k.form.name, leftWorker, nothing, frames)
		default:
			add("before READY: "+k.form.name, newWorker, early, frames)
			add("after DISCONNECT: "+k.form.name, leftWorker, early, frames)
		}
	}
	for _, m := range []string{"READY|1|{SERVICE}", "REPLY|3|{LIVE}|" + goodPayload, "DISCONNECT|5", "PARTIAL|6|{LIVE}|" + goodPayload, "REJECT|7|{LIVE}|x", "DRAIN|11"} {
		name, rest, _ := strings.Cut(m, "|")
		for _, from := range []sender{theClient, otherClient, newClient, theWorker, otherWorker} {
			add("C with a command not a client's: "+name, from, refused(from), f("C|"+rest))
		}
	}
	for _, m := range []string{`REQUEST|2|{TOKEN}|{LIVE}|"x"`, "REJECT|7|{TOKEN}|{LIVE}|-1|x", "CREDIT with a window|9|{TOKEN}|{LIVE}|5|6", "end of PIECEs|13|{TOKEN}|{LIVE}", "CANCEL|10|{TOKEN}|{LIVE}|client"} {
		name, rest, _ := strings.Cut(m, "|")
		for _, from := range []sender{theWorker, otherWorker, newWorker, leftWorker} {
			add("W with a command not a worker's: "+name, from, refused(from, f("W|"+rest)...), f("W|"+rest))
		}
		add("W with a command not a worker's: "+name, theClient, brokerWant{moves: "Malformed 1", answers: []string{"W|5"}}, f("W|"+rest))
	}
	for _, command := range bare("4") {
		add("bare C|"+command, theClient, refused(theClient), []string{"C", command})
	}
	for _, command := range bare("4", "5", "11") {
		add("bare W|"+command, theWorker, refused(theWorker), []string{"W", command})
		add("bare W|"+command, newWorker, refused(newWorker, "W", command), []string{"W", command})
	}
	for _, header := range []string{"MDPC01", "MDPC02", "MDPW01", "MDPW02", "Q", "CW", ""} {
		add("foreign header "+header, newClient, refused(newClient, header, "\x01"), []string{header, "\x01", "{SERVICE}", "x"})
		add("foreign header "+header+" after an empty frame", newClient, refused(newClient, "", header), []string{"", header, "\x01", "{SERVICE}", "x"})
	}

	// What is another's own.
	add("CANCEL of another's request", otherClient, stray, f("C|10|{LIVE}"))
	add("CREDIT for another's request", otherClient, stray, f("C|9|{LIVE}|5"))
	add("HEARTBEAT of another's request", otherClient, lostAs("{LIVE}"), f("C|4|{LIVE}"))
	add("CANCEL of nothing", newClient, stray, f("C|10|{LIVE}"))
	add("CREDIT for nothing", newClient, stray, f("C|9|{LIVE}|5"))
	add("HEARTBEAT of nothing", newClient, lostAs("{LIVE}"), f("C|4|{LIVE}"))
	thief := brokerWant{moves: "Forged 1", answers: []string{"W|5"}}
	for _, m := range []string{"PARTIAL|6|{TOKEN}|{LIVE}|" + goodPayload, "REPLY|3|{TOKEN}|{LIVE}|" + goodPayload, "raw REPLY|3|{TOKEN}|{LIVE}|b|x", "HEARTBEAT|4|{TOKEN}|{LIVE}"} {
		name, rest, _ := strings.Cut(m, "|")
		add(name+" for another's request", otherWorker, thief, f("W|"+rest))
	}

	// Out of order, and twice.
	ready, reply := []string{"W", "1", "{SERVICE}", goodCaps}, f("W|3|{TOKEN}|{LIVE}|"+goodPayload)
	request := []string{"C", "2", "{SERVICE}", "{NEW}", longData, goodOptions}
	stale := forwarded("3", goodPayload)
	stale.moves = "Completed 1, StaleTokens 1"
	add("READY twice", newWorker, brokerWant{answers: []string{"W|8|*", "W|5"}}, ready, ready)
	add("READY twice, the second spoiled", newWorker, brokerWant{moves: "Malformed 1", answers: []string{"W|8|*", "W|5"}}, ready, f("W|1|{SERVICE}|x"))
	add("READY while it holds a request", theWorker, brokerWant{moves: "WorkerLost 1", answers: []string{"W|5"}, lost: true}, ready)
	add("READY for another service", theWorker, brokerWant{moves: "WorkerLost 1", answers: []string{"W|5"}, lost: true}, f("W|1|other"))
	add("HELLO after READY without caps", newWorker, brokerWant{moves: "Malformed 1", answers: []string{"W|5"}}, f("W|1|{SERVICE}-2"), []string{"W", "8", goodCaps})
	add("REPLY twice", theWorker, stale, reply, reply)
	add("PARTIAL after REPLY", theWorker, stale, reply, f("W|6|{TOKEN}|{LIVE}|"+goodPayload))
	add("HEARTBEAT after REPLY", theWorker, stale, reply, f("W|4|{TOKEN}|{LIVE}"))
	add("REPLY after DISCONNECT", theWorker, brokerWant{moves: "Unregistered 1, WorkerLost 1", answers: []string{"W|5"}, lost: true}, f("W|5"), reply)
	add("DISCONNECT twice", theWorker, brokerWant{moves: "WorkerLost 1", lost: true}, f("W|5"), f("W|5"))
	add("DRAIN twice", theWorker, brokerWant{answers: []string{"W|11"}, after: foreign}, f("W|11"), f("W|11"))
	twice := accepted("{NEW}", longData, goodOptions)
	twice.moves = "Accepted 1, Completed 1, Dispatched 1, Duplicates 1"
	add("REQUEST twice", theClient, twice, request, request)
	add("REQUEST under an id in progress", theClient, brokerWant{moves: "Duplicates 1"}, f(`C|2|{SERVICE}|{LIVE}|"x"|{}`))
	add("REQUEST under an id in progress, for another service", theClient, brokerWant{moves: "Duplicates 1"}, f(`C|2|nobody|{LIVE}|"x"|{}`))
	again := canceled
	again.moves = "Canceled 1, Stray 1"
	add("CANCEL twice", theClient, again, f("C|10|{LIVE}"), f("C|10|{LIVE}"))
	add("CREDIT after CANCEL", theClient, again, f("C|10|{LIVE}"), f("C|9|{LIVE}|5"))
	after := canceled
	after.moves, after.answers = "Canceled 1, UnknownRequests 1", []string{`C|3|{LIVE}|{"status":"LOST"}`}
	add("HEARTBEAT after CANCEL", theClient, after, f("C|10|{LIVE}"), f("C|4|{LIVE}"))
	add("nine times", theClient, brokerWant{moves: "Malformed 9"}, slices.Repeat([][]string{f("C|2")}, 9)...)

	// A life's requests are known whatever socket they come from. What is no
	// attempt adopts none of them.
	for _, v := range optionsVariants {
		if strings.HasPrefix(v.name, "attempt ") {
			add("REQUEST of the same life/options "+v.name, sameClient, brokerWant{moves: "Duplicates 1"}, []string{"C", "2", "{SERVICE}", "{LIVE}", longData, v.value})
		}
	}

	// By strangers, of whom the broker has no entry yet.
	for _, k := range toBroker {
		from := newClient
		if k.from != theClient {
			from = newWorker
		}
		for _, s := range k.form.spoil() {
			name := strings.TrimPrefix(s.name, k.form.name+"/")
			_, but := k.but[name]
			switch {
			case !common(name) || k.from == from: // READY is a stranger's in any case
			case from == newWorker && (but || name == "caps empty" || name == "caps huge"): // whole, and so read no further
				add(s.name, from, early, s.frames)
			case !but:
				add(s.name, from, refused(from, s.frames...), s.frames)
			}
		}
	}
	return all
}

// What can be wrong with an envelope, done to that of a good message.
var wrongEnvelopes = []struct {
	name string
	pack func(whole string) []string
}{
	{"with a byte more", func(w string) []string { return []string{w + "\x00"} }},
	{"with half a length more", func(w string) []string { return []string{w + "\x01\x00"} }},
	{"with a length past its end", func(w string) []string { return []string{w + "\x01\x00\x00\x00"} }},
	{"with a length of 2 GiB", func(w string) []string { return []string{w + "\x00\x00\x00\x80x"} }},
	{"with a length of 4 GiB", func(w string) []string { return []string{w + "\xff\xff\xff\xff"} }},
	{"without its last byte", func(w string) []string { return []string{w[:len(w)-1]} }},
	{"with another mark", func(w string) []string { return []string{"\x02" + w[1:]} }},
	{"without the mark", func(w string) []string { return []string{w[1:]} }},
	{"twice in it", func(w string) []string { return []string{string(envelope(w))} }},
	{"twice", func(w string) []string { return []string{w + w} }},
	{"beside another", func(w string) []string { return []string{w, w} }},
	{"and a frame beside it", func(w string) []string { return []string{w, "x"} }},
	{"after the header", func(w string) []string { return []string{"C", w} }},
}

// oneFrames are single frames that are no message.
var oneFrames = []struct{ name, frame string }{
	{"a mark alone", "\x01"}, {"a mark and a length cut", "\x01\x01\x00"}, {"an envelope of an empty frame", string(envelope(""))}, {"an envelope of a header", string(envelope("C"))}, {"an empty frame", ""}, {"a blank", " "}, {"NUL", "\x00"},
	{"an envelope of 64 KiB of empty frames", string(envelope(slices.Repeat([]string{""}, bulk/4)...))}, {"an envelope of a foreign header", string(envelope("MDPC02", "\x01", "x"))}, {"a line of HTTP", "GET / HTTP/1.1\r\n\r\n"},
}

// envelopeCases: a message may come in one frame (package batch), which can be
// wrong as a whole or hold what is wrong.
func envelopeCases() (all []brokerCase) {
	wrap := func(frames []string) []string { return []string{string(envelope(frames...))} }
	for _, k := range toBroker {
		for _, w := range wrongEnvelopes {
			if k.from != newWorker {
				all = append(all, brokerCase{string(k.from) + " " + k.form.name + ": its envelope " + w.name, k.from, [][]string{k.form.frames()}, refused(k.from), func(frames []string) []string { return w.pack(wrap(frames)[0]) }})
			}
		}
		for _, s := range k.form.spoil() { // the same as without it
			want := refused(k.from, s.frames...)
			if but, ok := k.but[strings.TrimPrefix(s.name, k.form.name+"/")]; ok {
				want = but
			}
			if common(s.name) || strings.HasSuffix(s.name, "frames") {
				all = append(all, brokerCase{string(k.from) + " " + s.name + ", in an envelope", k.from, [][]string{s.frames}, want, wrap})
			}
		}
	}
	for _, m := range oneFrames {
		for _, from := range []sender{theClient, theWorker, newClient, otherClient, otherWorker} {
			all = append(all, brokerCase{string(from) + " sends one frame: " + m.name, from, [][]string{{m.frame}}, refused(from), nil})
		}
	}
	return all
}
