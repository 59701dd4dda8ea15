// Package taskstate says what the spec and the status of a PrefetchTask mean.
//
// Its functions are pure: a task goes in, a fact comes out. They answer which run the
// spec asks for (run), which targets are handed over, refused or open (positions,
// run), and whether the task waits, is claimed, suspended or finished (run). Derived
// values of long lists are computed once per list (derived). A task whose target list is
// not in memory carries a short stand-in (elide).
//
// The hashes that end up in a status never change: a change would submit every finished
// task of every cluster again.
//
// The package does not know EdgeOne's API, the queue, or the Kubernetes API server.
package taskstate
