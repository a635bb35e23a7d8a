//go:build !race && !omdp_debug

package batch

const checkBorrows = false
