package teo

import (
	"crypto/sha256"
	"fmt"
)

// reading puts the pages of a listing together and notices when they do not belong
// together.
type reading struct {
	tasks  []PrefetchTask
	total  int // by the first page
	text   int // bytes of the tasks
	pages  int
	full   int // how many records a page has that may not be the last
	pageOf map[recordKey]int
	torn   bool
}

type recordKey struct{ jobID, target string }

func newReading() *reading { return &reading{full: pageSize, pageOf: map[recordKey]int{}} }

// add notices that the listing has changed when the count differs or a record comes
// twice. The last is how a record that moved to another place shows: the count stays,
// but for every record seen twice another one was missed. Twice on one page is no such
// sign; a job may list a URL twice.
func (r *reading) add(page PrefetchTaskPage) {
	if r.pages == 0 {
		r.total = page.TotalCount
	}
	r.pages++
	for _, t := range page.Tasks {
		key := recordKey{t.JobID, t.Target}
		if seen, ok := r.pageOf[key]; ok && seen != r.pages {
			r.torn = true
		}
		r.pageOf[key] = r.pages
		r.text += len(t.Target) + len(t.FailMessage)
	}
	r.tasks = append(r.tasks, page.Tasks...)
	if page.TotalCount != r.total || len(r.tasks) > r.total || len(page.Tasks) == 0 && len(r.tasks) < r.total {
		r.torn = true
	}
}

// ended says whether a page of n records was the last: an empty one is, and one that
// is not full, once there are as many as the count says. A page that has fewer records
// than were asked for though more are to come shows what a full one is here.
func (r *reading) ended(n int) bool {
	if n > 0 && len(r.tasks) < r.total {
		r.full = min(r.full, n)
	}
	return n == 0 || n < r.full && len(r.tasks) >= r.total
}

// sum is the same for readings that have the same records in the same order,
// whatever became of them in between.
func (r *reading) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, t := range r.tasks {
		_, _ = fmt.Fprintf(h, "%q%q", t.JobID, t.Target)
	}
	h.Sum(sum[:0])
	return sum
}
