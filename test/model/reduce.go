package model

// reduce maps a state to an equivalent one, which has the same possible futures. States
// that differ only in irrelevant details become one. The rules apply only to the protocol
// with all its safeguards; weaker variants are explored without reduction. Some
// environments are explored both ways, and the verdict must be the same.
func (e *environment) reduce(s state) state {
	if e.Whole || e.Lacks != "" {
		return s
	}
	for id := uint8(1); id <= s.signed; id++ {
		hurry(&s, id)
	}
	asked := lookedUp(&s)
	for id := uint8(1); id <= s.signed; id++ {
		if k := s.call(id); k.stage == over && !asked.has(id) {
			k.forget()
		}
	}
	// Fences and margins of calls that no task waits for are irrelevant.
	for s.fenced < s.signed && !asked.has(s.fenced+1) && s.calls[s.fenced].request != underWay {
		s.fenced++
	}
	for s.closed < s.fenced && !asked.has(s.closed+1) {
		s.closed++
	}
	for i := range s.calls {
		if k := &s.calls[i]; k.request == executed {
			s.forgetTimes(k, asked)
		}
	}
	return s
}

// hurry makes the steps of a call that do not change a task or EdgeOne and do not depend
// on timing.
func hurry(s *state, id uint8) {
	k := s.call(id)
	if k.stage == claiming {
		if k.todo &= k.current; k.todo == 0 { // the remaining writes can only meet conflicts
			k.stage = sending
		}
	}
	if k.stage == sending && k.claimed != 0 {
		// The network may delay the request for as long as its sender may pause.
		k.stage, k.request = awaiting, underWay
	}
	if k.request == underWay && s.fenced >= id {
		k.request = dropped // EdgeOne refuses it from now on
	}
	if k.stage == awaiting && k.request != underWay {
		k.stage, k.todo = releasing, k.claimed
		if k.request == executed {
			k.stage = recording
		}
	}
	if k.stage == releasing {
		k.request = dropped // it makes no difference whether it was sent
	}
	for t := range s.tasks {
		if s.tasks[t].claim != id { // left alone
			k.unsure &^= only(t)
			if k.stage == recording || k.stage == releasing {
				k.todo &^= only(t)
			}
		}
	}
	if k.todo|k.unsure == 0 && k.stage != awaiting || k.todo == 0 && (k.stage == recording || k.stage == releasing) {
		k.end()
	}
	if k.stage == over && k.request == unsent {
		k.claimed, k.request = 0, dropped
	}
}

// ids is a set of calls.
type ids uint8

func (is ids) has(id uint8) bool { return is>>id&1 != 0 }

// newest returns the highest member up to id, or 0.
func (is ids) newest(id uint8) uint8 {
	for id > 0 && !is.has(id) {
		id--
	}
	return id
}

// lookedUp returns the calls that a task waits for, now or once it is claimed.
func lookedUp(s *state) (is ids) {
	for t := range s.tasks {
		is |= 1 << s.tasks[t].claim &^ 1
	}
	for id := uint8(1); id <= s.signed; id++ {
		if s.call(id).stage == claiming {
			is |= 1 << id
		}
	}
	return is
}

// forget reduces a call without a caller or look-up to what it has done and may still do.
func (k *call) forget() {
	did := k.accepted
	switch k.request {
	case dropped:
		*k = call{retry: k.retry}
		return
	case underWay:
		did = a | b | c
	}
	for t := range k.planned {
		k.planned[t] = k.asked(t) & did
	}
}

// forgetTimes reduces the times of a job to those that place it in a window of a pending
// look-up, or of the look-up that recorded it.
func (s *state) forgetTimes(k *call, asked ids) {
	known := asked
	for t := range s.tasks {
		for _, r := range s.tasks[t].record {
			if r.job != 0 && r.job != refused && s.call(r.job) == k {
				known |= 1 << r.claim
			}
		}
	}
	if asked.newest(k.signed) == 0 {
		k.listed = k.accepted // in no window
	}
	k.signed, k.closed = known.newest(k.signed), asked.newest(k.closed)
	for k.fenced < s.fenced && !asked.has(k.fenced+1) {
		k.fenced++
	}
	if k.accepted == k.listed {
		k.fenced = 0
	}
}
