package taskstate

// Cause describes why a task waits, in the terms of its conditions.
type Cause struct {
	Reason  string
	Message string
	// Quota reports that EdgeOne's quota is the reason.
	Quota bool
	// NeedsUser reports that the cause persists until a user acts.
	NeedsUser bool
}
