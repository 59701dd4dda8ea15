package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// record is how the history lists the URL.
type record struct {
	target  string
	created time.Time
}

// probeRecords probes what the record of the URL shows, and which reads show it.
func (s *smoke) probeRecords(ctx context.Context) {
	listed, ok := s.listed(ctx)
	if !ok || len(listed) == 0 {
		return
	}
	r := s.judgeRecord(listed[0])
	s.probeTargetFilter(ctx, r)
	if !r.created.IsZero() {
		s.probeClock(r)
		s.probeEnds(ctx, r)
	}
}

// filtered returns the parameters of a read with one filter.
func (s *smoke) filtered(name, value string) map[string]any {
	return map[string]any{"ZoneId": s.zone, "Limit": 1000, "Filters": []any{map[string]any{"Name": name, "Values": []string{value}}}}
}

// listed reads the records of the job, and judges the filter job-id by them.
func (s *smoke) listed(ctx context.Context) (records []rawRecord, ok bool) {
	parameters, byID := s.window(s.signedAt.Add(-clockSkew), s.now()), s.byID > 0
	if byID {
		parameters = s.filtered("job-id", s.jobID)
	}
	answer, err := s.read(ctx, teo.ActionDescribePrefetchTasks, parameters, s.client.ServerTime())
	if err != nil || answer.Error.Code != "" {
		return nil, false
	}
	for _, t := range answer.Tasks {
		if t.JobID == s.jobID {
			records = append(records, t)
		}
	}
	others := len(answer.Tasks) - len(records)
	if byID {
		s.judge(factJobID, len(records) > 0 && others == 0, fmt.Sprintf("lists the job, and %d records of others", others), noFlag)
		s.judge(factRecords, len(records) == 1 && answer.TotalCount == 1, fmt.Sprintf("%d, with a TotalCount of %d", len(records), answer.TotalCount), noFlag)
	}
	return records, true
}

// judgeRecord judges the URL and the times of a record.
func (s *smoke) judgeRecord(t rawRecord) record {
	r := record{target: t.Target}
	if t.Target == target.Encode(s.url) {
		s.assumed(factSpelling, "as it was sent")
	} else {
		s.judge(factSpelling, target.Identity(t.Target) == target.Identity(s.url), "in another spelling", noFlag)
	}
	created, createError := time.Parse(time.RFC3339, t.CreateTime)
	_, updateError := time.Parse(time.RFC3339, t.UpdateTime)
	s.judge(factFormat, createError == nil && (t.UpdateTime == "" || updateError == nil), fmt.Sprintf("%.40q", t.CreateTime), noFlag)
	if createError == nil {
		r.created = created
	}
	return r
}

// probeTargetFilter reads the URL as it is listed, and in another spelling.
func (s *smoke) probeTargetFilter(ctx context.Context, r record) {
	u, err := url.Parse(r.target)
	if err != nil {
		return
	}
	u.Host = strings.ToUpper(u.Host)
	var found [2]string
	for i, spelling := range []string{r.target, u.String()} {
		parameters := s.filtered("target", spelling)
		parameters["StartTime"] = s.signedAt.Add(-time.Minute).UTC().Format(time.RFC3339)
		parameters["EndTime"] = s.now().UTC().Format(time.RFC3339)
		answer, err := s.read(ctx, teo.ActionDescribePrefetchTasks, parameters, s.client.ServerTime())
		switch {
		case err != nil:
			s.skip(factTarget, unanswered(err))
			return
		case answer.Error.Code != "":
			found[i] = answer.outcome()
		case answer.has(s.jobID):
			found[i] = "finds it"
		default:
			found[i] = "does not find it"
		}
	}
	s.note(factTarget, fmt.Sprintf("the listed spelling %s; with the host in upper case %s", found[0], found[1]))
}

// probeClock compares the time of the job with the time of the signature and of the
// answer.
func (s *smoke) probeClock(r record) {
	after := r.created.Sub(s.signedAt)
	observed := brief(after) + " after the signature"
	if after < 0 {
		observed = brief(-after) + " before the signature"
	}
	latest := s.answered
	if latest.IsZero() { // the answer was lost
		latest = s.signedAt.Add(callTimeout)
	} else {
		observed += fmt.Sprintf(", %s from the Date of the answer", brief(r.created.Sub(s.answered)))
	}
	s.judge(factClock, after >= -clockSkew && !r.created.After(latest.Add(clockSkew)), observed, noFlag)
}

// probeEnds reads windows that begin or end in the second of the job.
func (s *smoke) probeEnds(ctx context.Context, r record) {
	for s.now().Before(r.created.Add(2 * time.Second)) { // a later window must not end in the future
		if !pause(ctx, 200*time.Millisecond) {
			return
		}
	}
	c, far := r.created, time.Minute
	var wrong []string
	for _, w := range []struct {
		name       string
		start, end time.Time
		shows      bool
	}{
		{"that is the second of the job", c, c, true},
		{"that begins with it", c, c.Add(time.Second), true},
		{"that ends with it", c.Add(-far), c, true},
		{"that begins after it", c.Add(time.Second), c.Add(2 * time.Second), false},
		{"that ends before it", c.Add(-far), c.Add(-time.Second), false},
	} {
		answer, err := s.read(ctx, teo.ActionDescribePrefetchTasks, s.window(w.start, w.end), s.client.ServerTime())
		switch {
		case err != nil:
			s.skip(factEnds, unanswered(err))
			return
		case answer.Error.Code != "":
			wrong = append(wrong, "a window "+w.name+" is "+answer.outcome())
		case answer.has(s.jobID) != w.shows && w.shows:
			wrong = append(wrong, "a window "+w.name+" does not show it")
		case answer.has(s.jobID) != w.shows:
			wrong = append(wrong, "a window "+w.name+" shows it")
		}
	}
	if len(wrong) == 0 {
		s.assumed(factEnds, "both do")
		return
	}
	s.differ(factEnds, strings.Join(wrong, "; "), noFlag)
}
