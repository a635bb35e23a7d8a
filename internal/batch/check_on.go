//go:build race || omdp_debug

package batch

// checkBorrows makes a use of borrowed frames after the next exchange visible.
const checkBorrows = true
