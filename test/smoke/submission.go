package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// prefetch submits the URL once, follows it to its outcome, and probes what its records
// show.
func (s *smoke) prefetch(ctx context.Context) {
	if !s.submit(ctx) || !s.awaitHistory(ctx) {
		return
	}
	s.probeRecords(ctx)
	s.awaitOutcome(ctx)
	s.probeCost(ctx)
}

// submit makes the one call. It returns whether there is something to follow.
func (s *smoke) submit(ctx context.Context) bool {
	slot, err := s.client.Limiter(s.creds, teo.ActionCreatePrefetchTask).Wait(ctx, teo.Turn{})
	if err != nil {
		return false
	}
	s.signedAt, s.submitted = s.now(), time.Now()
	answer, err := s.client.CreateTask(slot.For(ctx), s.creds, s.signedAt, teo.CreatePrefetchTaskRequest{
		ZoneID: s.zone, Targets: []string{target.Encode(s.url)},
	})
	slot.Done(teo.KindOf(err) == teo.Throttled)
	took := time.Since(s.submitted).Round(time.Millisecond)
	if err == nil {
		s.answered, _ = http.ParseTime(s.wire.last().header.Get("Date"))
	}
	switch {
	case teo.KindOf(err) == teo.Ambiguous:
		s.skip(factAccepted, "the answer was lost: "+sentence(err))
		s.say("The answer to the call was lost (%s): looking for the job in the history.", sentence(err))
		return true
	case err != nil:
		s.differ(factAccepted, "refused: "+sentence(err), "see docs/troubleshooting.md")
		s.finished = true
		return false
	case answer.JobID == "" || len(answer.Failed) > 0:
		s.differ(factAccepted, fmt.Sprintf("JobId %q, %s", answer.JobID, s.wire.failedList()), "EdgeOne does not accept this URL")
		s.finished = true
		return false
	}
	s.jobID = answer.JobID
	s.assumed(factAccepted, fmt.Sprintf("a JobId of %d characters, %s", len(answer.JobID), s.wire.failedList()))
	s.say("Submitted after %s: job %s, request %s.", took, answer.JobID, answer.RequestID)
	return true
}

// awaitHistory reads the history until a window and the filter job-id show the job. If one
// of them does and the other does not within the delay, it continues with the one. It
// returns false if ctx ends first.
func (s *smoke) awaitHistory(ctx context.Context) bool {
	for {
		err := s.look(ctx, &s.inWindow, s.readWindow)
		if s.jobID != "" && err == nil {
			err = s.look(ctx, &s.byID, s.readJob)
		}
		shown := max(s.inWindow, s.byID)
		switch {
		case s.inWindow > 0 && s.byID > 0:
			s.reportDelay(shown)
			return true
		case shown > 0 && time.Since(s.submitted) > shown+s.listingDelay:
			s.reportHidden(err)
			return true
		case !pause(ctx, s.lookInterval):
			s.reportHidden(err)
			return false
		}
	}
}

// look reads the history once, unless it has shown the job before, and keeps how long
// after the call the first read began that showed it.
func (s *smoke) look(ctx context.Context, shown *time.Duration, read func(context.Context) ([]teo.Record, error)) error {
	if *shown > 0 {
		return nil
	}
	after := time.Since(s.submitted)
	tasks, err := read(ctx)
	if err == nil && s.finds(tasks) {
		*shown = after
	}
	return err
}

// readWindow reads the window of the call, as the operator does after a lost answer.
func (s *smoke) readWindow(ctx context.Context) ([]teo.Record, error) {
	return s.client.ListRecords(ctx, s.creds, teo.ListRequest{
		ZoneID: s.zone, StartTime: s.signedAt.Add(-clockSkew), EndTime: s.now(),
	})
}

// readJob reads the job by its ID.
func (s *smoke) readJob(ctx context.Context) ([]teo.Record, error) {
	return s.client.ListRecords(ctx, s.creds, teo.ListRequest{ZoneID: s.zone, JobID: s.jobID})
}

// readState returns the state of the URL, or false if this read does not show it.
func (s *smoke) readState(ctx context.Context) (state teo.Record, ok bool) {
	read := s.readJob
	if s.byID == 0 {
		read = s.readWindow
	}
	tasks, err := read(ctx)
	if err != nil {
		return state, false
	}
	for _, t := range tasks {
		switch {
		case t.JobID != s.jobID:
		case !ok:
			state, ok = t, true
		default:
			state = state.Merge(t)
		}
	}
	return state, ok
}

// finds says whether a listing has the job. If the answer to the call was lost, the job of
// the URL is taken for it.
func (s *smoke) finds(tasks []teo.Record) bool {
	for _, t := range tasks {
		if s.jobID == "" && target.Identity(t.Target) == target.Identity(s.url) {
			s.jobID = t.JobID
		}
		if s.jobID != "" && t.JobID == s.jobID {
			s.see(t.Status)
			return true
		}
	}
	return false
}

// see keeps a state of the URL that differs from the one before.
func (s *smoke) see(status string) {
	if len(s.seen) == 0 || s.seen[len(s.seen)-1] != status {
		s.seen = append(s.seen, status)
		s.say("%s after the call: %s.", brief(time.Since(s.submitted).Round(time.Second)), status)
	}
}

// reportDelay reports after which time the history showed the job.
func (s *smoke) reportDelay(delay time.Duration) {
	observed := "shown after " + brief(delay.Round(100*time.Millisecond))
	s.say("The history shows the job %s after the call.", brief(delay.Round(100*time.Millisecond)))
	s.judge(factDelay, delay <= s.listingDelay, observed, "set --listing-delay="+brief(enough(delay)))
}

// reportHidden reports what the history did not show. err is the latest error of a read.
func (s *smoke) reportHidden(err error) {
	waited := time.Since(s.submitted)
	switch {
	case s.jobID == "":
		s.skip(factDelay, "the answer to the call was lost, and the call may not have been executed")
	case s.inWindow > 0:
		s.reportDelay(s.inWindow)
		s.differ(factJobID, "a window shows the job and the filter does not", noFlag)
	case s.byID > 0:
		s.differ(factDelay, fmt.Sprintf("the filter job-id shows the job after %s, and the window of the call does not", brief(s.byID.Round(100*time.Millisecond))), noFlag)
	case err != nil && teo.Code(err) != "":
		s.skip(factDelay, unanswered(err))
	case waited > s.listingDelay:
		s.differ(factDelay, "not shown after "+brief(waited.Round(time.Second)), "set --listing-delay to more than that")
	}
}

// enough returns a delay with room to spare, in a round number of seconds.
func enough(delay time.Duration) time.Duration {
	return (2*delay + 10*time.Second - 1).Truncate(10 * time.Second)
}

// awaitOutcome reads the job until it ends, and reports the outcome.
func (s *smoke) awaitOutcome(ctx context.Context) {
	for {
		if t, ok := s.readState(ctx); ok {
			s.see(t.Status)
			if t.Ended() {
				s.finished, s.success = true, t.Status == teo.StatusSuccess
				s.reportOutcome(t)
				return
			}
		}
		if !pause(ctx, s.pollInterval) {
			s.reportUnfinished()
			return
		}
	}
}

func (s *smoke) reportOutcome(t teo.Record) {
	observed := strings.Join(s.seen, ", then ")
	if took := t.UpdateTime.Sub(t.CreateTime); took > 0 {
		observed += fmt.Sprintf("; %s from CreateTime to UpdateTime", brief(took))
	}
	if s.success {
		s.assumed(factOutcome, observed)
		return
	}
	s.differ(factOutcome, strings.TrimSpace(observed+" "+t.FailType), "see the origin and the URL; docs/troubleshooting.md has the states")
	s.say("EdgeOne says: %s %s", t.FailType, t.FailMessage)
}

// reportUnfinished reports states that are not final: only processing is known to be.
func (s *smoke) reportUnfinished() {
	for _, status := range s.seen {
		if status != teo.StatusProcessing {
			s.differ(factOutcome, strings.Join(s.seen, ", then "), noFlag)
			return
		}
	}
	s.skip(factOutcome, "the run ended before")
}

// probeCost compares the quota with the one before the submission. Other programs may
// have used some of it.
func (s *smoke) probeCost(ctx context.Context) {
	if !s.hasQuota {
		s.skip(factCost, "the quota cannot be read")
		return
	}
	quota, err := s.client.DescribeContentQuota(ctx, s.creds, s.zone)
	if err != nil {
		s.skip(factCost, unanswered(err))
		return
	}
	switch cost := s.quota.DailyAvailable - quota.Prefetch.DailyAvailable; {
	case cost == 1:
		s.assumed(factCost, "1")
	case cost == 0:
		s.differ(factCost, "0: DailyAvailable is the same after the call", noFlag)
	case cost < 0:
		s.skip(factCost, "the daily quota returned during the run")
	default:
		s.skip(factCost, fmt.Sprintf("%d URLs were used during the run, so other programs prefetch in this zone", cost))
	}
}
