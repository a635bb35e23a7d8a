package omdp

import "time"

type simPending struct{}

// simClient is the client's shell; for now it does nothing.
type simClient struct {
	simProc
	num  int
	life int
	hb   time.Duration
}

func (c *simClient) start()                     {}
func (c *simClient) die(int)                    {}
func (c *simClient) connected(*simLink)         {}
func (c *simClient) receive(*simLink, [][]byte) {}
func (c *simClient) lost(*simLink)              {}
func (c *simClient) due() instant               { return never }
func (c *simClient) turn()                      {}
func (c *simClient) call(b int, script uint8)   {}
func (c *simClient) cancel(n int)               {}
func (c *simClient) pending() int               { return 0 }
func (c *simClient) mustBeIdle()                {}
func (c *simClient) fresh(service byte)         {}
