//go:build cgo

package zsock

/*
#cgo noescape zs_block_new
#cgo nocallback zs_block_new
#cgo noescape zs_block_free
#cgo nocallback zs_block_free
#include "exchange.h"
*/
import "C"

import (
	"sync/atomic"
	"unsafe"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// NewStore makes a Store of libzmq messages, or returns nil where large frames
// are copied. With find, what one Router received is sent on by it or another
// without a copy.
func NewStore(o Options, find bool) *batch.Store {
	if o.withDefaults().Fallback {
		return nil
	}
	return batch.NewStore(newBlock, freeBlock, find)
}

// blocks is the number of libzmq messages that all Stores hold.
var blocks atomic.Int64

// Blocks is the number of libzmq messages that are held, of all sockets: 0 when
// all is closed.
func Blocks() int { return int(blocks.Load()) }

func newBlock(n int) (uintptr, []byte) {
	b := C.zs_block_new(C.size_t(n))
	if b.data == nil {
		return 0, nil
	}
	blocks.Add(1)
	return uintptr(b.msg), unsafe.Slice((*byte)(b.data), n)
}

func freeBlock(handle uintptr) {
	C.zs_block_free(C.uint64_t(handle))
	blocks.Add(-1)
}
