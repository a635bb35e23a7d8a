//go:build !cgo

package zsock

// Without cgo there is no libzmq. The name below is what the compiler prints.
var _ = omdp_needs_cgo_and_libzmq__set_CGO_ENABLED_1
