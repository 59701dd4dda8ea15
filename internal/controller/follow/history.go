package follow

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// This file reads EdgeOne's history. A read is complete or fails: a page, a window or a job
// is never read in part.

const (
	// maxRecords is how many records of the history one pass holds in memory. If a zone
	// has more, because of open jobs or other users, several passes read them.
	maxRecords = 20_000
	// maxCallsForJobs is how many calls one pass for outcomes makes before it writes the
	// outcomes that it has read. 100 calls take five seconds.
	maxCallsForJobs = 100
	// fewRejected is how many jobs of a zone EdgeOne may reject in a row. If the pass
	// reads nothing else meanwhile, the rejection concerns the zone, not these jobs.
	fewRejected = 3

	historyPage = 1000 // in records, see teo.RecordPage
)

// concernsOneJob reports whether an error concerns only the requested job or window:
// EdgeOne rejects the request, or the pass cannot read the result as a whole. Any other
// error concerns all reads with the same key or over the same network path.
func concernsOneJob(err error) bool {
	return teo.KindOf(err) == teo.Rejected || errors.Is(err, teo.ErrTooManyPages) || teo.IsTorn(err)
}

// windowReader reads windows of a zone's history. It passes the records to add, one part
// at a time.
type windowReader struct {
	*Poller
	creds  teo.Credentials
	zoneID string
	from   teo.History
	add    func([]teo.Record)
}

// readWindow reads the records created from start to end, both included. If EdgeOne
// reports too many pages, or rejects a window longer than a minute, readWindow reads the
// two halves. If it returns an error, the window counts as unread.
func (r windowReader) readWindow(ctx context.Context, start, end time.Time) error {
	window := teo.ListRequest{History: r.from, ZoneID: r.zoneID, StartTime: start, EndTime: end, MaxPages: maxRecords / historyPage}
	tasks, err := r.EdgeOne.ListRecords(ctx, r.creds, window)
	if err == nil {
		r.add(tasks)
		return nil
	}
	middle := start.Add(end.Sub(start) / 2).Truncate(time.Second)
	isTooLong := errors.Is(err, teo.ErrTooManyPages) || teo.KindOf(err) == teo.Rejected && end.Sub(start) > time.Minute
	if !isTooLong || !middle.After(start) {
		return err
	}
	if err := r.readWindow(ctx, start, middle); err != nil {
		return err
	}
	return r.readWindow(ctx, middle, end)
}

// readRecentWindow reads the records created from start until now. If they fill more than
// one page, the window ends ClockSkew before now: only a window in the past no longer
// changes. The same applies if EdgeOne refuses the window, because it may end in the future by
// the clock of the history.
func (r windowReader) readRecentWindow(ctx context.Context, start time.Time) error {
	now := r.historyTime()
	if now.Before(start) {
		return nil
	}
	page, err := r.EdgeOne.FirstRecords(ctx, r.creds, teo.ListRequest{History: r.from, ZoneID: r.zoneID, StartTime: start, EndTime: now})
	if err != nil && teo.KindOf(err) != teo.Rejected {
		return err
	}
	if err == nil && page.IsWhole() {
		r.add(page.Records)
		return nil
	}
	if end := now.Add(-taskstate.ClockSkew); end.After(start) {
		return r.readWindow(ctx, start, end)
	}
	return err
}

// readLastSeconds reads the records that readRecentWindow leaves out, as far as one page shows them. They
// may be incomplete, so that only what they show counts.
func (r windowReader) readLastSeconds(ctx context.Context, start time.Time) error {
	now := r.historyTime()
	page, err := r.EdgeOne.FirstRecords(ctx, r.creds, teo.ListRequest{
		History: r.from, ZoneID: r.zoneID, StartTime: latestTime(start, now.Add(-2*taskstate.ClockSkew)), EndTime: now,
	})
	if err == nil {
		r.add(page.Records)
	}
	if teo.KindOf(err) == teo.Rejected {
		return nil // by the clock of the history, these seconds lie in the future
	}
	return err
}

// followedJob is a job whose outcomes are incomplete.
type followedJob struct {
	id     string
	signed time.Time // when its call was signed
	byID   bool      // read it by its ID: a window did not show all of it
}

// jobReader reads jobs of a zone with as few calls as possible.
type jobReader struct {
	*Poller
	ctx    context.Context
	creds  teo.Credentials
	zoneID string
	*taskstate.HistoryRead
	calls int
}

// isSpent reports whether the pass has reached its limit of calls or records.
func (r *jobReader) isSpent() bool { return r.calls >= maxCallsForJobs || r.Records >= maxRecords }

// readJobs reads jobs until the pass reaches its limits. The next pass reads the remaining
// jobs. readJobs returns an error only if the error concerns all jobs.
func (r *jobReader) readJobs(jobs []followedJob) error {
	var inWindow, byID []followedJob
	for _, job := range jobs {
		if job.byID {
			byID = append(byID, job)
		} else {
			inWindow = append(inWindow, job)
		}
	}
	slices.SortStableFunc(inWindow, func(a, b followedJob) int { return a.signed.Compare(b.signed) })
	missed, err := r.readByWindow(inWindow)
	for _, job := range append(missed, byID...) {
		if err != nil {
			return err
		}
		err = r.readByID(job)
	}
	return err
}

// readByWindow reads jobs with one window and returns the jobs that must be read by their
// ID. The jobs are in the order of their signatures. The window may also contain jobs of
// others.
//
// If the window takes more calls than reading the jobs one by one, readByWindow leaves
// them to be read by their ID. If the window exceeds the limits of the pass, readByWindow
// reads it in halves. The window ends ClockSkew before now, because only the past no
// longer changes.
func (r *jobReader) readByWindow(jobs []followedJob) (missed []followedJob, err error) {
	if len(jobs) <= 1 || r.isSpent() {
		return jobs, nil
	}
	room, worth := max(1, (maxRecords-r.Records)/historyPage), len(jobs)-1 // in pages
	tasks, err := r.EdgeOne.ListRecords(r.ctx, r.creds, teo.ListRequest{
		History: r.history(), ZoneID: r.zoneID, StartTime: jobs[0].signed.Add(-taskstate.ClockSkew),
		EndTime:  earliest(jobs[len(jobs)-1].signed.Add(r.CallTimeout+taskstate.ClockSkew), r.historyTime().Add(-taskstate.ClockSkew)),
		MaxPages: min(room, worth),
	})
	r.calls += 1 + len(tasks)/historyPage
	switch {
	case errors.Is(err, teo.ErrTooManyPages) && room < worth:
		return r.readHalves(jobs)
	case err != nil && concernsOneJob(err):
		return jobs, nil
	case err != nil:
		return nil, err
	}
	r.AddTasks(tasks)
	return slices.DeleteFunc(slices.Clone(jobs), func(job followedJob) bool { return r.Listing[job.id] != nil }), nil
}

// readHalves reads the earlier and the later half of jobs with a window each.
func (r *jobReader) readHalves(jobs []followedJob) (missed []followedJob, err error) {
	half := len(jobs) / 2
	if missed, err = r.readByWindow(jobs[:half]); err != nil {
		return nil, err
	}
	rest, err := r.readByWindow(jobs[half:])
	return append(slices.Clone(missed), rest...), err
}

// historyTime returns EdgeOne's time in whole seconds, the precision of its windows.
func (p *Poller) historyTime() time.Time { return p.EdgeOne.ServerTime().Truncate(time.Second) }

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// readByID reads one job. If EdgeOne rejects the read, the rejection concerns this job
// alone, unless EdgeOne rejects several jobs in a row with the same message.
func (r *jobReader) readByID(job followedJob) error {
	if r.isSpent() {
		return nil
	}
	tasks, err := r.EdgeOne.ListRecords(r.ctx, r.creds,
		teo.ListRequest{History: r.history(), ZoneID: r.zoneID, JobID: job.id, MaxPages: maxRecords / historyPage})
	r.calls += 1 + len(tasks)/historyPage
	switch {
	case err == nil:
		r.AddTasks(tasks)
		r.Whole[job.id] = true
		return nil
	case !concernsOneJob(err):
		return err
	}
	r.Rejected[job.id] = err
	if windowErr := r.readAround(job); windowErr != nil {
		return windowErr
	}
	if len(r.Rejected) >= fewRejected && len(r.Listing)+len(r.Whole) == 0 && teo.KindOf(err) == teo.Rejected && r.AreIdentical() {
		return err
	}
	return nil
}

// readAround reads the period in which a job can have been created, if EdgeOne does not
// show the job by its ID. Records of the job count. Missing records prove nothing.
func (r *jobReader) readAround(job followedJob) error {
	window := teo.ListRequest{
		History: r.history(), ZoneID: r.zoneID, StartTime: job.signed.Add(-taskstate.ClockSkew), MaxPages: maxRecords / historyPage,
		EndTime: earliest(job.signed.Add(r.SignatureValidity+r.SettleMargin), r.historyTime().Add(-taskstate.ClockSkew)),
	}
	tasks, err := r.EdgeOne.ListRecords(r.ctx, r.creds, window)
	r.calls += 1 + len(tasks)/historyPage
	if err != nil && !concernsOneJob(err) {
		return err
	}
	if err == nil {
		r.AddTasks(slices.DeleteFunc(tasks, func(task teo.Record) bool { return task.JobID != job.id }))
		r.Around[job.id] = r.At.After(job.signed.Add(r.SignatureValidity + r.SettleMargin + taskstate.ClockSkew))
	}
	return nil
}
