// Package conformance checks peers of the Majordomo protocols and of OMDP frame
// by frame: scripts of raw messages with the answers that are expected, one or
// more for each requirement of RFC 7 (MDP/0.1), RFC 8 (MMI), RFC 18 (MDP/0.2)
// and of OMDP's specification.
//
// The kit plays the other side with sockets of its own: clients and workers
// where a broker is under test, a broker where a worker or a client is. What
// it has to start, and in which way, a [Driver] knows: [Ours] starts this
// library's, [Foreign] reaches any other.
//
// # Scripts
//
// A script is a text file, scripts/DOCUMENT/NAME.txt: first its header, a line
// for each field, then, behind an empty line, the steps. Lines that begin with
// # are comments.
//
//	requirement: 18.worker.ready
//	role: broker
//	dialect: mdp02
//
//	worker > MDPW02 | 0x01 | $service
//	client > MDPC02 | 0x01 | $service | hello
//	worker < MDPW02 | 0x02 | $cid | "" | hello
//
// Fields: requirement (several with commas between them, each one in
// requirements.txt), role (what is under test: broker, worker or client),
// dialect (mdp01, mdp02 or omdp; what the peers speak), needs (what the driver has to offer, else
// the script is left out), about (a remark).
//
// What a script may need: timeout (a broker whose requests expire soon, when
// their clients say nothing), stop (the subject can be stopped in good order),
// results (a client that tells what its calls gave), same-socket (a client whose
// calls share one), hold (a worker that keeps the request "hold" until its client
// loses interest), twice (one that tries to reply to "twice" twice). A worker
// under test gives back the data that it got, but for these two and "partials":
// that is partials-0, partials-1, partials-2 and the final partials-final, where
// there are partials; and "fail", the error 418, TEAPOT, where there are errors.
//
// A message is frames with | between them:
//
//	word "text" `text` 0x00ff   these bytes; "" is an empty frame
//	$name                       a variable: sent, or compared, or bound by what comes
//	$name"text"                 several of these side by side
//	_                           any frame
//	...                         any number of frames, also none; the last
//	/re/  $name=/re/            a frame that the regular expression matches as a whole
//	json`{"a":1}`               a JSON value; of an object at least these keys
//
// $service has a value from the beginning, of this run alone.
//
// Steps. PEER is a name of the script's own. Where a broker is under test each
// is a socket of its own, opened when it is first named. Else it is the next
// peer that has connected and that no name was given yet. D is a time: a number
// of beats (heartbeat intervals), 200ms, or expiry: how long the subject may take
// to miss a peer that is silent.
//
//	PEER > MESSAGE          the kit sends it
//	PEER < MESSAGE          it is the next message from the subject, with any number of mere heartbeats before it
//	PEER < MESSAGE within D and comes within D
//	PEER quiet D            nothing but heartbeats comes within D
//	PEER none D             nothing at all does, behind what is on its way
//	PEER hush D             nothing at all comes for D, some time
//	PEER skip MESSAGE       messages like this may come from now on, as heartbeats may
//	PEER strict             heartbeats are messages as any other from now on
//	PEER mute               the kit sends no heartbeats for this peer, from now on
//	PEER beats MESSAGE      it sends this in place of heartbeats
//	PEER close              the kit closes the socket without a word
//	PEER gone               the subject has closed its socket
//	others quiet D          no further peer appears within D
//	start                   the driver starts the subject; without it that happens before the first step
//	stop                    the driver stops the subject in good order
//	call NAME DATA [timeout D]  the client under test makes a request of $service
//	partial NAME VALUE      its next partial is this JSON value
//	final NAME VALUE        its final is
//	error NAME              it ends with an error
//
// The kit sends heartbeats by itself, twice in an interval: for a worker that
// it plays from READY to DISCONNECT, as a broker to each worker.
package conformance
