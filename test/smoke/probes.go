package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	// unknownZone and unknownJob exist in no account.
	unknownZone = "zone-000000000000"
	unknownJob  = "0000000000000x"
	// ageMargin is how far the age of a signature is from the limit that a read tests:
	// more than the error of the client's estimate of EdgeOne's clock.
	ageMargin = 15 * time.Second
	day       = 24 * time.Hour
)

// probe makes the reads that need no submission.
func (s *smoke) probe(ctx context.Context) {
	for _, step := range []func(context.Context){
		s.probeZone, s.probeParameter, s.probeSignature, s.probeOffset, s.probeWindow, s.probeRetention, s.probeUnknownJob, s.probeWildcard,
	} {
		if ctx.Err() != nil {
			return
		}
		step(ctx)
	}
}

// probeZone reads the quota of a zone that does not exist.
func (s *smoke) probeZone(ctx context.Context) {
	_, err := s.client.DescribeContentQuota(ctx, s.creds, unknownZone)
	if err == nil || teo.Code(err) == "" {
		s.skip(factZone, unanswered(err))
		s.skip(factStatus, "no read was refused")
		return
	}
	isAboutZone := teo.IsZoneNotFound(err) || teo.KindOf(err) == teo.Denied && !teo.DeniedAccount(err)
	s.judge(factZone, isAboutZone, teo.Code(err), noFlag)
	status := s.wire.last().status
	s.judge(factStatus, status == http.StatusOK, fmt.Sprint(status), noFlag)
}

// probeParameter reads the quota with a parameter that does not exist.
func (s *smoke) probeParameter(ctx context.Context) {
	answer, err := s.read(ctx, teo.ActionDescribeContentQuota, map[string]any{"ZoneId": s.zone, "Smoke": "1"}, s.client.ServerTime())
	if err != nil {
		s.skip(factParameter, unanswered(err))
		return
	}
	s.judge(factParameter, answer.Error.Code == "UnknownParameter", answer.outcome(), noFlag)
}

// probeSignature reads the quota with signatures of several ages. The operator sends a
// call until its signature has half of the validity, and counts it as impossible to
// execute after the validity.
func (s *smoke) probeSignature(ctx context.Context) {
	fresh, err := s.acceptsAge(ctx, s.signatureValidity/2)
	if err != nil {
		s.skip(factSignature, unanswered(err))
		return
	}
	if !fresh {
		s.differ(factSignature, "refused after "+brief(s.signatureValidity/2), "set --signature-validity="+brief(s.signatureValidity/2))
		return
	}
	age := s.signatureValidity + ageMargin
	for _, factor := range []time.Duration{1, 2, 3, 6, 12, 24} {
		age = factor*s.signatureValidity + ageMargin
		accepted, err := s.acceptsAge(ctx, age)
		switch {
		case err != nil:
			s.skip(factSignature, unanswered(err))
			return
		case !accepted && factor == 1:
			s.assumed(factSignature, fmt.Sprintf("accepted after %s, refused after %s", brief(s.signatureValidity/2), brief(age)))
			return
		case !accepted:
			s.differ(factSignature, "refused only after "+brief(age), "set --signature-validity="+brief(age))
			return
		}
	}
	s.differ(factSignature, "still accepted after "+brief(age), noFlag)
}

// acceptsAge says whether EdgeOne accepts a read with a signature of that age.
func (s *smoke) acceptsAge(ctx context.Context, age time.Duration) (bool, error) {
	answer, err := s.read(ctx, teo.ActionDescribePrefetchTasks, s.window(s.now().Add(-time.Minute), s.now()), s.client.ServerTime().Add(-age))
	switch code := answer.Error.Code; {
	case err != nil:
		return false, err
	case code == "AuthFailure.SignatureExpire":
		return false, nil
	case code != "":
		return false, errors.New(answer.outcome())
	}
	return true, nil
}

// window returns the parameters of a read of the history from start to end.
func (s *smoke) window(start, end time.Time) map[string]any {
	return map[string]any{
		"ZoneId": s.zone, "StartTime": start.UTC().Format(time.RFC3339), "EndTime": end.UTC().Format(time.RFC3339), "Limit": 1000,
	}
}

// probeOffset reads a page far behind the end of the history.
func (s *smoke) probeOffset(ctx context.Context) {
	now := s.now()
	parameters := s.window(now.Add(-time.Hour), now)
	parameters["Offset"] = 100_000
	answer, err := s.read(ctx, teo.ActionDescribePrefetchTasks, parameters, s.client.ServerTime())
	code := answer.Error.Code
	switch {
	case err != nil:
		s.skip(factOffset, unanswered(err))
	case code == "":
		s.judge(factOffset, len(answer.Tasks) == 0, fmt.Sprintf("%d records at offset 100000", len(answer.Tasks)), noFlag)
	default:
		s.judge(factOffset, strings.HasPrefix(code, "InvalidParameter"), answer.outcome(), noFlag)
	}
}

// probeWindow finds the longest window of a list that EdgeOne accepts.
func (s *smoke) probeWindow(ctx context.Context) {
	now := s.now()
	for _, length := range []time.Duration{31 * day, 7 * day, day, time.Hour, s.neededWindow()} {
		_, err := s.client.FirstRecords(ctx, s.creds, teo.ListRequest{ZoneID: s.zone, StartTime: now.Add(-length), EndTime: now})
		switch {
		case err == nil:
			s.assumed(factWindow, brief(length)+" is accepted")
			return
		case teo.KindOf(err) != teo.Rejected:
			s.skip(factWindow, unanswered(err))
			return
		case length == s.neededWindow():
			s.differ(factWindow, brief(length)+" is refused with "+teo.Code(err), noFlag)
		}
	}
}

// probeRetention looks for records that are older than the retention. Without such
// records it shows nothing: the zone may have had no calls then.
func (s *smoke) probeRetention(ctx context.Context) {
	end := s.now().Add(-s.historyRetention)
	for _, length := range []time.Duration{27 * day, 6 * day, day, time.Hour} {
		page, err := s.client.FirstRecords(ctx, s.creds, teo.ListRequest{ZoneID: s.zone, StartTime: end.Add(-length), EndTime: end})
		switch {
		case teo.KindOf(err) == teo.Rejected:
			continue
		case err != nil:
			s.skip(factRetention, unanswered(err))
			return
		case len(page.Records) == 0:
			s.skip(factRetention, fmt.Sprintf("the history has no call that is older than %[1]s; run this again after %[1]s (--history-retention)", brief(s.historyRetention)))
			return
		}
		oldest := slices.MinFunc(page.Records, func(a, b teo.Record) int { return a.CreateTime.Compare(b.CreateTime) })
		age := s.now().Sub(oldest.CreateTime)
		s.judge(factRetention, !oldest.CreateTime.IsZero() && age >= s.historyRetention,
			fmt.Sprintf("a call of %s is there, %.1f days old", oldest.CreateTime.Format(time.DateOnly), age.Hours()/24), noFlag)
		return
	}
	s.skip(factRetention, "EdgeOne refuses a window that is older than "+brief(s.historyRetention)+" (--history-retention)")
}

// probeUnknownJob reads a job that does not exist.
func (s *smoke) probeUnknownJob(ctx context.Context) {
	page, err := s.client.FirstRecords(ctx, s.creds, teo.ListRequest{ZoneID: s.zone, JobID: unknownJob})
	switch {
	case err == nil:
		s.judge(factUnknownJob, len(page.Records) == 0, fmt.Sprintf("a list of %d", len(page.Records)), noFlag)
	case teo.Code(err) == "":
		s.skip(factUnknownJob, unanswered(err))
	default:
		s.judge(factUnknownJob, teo.KindOf(err) == teo.Rejected, "refused with "+teo.Code(err), noFlag)
	}
}

// probeWildcard reads the history of all zones of the account.
func (s *smoke) probeWildcard(ctx context.Context) {
	now := s.now()
	_, err := s.client.FirstRecords(ctx, s.creds, teo.ListRequest{ZoneID: "*", StartTime: now.Add(-time.Minute), EndTime: now})
	switch {
	case err == nil:
		s.assumed(factWildcard, "accepted")
	case teo.Code(err) == "":
		s.skip(factWildcard, unanswered(err))
	default:
		s.judge(factWildcard, teo.IsReadRefused(err), "refused with "+teo.Code(err), noFlag)
	}
}

// probeHeaders looks at the headers of all answers of the run.
func (s *smoke) probeHeaders() {
	answers := s.wire.all()
	if len(answers) == 0 {
		return
	}
	var rates []string
	dated := 0
	for _, a := range answers {
		if _, err := http.ParseTime(a.header.Get("Date")); err == nil {
			dated++
		}
		for name := range a.header {
			if lower := strings.ToLower(name); strings.Contains(lower, "rate") || strings.Contains(lower, "retry-after") {
				rates = append(rates, name)
			}
		}
	}
	slices.Sort(rates)
	if rates = slices.Compact(rates); len(rates) == 0 {
		s.assumed(factRateHeader, fmt.Sprintf("none in %d answers", len(answers)))
	} else {
		s.note(factRateHeader, strings.Join(rates, ", "))
	}
	s.judge(factDate, dated == len(answers), fmt.Sprintf("in %d of %d answers; %s", dated, len(answers), s.localClock()), noFlag)
}

// localClock says how far this machine's clock is from EdgeOne's. The operator does not
// depend on it.
func (s *smoke) localClock() string {
	a := s.wire.last()
	date, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return "no time is known"
	}
	// The server wrote the Date, cut to a second, between sending and receiving.
	ahead := a.sent.Add(a.received.Sub(a.sent) / 2).Sub(date.Add(time.Second / 2)).Round(time.Second)
	switch {
	case ahead.Abs() <= time.Second:
		return "the clock here agrees"
	case ahead > 0:
		return fmt.Sprintf("the clock here is %s ahead", brief(ahead))
	}
	return fmt.Sprintf("the clock here is %s behind", brief(-ahead))
}

// unanswered says why a read shows nothing.
func unanswered(err error) string {
	var e *teo.Error
	switch {
	case err == nil:
		return "EdgeOne accepted the read"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "the run ended before"
	case errors.As(err, &e):
		return sentence(err)
	}
	return err.Error()
}
