package main

import (
	"syscall"
	"time"
)

// hold sleeps with a precision of 0.1 ms. A Go timer may be 1 ms late, and each simulated
// round trip needs two.
func hold(d time.Duration) {
	until := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(until) {
		rest := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&rest, nil) // a signal may end the sleep early
	}
}
