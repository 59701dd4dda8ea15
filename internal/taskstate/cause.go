package taskstate

// Cause says why a task waits, in the terms of its conditions.
type Cause struct {
	Reason  string
	Message string
	// Quota: EdgeOne's quota is the reason.
	Quota bool
	// NeedsUser: it does not get better without one.
	NeedsUser bool
}
