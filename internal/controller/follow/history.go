package follow

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// This file reads EdgeOne's history. What it reads is complete: a page, a window or a
// job is either read as a whole or not at all.

const (
	// maxRecords is how many records of the history one look holds in memory. Whatever
	// is open in a zone, and whoever else uses it, more are read in several looks.
	maxRecords = 20_000
	// maxCallsForJobs is how many calls one look for outcomes makes before it writes
	// what it has read: five seconds' worth.
	maxCallsForJobs = 100
	// fewRejected jobs of a zone may be rejected one after the other. If nothing else
	// is read meanwhile, EdgeOne rejects what concerns the zone, not those jobs.
	fewRejected = 3

	historyPage = 1000 // Records, see teo.PrefetchTaskPage
)

// concernsOneJob says whether an error concerns only the job or the window that was
// asked for: EdgeOne rejects it, or it cannot be read as a whole. All other errors
// concern everything that is read with the same key, or from the same place.
func concernsOneJob(err error) bool {
	return teo.KindOf(err) == teo.Rejected || errors.Is(err, teo.ErrTooManyPages) || teo.IsTorn(err)
}

// windowReader reads windows of a zone's history. What it has read, add gets part by part.
type windowReader struct {
	*Poller
	creds  teo.Credentials
	zoneID string
	add    func([]teo.PrefetchTask)
}

// readWindow reads what was created from start to end, both included. An error means that the
// window is not read.
func (r windowReader) readWindow(ctx context.Context, start, end time.Time) error {
	window := teo.DescribePrefetchTasksRequest{ZoneID: r.zoneID, StartTime: start, EndTime: end, MaxPages: maxRecords / historyPage}
	tasks, err := r.EdgeOne.DescribePrefetchTasks(ctx, r.creds, window)
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

// readRecentWindow reads what was created from start until now. If that is more than a page, it
// ends a little before now: a window holds still only once it is past.
func (r windowReader) readRecentWindow(ctx context.Context, start time.Time) error {
	now := r.historyTime()
	if now.Before(start) {
		return nil
	}
	page, err := r.EdgeOne.FirstPrefetchTasks(ctx, r.creds, teo.DescribePrefetchTasksRequest{ZoneID: r.zoneID, StartTime: start, EndTime: now})
	if err != nil {
		return err
	}
	if page.IsWhole() {
		r.add(page.Tasks)
		return nil
	}
	if end := now.Add(-taskstate.ClockSkew); end.After(start) {
		return r.readWindow(ctx, start, end)
	}
	return nil
}

// followedJob is a job of which outcomes are missing.
type followedJob struct {
	id     string
	signed time.Time // when its call was
	byID   bool      // a window did not show all of it
}

// jobReader reads jobs of a zone with as few calls as it takes.
type jobReader struct {
	*Poller
	ctx    context.Context
	creds  teo.Credentials
	zoneID string
	*taskstate.HistoryRead
	calls int
}

// isSpent says whether the look has read as much as one look may.
func (r *jobReader) isSpent() bool { return r.calls >= maxCallsForJobs || r.Records >= maxRecords }

// readJobs reads jobs until the look is spent, and returns an error that concerns all of
// them. Those that are not read are the next look's.
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

// readByWindow reads jobs, in the order in which they were signed, with one window,
// which perhaps holds the jobs of others as well. If it takes more calls than the jobs
// one by one, these are read by their ID; if it holds more than a look may, it is read
// in halves. The window ends in the past, where it holds still. It returns the jobs that
// have to be read by their ID.
func (r *jobReader) readByWindow(jobs []followedJob) (missed []followedJob, err error) {
	if len(jobs) <= 1 || r.isSpent() {
		return jobs, nil
	}
	room, worth := max(1, (maxRecords-r.Records)/historyPage), len(jobs)-1 // in pages
	tasks, err := r.EdgeOne.DescribePrefetchTasks(r.ctx, r.creds, teo.DescribePrefetchTasksRequest{
		ZoneID: r.zoneID, StartTime: jobs[0].signed.Add(-taskstate.ClockSkew),
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

func (r *jobReader) readHalves(jobs []followedJob) (missed []followedJob, err error) {
	half := len(jobs) / 2
	if missed, err = r.readByWindow(jobs[:half]); err != nil {
		return nil, err
	}
	rest, err := r.readByWindow(jobs[half:])
	return append(slices.Clone(missed), rest...), err
}

// historyTime is EdgeOne's time in whole seconds, as it counts windows.
func (p *Poller) historyTime() time.Time { return p.EdgeOne.ServerTime().Truncate(time.Second) }

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// readByID reads one job. What EdgeOne rejects of it concerns that job alone, unless
// it rejects one job after the other in the same words.
func (r *jobReader) readByID(job followedJob) error {
	if r.isSpent() {
		return nil
	}
	tasks, err := r.EdgeOne.DescribePrefetchTasks(r.ctx, r.creds,
		teo.DescribePrefetchTasksRequest{ZoneID: r.zoneID, JobID: job.id, MaxPages: maxRecords / historyPage})
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

// readAround reads the time in which a job can have been made that EdgeOne does not show
// by its ID. What it has of the job counts; what it lacks is evidence of nothing.
func (r *jobReader) readAround(job followedJob) error {
	window := teo.DescribePrefetchTasksRequest{
		ZoneID: r.zoneID, StartTime: job.signed.Add(-taskstate.ClockSkew), MaxPages: maxRecords / historyPage,
		EndTime: earliest(job.signed.Add(r.SignatureValidity+r.SettleMargin), r.historyTime().Add(-taskstate.ClockSkew)),
	}
	tasks, err := r.EdgeOne.DescribePrefetchTasks(r.ctx, r.creds, window)
	r.calls += 1 + len(tasks)/historyPage
	if err != nil && !concernsOneJob(err) {
		return err
	}
	if err == nil {
		r.AddTasks(slices.DeleteFunc(tasks, func(task teo.PrefetchTask) bool { return task.JobID != job.id }))
	}
	return nil
}
