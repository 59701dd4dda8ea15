package faults

// The requests of a task's life that tests target. Status writes differ by their body.
var (
	StatusWrites = Match{Verb: "update", Resource: "prefetchtasks/status"}
	// Claims are written before a call to EdgeOne, Records after it.
	Claims  = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"submission":{`}
	Records = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"jobs":[`}
	// Outcomes also match Records. Use Outcomes only when no other records are expected.
	Outcomes = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"completionTime":"`}

	TaskWatches = Match{Verb: "watch", Resource: "prefetchtasks"}
	TaskEvents  = Match{Verb: eventVerb, Resource: "prefetchtasks"}
	// Leases matches all requests for Leases. LeaseWrites matches those that acquire or
	// renew one.
	Leases      = Match{Resource: "leases"}
	LeaseWrites = Match{Verb: "update", Resource: "leases"}
)
