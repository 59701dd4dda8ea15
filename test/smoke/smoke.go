package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	clockSkew   = taskstate.ClockSkew
	callTimeout = 10 * time.Second
	userAgent   = "teo-prefetch-operator/smoke"
)

// neededWindow is the longest window that the operator reads for one lost call: from a
// little before its signature until the history is complete.
func (s *settings) neededWindow() time.Duration {
	return clockSkew + s.signatureValidity + s.listingDelay + 10*time.Second
}

// smoke is one run.
type smoke struct {
	*settings
	out    io.Writer
	client *teo.Client
	wire   *wire
	report

	quota     teo.Quota // before the submission
	hasQuota  bool
	submitted time.Time // on the local clock
	signedAt  time.Time // on EdgeOne's clock
	answered  time.Time // by the Date of the answer; zero if there was none
	jobID     string

	inWindow, byID time.Duration // from the call to the first read that showed the job; 0: none did
	seen           []string      // the states of the URL
}

// runSmoke makes the run and prints its report. It returns an error if nothing was
// prefetched because of the input or the keys.
func runSmoke(ctx context.Context, settings *settings, out io.Writer) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, settings.timeout)
	defer cancel()
	s := &smoke{settings: settings, out: out, wire: newWire(), report: report{facts: newFacts(settings)}}
	s.client, err = teo.NewClient(teo.Options{
		Endpoint: s.endpoint, Timeout: callTimeout, SignatureValidity: s.signatureValidity, UserAgent: userAgent, Transport: s.wire,
	})
	if err != nil {
		return 0, err
	}
	s.say("This reads quota and history of %s at %s, and prefetches %s with one call, which costs 1 URL of the zone's daily quota.",
		s.zone, s.where(), s.shownURL())
	canFollow, err := s.preflight(ctx)
	if err != nil {
		return 0, err
	}
	s.probe(ctx)
	if canFollow && ctx.Err() == nil {
		s.prefetch(ctx)
	}
	s.probeHeaders()
	s.finish(ctx, canFollow)
	if s.hasDifferences() || !s.success {
		return exitDiffers, nil
	}
	return exitOK, nil
}

// say prints a line.
func (s *smoke) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

// where names the EdgeOne of this run.
func (s *smoke) where() string {
	if s.endpoint == "" {
		return teo.DefaultEndpoint
	}
	if u, err := url.Parse(s.endpoint); err == nil {
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return "a simulator"
		}
	}
	return s.endpoint
}

// finish prints the report.
func (s *smoke) finish(ctx context.Context, canFollow bool) {
	s.say("")
	s.print(s.out)
	s.say("")
	s.say("For the section Measurements of docs/edgeone.md:")
	s.say("")
	s.printMarkdown(s.out, s.where(), time.Now())
	s.say("")
	switch {
	case s.success:
		s.say("The URL was prefetched.")
	case !canFollow:
		s.say("Nothing was submitted: the operator could not read the outcome.")
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && !s.finished:
		s.say("The URL has no outcome after %s: EdgeOne may take 30 minutes. Set a longer -timeout (make smoke TIMEOUT=40m).", brief(s.timeout))
	case ctx.Err() != nil && !s.finished:
		s.say("Interrupted.")
	default:
		s.say("The URL was NOT prefetched.")
	}
}

// preflight checks keys, zone and quota before anything else, and whether the history can
// be read in the way in which the operator reads it. Its error is a sentence for the user.
func (s *smoke) preflight(ctx context.Context) (canFollow bool, err error) {
	quota, err := s.client.DescribeContentQuota(ctx, s.creds, s.zone)
	if teo.IsSignatureExpire(err) { // the client has learned EdgeOne's time from this answer
		quota, err = s.client.DescribeContentQuota(ctx, s.creds, s.zone)
	}
	switch {
	case teo.DeniedAccount(err):
		return false, fmt.Errorf("EdgeOne refuses the keys, so nothing was prefetched: %s", sentence(err))
	case teo.IsZoneNotFound(err):
		return false, fmt.Errorf("EdgeOne does not know the zone %s in the account of these keys, so nothing was prefetched: %s", s.zone, sentence(err))
	case errors.Is(err, teo.ErrZeroQuota):
		return false, fmt.Errorf("the plan of the zone %s has no quota for prefetching URLs, so nothing was prefetched", s.zone)
	case errors.Is(err, teo.ErrNoPrefetchQuota):
		s.differ(factQuota, "no quota of the type prefetch_url", "set --batch to the plan's limit of URLs in a call")
	case teo.KindOf(err) == teo.Denied:
		s.skip(factQuota, "the keys may not call teo:DescribeContentQuota ("+teo.Code(err)+")")
	case teo.KindOf(err) == teo.Rejected:
		s.differ(factQuota, "refused with "+teo.Code(err), "set --batch to the plan's limit of URLs in a call")
	case err != nil:
		return false, fmt.Errorf("EdgeOne at %s does not answer, so nothing was prefetched: %s", s.where(), sentence(err))
	case quota.Prefetch.DailyAvailable == 0:
		return false, fmt.Errorf("today's quota of the zone %s, %d URLs, is used up, so nothing was prefetched", s.zone, quota.Prefetch.Daily)
	default:
		s.quota, s.hasQuota = quota.Prefetch, true
		s.assumed(factQuota, fmt.Sprintf("Batch %d, Daily %d, DailyAvailable %d", s.quota.Batch, s.quota.Daily, s.quota.DailyAvailable))
	}
	return s.checkHistory(ctx)
}

// checkHistory reads a page of the history in the way in which the operator reads it.
func (s *smoke) checkHistory(ctx context.Context) (canFollow bool, err error) {
	now := s.now()
	_, err = s.client.FirstRecords(ctx, s.creds, teo.ListRequest{ZoneID: s.zone, StartTime: now.Add(-time.Minute), EndTime: now})
	switch kind := teo.KindOf(err); {
	case err == nil:
		s.assumed(factPage, "1000 are accepted")
		return true, nil
	case teo.DeniedAccount(err):
		return false, fmt.Errorf("EdgeOne refuses the keys, so nothing was prefetched: %s", sentence(err))
	case kind == teo.Denied:
		return false, fmt.Errorf("the keys may not read the history of the zone %s, without which the URL cannot be followed, so nothing was prefetched: %s. "+
			"Allow teo:DescribePrefetchTasks", s.zone, sentence(err))
	case kind == teo.Rejected:
		s.differ(factPage, "refused with "+teo.Code(err), noFlag)
		return false, nil
	}
	return false, fmt.Errorf("EdgeOne at %s does not answer, so nothing was prefetched: %s", s.where(), sentence(err))
}

// now returns EdgeOne's time in whole seconds, the precision of its history.
func (s *smoke) now() time.Time { return s.client.ServerTime().Truncate(time.Second) }

// sentence returns an error as a part of a sentence.
func sentence(err error) string { return strings.TrimSuffix(teo.Message(err), ".") }

// pause waits, or returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
