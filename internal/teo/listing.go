package teo

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

const (
	pageSize = 1000 // the maximum that EdgeOne returns
	// readings is how often the client reads a listing in total while it keeps changing.
	readings = 4
	// shortPause is how long the client waits before it reads a listing again that had
	// fewer records than its count. The missing records may be about to appear.
	shortPause = time.Second
	// maxRecords and maxURLs (the bytes of the URLs) bound a listing in memory. They
	// exceed what calls can add to the history in the minutes that a caller lists.
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

// DescribePrefetchTasksRequest selects a part of a zone's history. A record must match
// all fields that are set.
type DescribePrefetchTasksRequest struct {
	ZoneID string
	// JobID selects the URLs of one job.
	JobID string
	// StartTime and EndTime select the records that were created in between. EdgeOne
	// counts in whole seconds, so the client widens the window to whole seconds.
	StartTime, EndTime time.Time
	// MaxPages limits the listing to this number of pages of 1,000 records. A longer
	// listing, or a listing of which EdgeOne returns only the beginning, fails with an
	// error that wraps ErrTooManyPages. Listings with more than 200 pages, or with more
	// than 64 MiB of URLs, always fail; 0 means no further limit.
	MaxPages int
}

// PrefetchTask is the state of one URL of a job.
type PrefetchTask struct {
	JobID       string
	Target      string // the URL; compare it by target.Identity
	Status      string // one of the Status constants, or an unknown one
	FailType    string // a word such as originPullFailed; "" unless the URL failed
	FailMessage string
	// CreateTime and UpdateTime are zero if EdgeOne returned none.
	CreateTime, UpdateTime time.Time
}

// Ended says whether the Status is final. An unknown Status is not final.
func (t PrefetchTask) Ended() bool {
	switch t.Status {
	case StatusSuccess, StatusFailed, StatusTimeout, StatusCanceled, StatusInvalid:
		return true
	}
	return false
}

// outcome ranks the records of one URL in one job. The record with the highest rank says
// how the URL fared.
func (t PrefetchTask) outcome() int {
	switch {
	case t.Status == StatusSuccess:
		return 2
	case !t.Ended():
		return 1
	}
	return 0
}

// Merge returns the record that represents two records of one URL in one job. A URL that
// was submitted in two spellings may have two. The order of the two does not matter. One
// success is enough, because the URL is in the cache. Without a success, the URL has
// ended only when all of its records have ended.
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
	Tasks      []PrefetchTask // at most the first 1,000
	TotalCount int            // the number of all records, by EdgeOne's count
}

// IsWhole says whether the page is the whole listing. A full page never is, whatever the
// count says, because EdgeOne caps some counts.
func (p PrefetchTaskPage) IsWhole() bool {
	return len(p.Tasks) == p.TotalCount && len(p.Tasks) < pageSize
}

// FirstPrefetchTasks reads the first page and the length of a listing with one call. It
// ignores MaxPages.
func (c *Client) FirstPrefetchTasks(ctx context.Context, creds Credentials, req DescribePrefetchTasksRequest) (PrefetchTaskPage, error) {
	return c.page(ctx, creds, req, 0)
}

// DescribePrefetchTasks returns the whole listing or fails. Each page waits for a slot of
// the action's Limiter, is signed when it is sent, and is requested again when EdgeOne
// throttles it. Errors are never Ambiguous; most are Unavailable.
//
// A listing is whole if its pages belong together: EdgeOne's count is the same on each
// page and correct, and no record is on two pages. If the pages do not belong together,
// the listing may have changed during the read, it may contain a URL twice, or EdgeOne's
// count may be wrong. The client then reads the listing again, and accepts it if two
// reads in a row are the same. It gives up after a few reads.
//
// A URL that is not in the result was not in EdgeOne's history at that time. It may still
// appear: records follow a call by some seconds.
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

// errTorn is the cause of the error when a listing changed during every read.
var errTorn = errors.New("the listing changed while it was read")

// readListing reads pages until there are no more. If the last page was full although
// EdgeOne's count is reached, it reads one more page, which must be empty.
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

// beyondTheStart returns the error of a page. If EdgeOne refuses a page after it returned
// earlier ones, the listing is longer than EdgeOne lets anybody read, and the request
// itself is valid. The error is then ErrTooManyPages.
func beyondTheStart(err error, offset int) error {
	var e *Error
	if offset == 0 || !errors.As(err, &e) || e.Kind != Rejected {
		return err
	}
	further := *e
	further.Kind, further.Err = Unavailable, ErrTooManyPages
	return &further
}

// pause waits for d, or returns the error of ctx if that ends first.
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

// listRequest is a DescribePrefetchTasksRequest on the wire.
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

// page reads the page of a listing that starts at offset.
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

// listAnswer reads one page of a listing.
type listAnswer struct {
	total *int
	tasks []PrefetchTask
	known map[string]string // the texts of the page; see once
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

// once returns the only copy of a text, because most records of a page have the same
// texts.
func (a *listAnswer) once(text string) string {
	if known, ok := a.known[text]; ok {
		return known
	}
	a.known[text] = text
	return text
}

// problem refuses an answer without a count, because it may be an answer to anything.
func (a *listAnswer) problem(response) error {
	if a.total == nil || *a.total < 0 {
		return errors.New("no TotalCount")
	}
	return nil
}
