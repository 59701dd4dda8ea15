package main

import (
	"syscall"
	"time"
)

// hold sleeps to within a tenth of a millisecond. A timer of Go's may be a whole one
// late, and that twice in each round trip of one.
func hold(d time.Duration) {
	until := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(until) {
		rest := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&rest, nil) // a signal may end it early
	}
}
