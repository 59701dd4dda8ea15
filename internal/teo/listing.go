package teo

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

const (
	pageSize = 1000 // the most EdgeOne gives
	// looks is how often a listing that changes under our eyes is read in all.
	looks = 4
)

// The states of a prefetched URL.
const (
	StatusProcessing = "processing"
	StatusSuccess    = "success"
	StatusFailed     = "failed"
	StatusTimeout    = "timeout"
	StatusCanceled   = "canceled"
	StatusInvalid    = "invalid" // the origin did not answer 2xx
)

// DescribePrefetchTasksRequest says which part of a zone's history to list;
// what is set must all match.
type DescribePrefetchTasksRequest struct {
	ZoneID string
	// JobID lists the URLs of one job.
	JobID string
	// StartTime and EndTime list what was created in between. EdgeOne counts in
	// whole seconds; the window is widened to them.
	StartTime, EndTime time.Time
	// MaxPages refuses listings of more than so many pages of 1,000 with an
	// error that wraps ErrTooManyPages; 0 reads any.
	MaxPages int
}

// PrefetchTask is the state of one URL of a job.
type PrefetchTask struct {
	JobID       string
	Target      string // the URL; compare it by target.Identity
	Status      string // one of the Status constants, or one we do not know
	FailType    string // a word such as originPullFailed; "" unless it failed
	FailMessage string
	// CreateTime and UpdateTime are zero if EdgeOne gave none.
	CreateTime, UpdateTime time.Time
}

// Ended says whether the Status is final. One that we do not know is not.
func (t PrefetchTask) Ended() bool {
	switch t.Status {
	case StatusSuccess, StatusFailed, StatusTimeout, StatusCanceled, StatusInvalid:
		return true
	}
	return false
}

// PrefetchTaskPage is the beginning of a listing.
type PrefetchTaskPage struct {
	Tasks      []PrefetchTask // the first 1,000 at most
	TotalCount int            // how many there are in all
}

// FirstPrefetchTasks reads the first page of a listing and how long the
// listing is, with one call. It is the whole listing if there are TotalCount
// tasks. MaxPages is ignored.
func (c *Client) FirstPrefetchTasks(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) (PrefetchTaskPage, error) {
	return c.page(ctx, creds, req, 0)
}

// DescribePrefetchTasks lists the whole of what is asked for, or fails: each
// page waits for a slot of the action's Limiter, is signed when it is sent,
// and is asked for again when throttled. A listing that changes while it is
// read is read again from the start, and given up after a few times. Errors
// are never Ambiguous; most are Unavailable.
//
// A URL that is not in the result was not in EdgeOne's history then. It may
// still appear: records follow a call by some seconds.
// https://www.tencentcloud.com/document/product/1145/50533
func (c *Client) DescribePrefetchTasks(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) ([]PrefetchTask, error) {
	for range looks {
		tasks, err := c.look(ctx, creds, req)
		if !errors.Is(err, errTorn) {
			return tasks, err
		}
	}
	return nil, unavailable("the listing did not hold still", errTorn)
}

var errTorn = errors.New("the listing changed while it was read")

func (c *Client) look(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) ([]PrefetchTask, error) {
	first, err := c.page(ctx, creds, req, 0)
	if err != nil {
		return nil, err
	}
	if req.MaxPages > 0 && first.TotalCount > req.MaxPages*pageSize {
		return nil, unavailable("not read", ErrTooManyPages)
	}
	whole := listing{total: first.TotalCount, pageOf: map[recordKey]int{}}
	for next := first; ; {
		if err := whole.add(next); err != nil {
			return nil, err
		}
		if len(whole.tasks) == whole.total {
			return whole.tasks, nil
		}
		if next, err = c.page(ctx, creds, req, len(whole.tasks)); err != nil {
			return nil, err
		}
	}
}

// listing puts pages together and notices when they do not belong together.
type listing struct {
	total  int
	tasks  []PrefetchTask
	pages  int
	pageOf map[recordKey]int
}

type recordKey struct{ jobID, target string }

// add returns errTorn if the page shows that the listing has changed: the
// count differs, the pages end too early or too late, or a record comes twice.
// The last is how a record that moved to another place shows: the count stays,
// but for every record seen twice another one was missed. Twice on one page is
// no such sign; a job may list a URL twice.
func (l *listing) add(page PrefetchTaskPage) error {
	if page.TotalCount != l.total || len(l.tasks)+len(page.Tasks) > l.total ||
		len(page.Tasks) == 0 && len(l.tasks) < l.total {
		return errTorn
	}
	l.pages++
	for _, t := range page.Tasks {
		key := recordKey{t.JobID, t.Target}
		if seen, ok := l.pageOf[key]; ok && seen != l.pages {
			return errTorn
		}
		l.pageOf[key] = l.pages
	}
	l.tasks = slices.Concat(l.tasks, page.Tasks)
	return nil
}

func unavailable(message string, cause error) *Error {
	return &Error{Action: ActionDescribePrefetchTasks, Kind: Unavailable, Message: message, Err: cause}
}

// listRequest is DescribePrefetchTasksRequest on the wire.
type listRequest struct {
	ZoneID    string       `json:"ZoneId"`
	StartTime string       `json:",omitempty"`
	EndTime   string       `json:",omitempty"`
	Offset    int          `json:",omitempty"`
	Limit     int          `json:",omitempty"`
	Filters   []listFilter `json:",omitempty"`
}

type listFilter struct {
	Name   string
	Values []string
}

type listAnswer struct {
	TotalCount *int
	Tasks      []struct {
		JobID                  string `json:"JobId"`
		Target, Status         string
		FailType, FailMessage  string
		CreateTime, UpdateTime string
	}
}

func (c *Client) page(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest, offset int) (PrefetchTaskPage, error) {
	in := listRequest{ZoneID: req.ZoneID, Offset: offset, Limit: pageSize}
	if req.JobID != "" {
		in.Filters = []listFilter{{Name: "job-id", Values: []string{req.JobID}}}
	}
	if !req.StartTime.IsZero() {
		in.StartTime = req.StartTime.UTC().Format(time.RFC3339)
	}
	if !req.EndTime.IsZero() {
		in.EndTime = req.EndTime.Add(time.Second - 1).UTC().Format(time.RFC3339)
	}
	var page PrefetchTaskPage
	err := c.lookUp(ctx, creds, ActionDescribePrefetchTasks, in, func(response []byte) (err error) {
		page, err = decodePage(response)
		return err
	})
	return page, err
}

func decodePage(response []byte) (PrefetchTaskPage, error) {
	var answer listAnswer
	if err := json.Unmarshal(response, &answer); err != nil {
		return PrefetchTaskPage{}, err
	}
	// Without a count there is no telling whether the listing is whole.
	if answer.TotalCount == nil || *answer.TotalCount < 0 {
		return PrefetchTaskPage{}, errors.New("no TotalCount")
	}
	page := PrefetchTaskPage{TotalCount: *answer.TotalCount, Tasks: make([]PrefetchTask, len(answer.Tasks))}
	for i, t := range answer.Tasks {
		switch {
		case t.JobID == "" || t.Target == "":
			return PrefetchTaskPage{}, errors.New("a task without its JobId and Target")
		case len(t.JobID) > maxJobID:
			return PrefetchTaskPage{}, errLongJobID
		}
		page.Tasks[i] = PrefetchTask{JobID: t.JobID, Target: t.Target, Status: t.Status, FailType: t.FailType,
			FailMessage: t.FailMessage, CreateTime: parseTime(t.CreateTime), UpdateTime: parseTime(t.UpdateTime)}
	}
	return page, nil
}

func parseTime(s string) time.Time {
	t, _ := time.Parse(time.RFC3339, s)
	return t
}
