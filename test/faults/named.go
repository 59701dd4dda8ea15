package faults

// Requests that tests strike. Status writes differ by what they hold.
var (
	StatusWrites = Match{Verb: "update", Resource: "prefetchtasks/status"}
	// Claims are written before a call of EdgeOne, Records after it.
	Claims  = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"submission":{`}
	Records = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"jobs":[`}
	// Outcomes also match Records: hold these where no others are to come.
	Outcomes = Match{Verb: "update", Resource: "prefetchtasks/status", Body: `"completionTime":"`}

	TaskWatches = Match{Verb: "watch", Resource: "prefetchtasks"}
	TaskEvents  = Match{Verb: eventVerb, Resource: "prefetchtasks"}
	// Leases are all requests for Leases, LeaseWrites those that renew or take one.
	Leases      = Match{Resource: "leases"}
	LeaseWrites = Match{Verb: "update", Resource: "leases"}
)
