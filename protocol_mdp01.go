package omdp

// mdp01 is MDP/0.1 (RFC 7): an empty frame first, as a REQ socket puts it; no
// partials; and messages of clients have no command.
var mdp01 = &mdpCodec{
	dialect: MDP01, client: "MDPC01", worker: "MDPW01", empty: true,
	ops: [7]byte{opReady: 1, opRequest: 2, opReply: 3, opHeartbeat: 4, opDisconnect: 5},
}
