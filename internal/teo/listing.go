package teo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

const (
	pageSize = 1000 // the most EdgeOne gives
	// readings is how often a listing that does not hold still is read in all.
	readings = 4
	// shortPause is how long a listing that had fewer records than it said is left
	// alone: records are about to appear in it, perhaps.
	shortPause = time.Second
	// maxRecords and maxURLs bound a listing that is kept in memory: more than there
	// can be calls for in the minutes that somebody looks at, and the bytes of their
	// URLs.
	maxRecords = 200_000
	maxURLs    = 64 << 20
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
	// error that wraps ErrTooManyPages, as are those of which EdgeOne gives the
	// beginning only. Longer ones than 200 pages, or with URLs of
	// more than 64 MiB, are refused in any case; 0 is only that.
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

// outcome puts the records of one URL in one job into an order: the highest says
// what became of the URL.
func (t PrefetchTask) outcome() int {
	switch {
	case t.Status == StatusSuccess:
		return 2
	case !t.Ended():
		return 1
	}
	return 0
}

// Merge returns the record that stands for two of one URL in one job, as there may
// be of a URL that was handed over in two spellings, in whatever order they come. One
// success is enough: the URL is in the cache. Without one, the URL has not ended until
// all of its records have.
func (t PrefetchTask) Merge(other PrefetchTask) PrefetchTask {
	if cmp.Or(
		cmp.Compare(t.outcome(), other.outcome()), t.UpdateTime.Compare(other.UpdateTime), t.CreateTime.Compare(other.CreateTime),
		cmp.Compare(t.Status, other.Status), cmp.Compare(t.FailType, other.FailType), cmp.Compare(t.FailMessage, other.FailMessage),
	) < 0 {
		return other
	}
	return t
}

// PrefetchTaskPage is the beginning of a listing.
type PrefetchTaskPage struct {
	Tasks      []PrefetchTask // the first 1,000 at most
	TotalCount int            // how many there are in all, by EdgeOne's count
}

// IsWhole says whether the page is the whole listing. A full page never is, whatever
// the count says: counts have a cap in places.
func (p PrefetchTaskPage) IsWhole() bool {
	return len(p.Tasks) == p.TotalCount && len(p.Tasks) < pageSize
}

// FirstPrefetchTasks reads the first page of a listing and how long the
// listing is, with one call. MaxPages is ignored.
func (c *Client) FirstPrefetchTasks(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) (PrefetchTaskPage, error) {
	return c.page(ctx, creds, req, 0)
}

// DescribePrefetchTasks lists the whole of what is asked for, or fails: each
// page waits for a slot of the action's Limiter, is signed when it is sent,
// and is asked for again when throttled. Errors are never Ambiguous; most are
// Unavailable.
//
// A listing is whole if its pages belong together: EdgeOne's count is the same on
// each and holds, and no record is on two pages. Where the pages do not, the listing
// may have changed while it was read, or it has a URL twice, or EdgeOne's count is
// wrong. So it is read again, and is whole if it is the same twice in a row. It is
// given up after a few times.
//
// A URL that is not in the result was not in EdgeOne's history then. It may
// still appear: records follow a call by some seconds.
// https://www.tencentcloud.com/document/product/1145/50533
func (c *Client) DescribePrefetchTasks(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) ([]PrefetchTask, error) {
	var before [sha256.Size]byte
	for n := range readings {
		r, err := c.readListing(ctx, creds, req)
		if err != nil {
			return nil, err
		}
		if !r.torn {
			return r.tasks, nil
		}
		sum := r.sum()
		if n > 0 && sum == before {
			return r.tasks, nil
		}
		before = sum
		if len(r.tasks) < r.total && n < readings-1 {
			if err := pause(ctx, shortPause); err != nil {
				return nil, unavailable("not read", err)
			}
		}
	}
	return nil, unavailable("the listing did not hold still", errTorn)
}

var errTorn = errors.New("the listing changed while it was read")

// readListing reads pages until there are no more. Where EdgeOne's count says that
// was all, but the last page was full, one more is read, which must be empty.
func (c *Client) readListing(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) (*reading, error) {
	maxPages := maxRecords / pageSize
	if req.MaxPages > 0 {
		maxPages = min(maxPages, req.MaxPages)
	}
	r := newReading()
	for {
		page, err := c.page(ctx, creds, req, len(r.tasks))
		if err != nil {
			return nil, beyondTheStart(err, len(r.tasks))
		}
		r.add(page)
		if max(len(r.tasks), r.total) > maxPages*pageSize || r.text > maxURLs {
			return nil, unavailable("not read", ErrTooManyPages)
		}
		if r.ended(len(page.Tasks)) {
			return r, nil
		}
	}
}

// beyondTheStart is the error of a page. Where EdgeOne refuses to go on after it gave
// pages, the listing is longer than it lets anybody read, and there is nothing wrong
// with what is asked for.
func beyondTheStart(err error, offset int) error {
	var e *Error
	if offset == 0 || !errors.As(err, &e) || e.Kind != Rejected {
		return err
	}
	further := *e
	further.Kind, further.Err = Unavailable, ErrTooManyPages
	return &further
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
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
	var out *listAnswer
	err := c.lookUp(ctx, creds, ActionDescribePrefetchTasks, in, func() content {
		out = &listAnswer{known: map[string]string{}}
		return out
	})
	if err != nil {
		return PrefetchTaskPage{}, err
	}
	return PrefetchTaskPage{Tasks: out.tasks, TotalCount: *out.total}, nil
}

type listAnswer struct {
	total *int
	tasks []PrefetchTask
	known map[string]string
}

func (a *listAnswer) read(field string, from *jsonReader) {
	switch field {
	case "TotalCount":
		a.total = from.number()
	case "Tasks":
		from.array(pageSize-len(a.tasks), func() { a.readTask(from) })
	default:
		from.skip()
	}
}

func (a *listAnswer) readTask(from *jsonReader) {
	var t PrefetchTask
	from.object(func(field string) {
		switch field {
		case "JobId":
			t.JobID = a.once(from.jobID())
		case "Target":
			t.Target = from.text()
		case "Status":
			t.Status = a.once(from.words(maxWord))
		case "FailType":
			t.FailType = a.once(from.words(maxWord))
		case "FailMessage":
			t.FailMessage = a.once(from.words(maxMessage))
		case "CreateTime":
			t.CreateTime = from.time()
		case "UpdateTime":
			t.UpdateTime = from.time()
		default:
			from.skip()
		}
	})
	if t.JobID == "" || t.Target == "" {
		from.malformed("a task without its JobId and Target")
	}
	a.tasks = append(a.tasks, t)
}

// once returns a text of which there is one copy only: most records of a page have
// the same words.
func (a *listAnswer) once(text string) string {
	if known, ok := a.known[text]; ok {
		return known
	}
	a.known[text] = text
	return text
}

// problem refuses an answer without a count, which may be of anything.
func (a *listAnswer) problem(response) error {
	if a.total == nil || *a.total < 0 {
		return errors.New("no TotalCount")
	}
	return nil
}
