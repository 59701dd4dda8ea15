package teo

import (
	"crypto/sha256"
	"fmt"
)

// reading joins the pages of a listing and detects that they do not belong together.
type reading struct {
	records []Record
	total   int // by the first page
	text    int // bytes of the targets and failure messages
	pages   int
	full    int               // number of records in a full page
	pageOf  map[recordKey]int // the latest page with the record
	torn    bool              // the pages do not belong together
}

type recordKey struct{ jobID, target string }

func newReading() *reading { return &reading{full: pageSize, pageOf: map[recordKey]int{}} }

// add adds a page. The listing has changed if the count differs, or if a record is on two
// pages. A record on two pages shows that records moved: the count stays the same, but
// for each record that was read twice, another one was missed. A record that occurs twice
// on one page does not show a change, because a job may list a URL twice.
func (r *reading) add(page RecordPage) {
	if r.pages == 0 {
		r.total = page.TotalCount
	}
	r.pages++
	for _, t := range page.Records {
		key := recordKey{t.JobID, t.Target}
		if seen, ok := r.pageOf[key]; ok && seen != r.pages {
			r.torn = true
		}
		r.pageOf[key] = r.pages
		r.text += len(t.Target) + len(t.FailMessage)
	}
	r.records = append(r.records, page.Records...)
	if page.TotalCount != r.total || len(r.records) > r.total || len(page.Records) == 0 && len(r.records) < r.total {
		r.torn = true
	}
}

// ended says whether a page of n records was the last. An empty page is the last. A page
// that is not full is the last if all records of the count were read. A page that has
// fewer records than requested, although more follow, shows the real size of a full page.
func (r *reading) ended(n int) bool {
	if n > 0 && len(r.records) < r.total {
		r.full = min(r.full, n)
	}
	return n == 0 || n < r.full && len(r.records) >= r.total
}

// sum returns a hash of the job and URL of all records in their order. It ignores their
// states, because these may change between two reads.
func (r *reading) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, t := range r.records {
		_, _ = fmt.Fprintf(h, "%q%q", t.JobID, t.Target)
	}
	h.Sum(sum[:0])
	return sum
}
