package teo

import (
	"cmp"
	"time"
)

// History is one of the two histories that EdgeOne keeps of a zone.
type History int

// The histories.
const (
	PrefetchHistory History = iota
	PurgeHistory
)

// Action returns the action that reads the history.
func (h History) Action() string {
	if h == PurgeHistory {
		return ActionDescribePurgeTasks
	}
	return ActionDescribePrefetchTasks
}

// The states of a target.
const (
	StatusProcessing = "processing"
	StatusSuccess    = "success"
	StatusFailed     = "failed"
	StatusTimeout    = "timeout"
	StatusCanceled   = "canceled"
	StatusInvalid    = "invalid" // the origin did not answer 2xx; purges never have it
)

// Record is the state of one target of a job. EdgeOne calls it a task.
type Record struct {
	JobID       string
	Type        string // one of the Type constants, or an unknown one; "" if EdgeOne returned none
	Method      string // of a purge; see MethodInvalidate
	Target      string // a URL, or what the Type says; compare it by Identity
	Status      string // one of the Status constants, or an unknown one
	FailType    string // a word such as originPullFailed; "" unless the target failed
	FailMessage string
	// CreateTime and UpdateTime are zero if EdgeOne returned none.
	CreateTime, UpdateTime time.Time
}

// Identity returns a key that is the same for all spellings of the Target.
func (r Record) Identity() string { return identityOf(r.Type, r.Target) }

// Ended says whether the Status is final. An unknown Status is not final.
func (r Record) Ended() bool {
	switch r.Status {
	case StatusSuccess, StatusFailed, StatusTimeout, StatusCanceled, StatusInvalid:
		return true
	}
	return false
}

// outcome ranks the records of one target in one job. The record with the highest rank
// represents the target.
func (r Record) outcome() int {
	switch {
	case r.Status == StatusSuccess:
		return 2
	case !r.Ended():
		return 1
	}
	return 0
}

// Merge returns the record that represents two records of one target in one job. A target
// that was submitted in two spellings may have two. The order of the two does not matter.
// One success is enough, because EdgeOne did what was asked for. Without a success, the
// target has ended only when all of its records have ended.
func (r Record) Merge(other Record) Record {
	if cmp.Or(
		cmp.Compare(r.outcome(), other.outcome()), r.UpdateTime.Compare(other.UpdateTime), r.CreateTime.Compare(other.CreateTime),
		cmp.Compare(r.Status, other.Status), cmp.Compare(r.FailType, other.FailType), cmp.Compare(r.FailMessage, other.FailMessage),
		cmp.Compare(r.Type, other.Type), cmp.Compare(r.Method, other.Method),
	) < 0 {
		return other
	}
	return r
}

// RecordPage is the beginning of a listing.
type RecordPage struct {
	Records    []Record // at most the first 1,000
	TotalCount int      // the number of all records, by EdgeOne's count
}

// IsWhole says whether the page is the whole listing. A full page never is, whatever the
// count says, because EdgeOne caps some counts.
func (p RecordPage) IsWhole() bool {
	return len(p.Records) == p.TotalCount && len(p.Records) < pageSize
}
