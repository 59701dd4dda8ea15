package teo

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

const (
	pageSize = 1000 // the maximum that EdgeOne returns
	// readings is how many times in total the client reads a listing that keeps changing.
	readings = 4
	// shortPause is how long the client waits before it rereads a listing that had fewer
	// records than its count. The missing records may be about to appear.
	shortPause = time.Second
	// maxRecords and maxURLs (the bytes of the URLs) bound a listing in memory. They
	// exceed what calls can add to the history in the minutes that a caller lists.
	maxRecords = 200_000
	maxURLs    = 64 << 20
)

// ListRequest selects a part of a zone's history. A record must match all fields that are
// set.
type ListRequest struct {
	// History is the history to read; the default is PrefetchHistory.
	History History
	ZoneID  string
	// JobID selects the records of one job.
	JobID string
	// StartTime and EndTime select the records that were created in between. EdgeOne
	// counts in whole seconds, so the client widens the window to whole seconds.
	StartTime, EndTime time.Time
	// MaxPages limits the listing to this number of pages of 1,000 records. A longer
	// listing, or a listing of which EdgeOne returns only the beginning, fails with an
	// error that wraps ErrTooManyPages. The default of 0 means no limit beyond the
	// client's own: listings with more than 200 pages, or with more than 64 MiB of targets,
	// always fail.
	MaxPages int
}

// FirstRecords reads the first page and the length of a listing with one call. It ignores
// MaxPages.
func (c *Client) FirstRecords(ctx context.Context, creds Credentials, req ListRequest) (RecordPage, error) {
	return c.page(ctx, creds, req, 0)
}

// ListRecords returns the whole listing or fails. Each page waits for a slot of
// the action's Limiter, is signed when it is sent, and is requested again when EdgeOne
// throttles it. Errors are never Ambiguous; most are Unavailable.
//
// A listing is whole if its pages belong together: EdgeOne's count is the same on each
// page and correct, and no record is on two pages. If the pages do not belong together,
// the listing may have changed during the read, it may contain a target twice, or EdgeOne's
// count may be wrong. The client then reads the listing again, and accepts it if two
// reads in a row are the same. It gives up after a few reads.
//
// A target that is not in the result was not in EdgeOne's history at that time. It may
// still appear: records follow a call by some seconds.
// https://www.tencentcloud.com/document/product/1145/50533
// https://www.tencentcloud.com/document/product/1145/50532
func (c *Client) ListRecords(ctx context.Context, creds Credentials, req ListRequest) ([]Record, error) {
	action := req.History.Action()
	var before [sha256.Size]byte
	for n := range readings {
		r, err := c.readListing(ctx, creds, req)
		if err != nil {
			return nil, err
		}
		if !r.torn {
			return r.records, nil
		}
		sum := r.sum()
		if n > 0 && sum == before {
			return r.records, nil
		}
		before = sum
		if len(r.records) < r.total && n < readings-1 {
			if err := pause(ctx, shortPause); err != nil {
				return nil, unavailable(action, "not read", err)
			}
		}
	}
	return nil, unavailable(action, "the listing did not hold still", errTorn)
}

// errTorn is the cause of the error when a listing changed during every read.
var errTorn = errors.New("the listing changed while it was read")

// readListing reads pages until there are no more. If the last page was full although
// EdgeOne's count is reached, it reads one more page, which must be empty.
func (c *Client) readListing(ctx context.Context, creds Credentials, req ListRequest) (*reading, error) {
	maxPages := maxRecords / pageSize
	if req.MaxPages > 0 {
		maxPages = min(maxPages, req.MaxPages)
	}
	r := newReading()
	for {
		page, err := c.page(ctx, creds, req, len(r.records))
		if err != nil {
			return nil, beyondTheStart(err, len(r.records))
		}
		r.add(page)
		if max(len(r.records), r.total) > maxPages*pageSize || r.text > maxURLs {
			return nil, unavailable(req.History.Action(), "not read", ErrTooManyPages)
		}
		if r.ended(len(page.Records)) {
			return r, nil
		}
	}
}

// beyondTheStart returns the error of a page. If EdgeOne refuses a page after it returned
// earlier ones, the request itself is valid, and the listing is longer than EdgeOne lets
// clients read. The error is then ErrTooManyPages.
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

// unavailable returns an error of kind Unavailable for a listing.
func unavailable(action, message string, cause error) *Error {
	return &Error{Action: action, Kind: Unavailable, Message: message, Err: cause}
}

// listRequest is a ListRequest on the wire. It is the same for both histories.
type listRequest struct {
	ZoneID    string       `json:"ZoneId"`
	StartTime string       `json:",omitempty"`
	EndTime   string       `json:",omitempty"`
	Offset    int          `json:",omitempty"`
	Limit     int          `json:",omitempty"`
	Filters   []listFilter `json:",omitempty"`
}

// listFilter is an element of Filters.
type listFilter struct {
	Name   string
	Values []string
}

// page reads the page of a listing that starts at offset.
func (c *Client) page(ctx context.Context, creds Credentials, req ListRequest, offset int) (RecordPage, error) {
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
	err := c.lookUp(ctx, creds, req.History.Action(), in, func() content {
		out = &listAnswer{known: map[string]string{}}
		return out
	})
	if err != nil {
		return RecordPage{}, err
	}
	return RecordPage{Records: out.records, TotalCount: *out.total}, nil
}

// listAnswer reads one page of a listing.
type listAnswer struct {
	total   *int
	records []Record
	known   map[string]string // the texts of the page; see once
}

func (a *listAnswer) read(field string, from *jsonReader) {
	switch field {
	case "TotalCount":
		a.total = from.number()
	case "Tasks":
		from.array(pageSize-len(a.records), func() { a.readRecord(from) })
	default:
		from.skip()
	}
}

// readRecord reads one record. A record without a JobId or Target is malformed.
func (a *listAnswer) readRecord(from *jsonReader) {
	var t Record
	from.object(func(field string) {
		switch field {
		case "JobId":
			t.JobID = a.once(from.jobID())
		case "Target":
			t.Target = from.text()
		case "Type":
			t.Type = a.once(from.words(maxWord))
		case "Method":
			t.Method = a.once(from.words(maxWord))
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
		from.malformed("a record without its JobId and Target")
	}
	a.records = append(a.records, t)
}

// once returns one shared copy of a text, because most records of a page have the same
// texts.
func (a *listAnswer) once(text string) string {
	if known, ok := a.known[text]; ok {
		return known
	}
	a.known[text] = text
	return text
}

// problem refuses an answer without a count, because it may be the answer to another
// request.
func (a *listAnswer) problem(response) error {
	if a.total == nil || *a.total < 0 {
		return errors.New("no TotalCount")
	}
	return nil
}
