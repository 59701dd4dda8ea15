package simulator

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

// submission is a CreatePrefetchTask that EdgeOne has not refused as a whole.
type submission struct {
	mode          string // default or edge
	mediaSegments bool
	records       []record // one of each target
}

// verdict says what becomes of the targets of a submission.
type verdict struct {
	accepted, refused []string
	failed            []failReason
	cost              map[*zone]int // accepted URLs
	extra             map[*zone]int // their media segments
}

// failReason is an element of FailedList.
type failReason struct {
	Reason  string
	Targets []string
}

// createPrefetchTask checks a call as a whole, sorts its targets into
// accepted and refused ones, charges the accepted and starts their job.
func (s *Simulator) createPrefetchTask(c *call) (map[string]any, *apiError) {
	sub, err := s.parseSubmission(c)
	if err != nil {
		return nil, err
	}
	spoiler := s.spoiling(c.targets)
	if spoiler.Code != "" && !spoiler.Executed {
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}
	j := s.newJob(c.targets[0])
	v := s.sortTargets(c, sub, j)
	s.renewQuota()
	if err := chargeQuotas(v, sub.mode); err != nil {
		return nil, err
	}
	s.startJob(j)
	c.JobID = j.id
	s.ledger = append(s.ledger, Execution{
		Time: s.now(), Account: c.Account, SecretID: c.SecretID, ZoneID: c.ZoneID, JobID: j.id,
		Mode: sub.mode, Headers: c.headers(), MediaSegments: sub.mediaSegments, EncodeURL: c.flag("EncodeUrl"),
		Accepted: v.accepted, Refused: v.refused, Fetched: fetched(v.accepted, c.flag("EncodeUrl")),
		SignedAt: c.signedAt, UserAgent: c.header.Get("User-Agent"), RequestID: c.RequestID,
	})
	if spoiler.Code != "" {
		c.Executed = true
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}
	return map[string]any{"JobId": j.id, "FailedList": v.failed}, nil
}

// parseSubmission makes the checks that refuse a call as a whole.
func (s *Simulator) parseSubmission(c *call) (submission, *apiError) {
	mode := cmp.Or(c.text("Mode"), "default")
	segments := cmp.Or(c.text("PrefetchMediaSegments"), "off")
	sub := submission{mode: mode, mediaSegments: segments == "on"}
	switch {
	case len(c.targets) == 0:
		return sub, fail("MissingParameter", "The request is missing the parameter `Targets`.")
	case mode != "default" && mode != "edge":
		return sub, badParameter("Mode is %q, not default or edge.", mode)
	case segments != "on" && segments != "off":
		return sub, badParameter("PrefetchMediaSegments is %q, not on or off.", segments)
	}
	zones, err := s.zonesOf(c)
	if err != nil {
		return sub, err
	}
	if !c.key.maySend(mode) {
		return sub, fail("UnauthorizedOperation.NoPermission", "The key has no permission for the mode %s.", mode)
	}
	if sub.records, err = place(c.targets, zones, c.flag("EncodeUrl")); err != nil {
		return sub, err
	}
	return sub, sub.checkPlans()
}

// place finds the zone of each target. One bad target fails the whole call.
func place(targets []string, zones []*zone, encode bool) ([]record, *apiError) {
	records := make([]record, 0, len(targets))
	for _, target := range targets {
		sent := target
		if encode {
			sent = encodeURL(target)
		}
		host, ok := hostOf(sent)
		if !ok {
			return nil, fail("InvalidParameter.Target", "%q is not a URL that can be prefetched.", target)
		}
		i := slices.IndexFunc(zones, func(z *zone) bool { return z.serves(host) })
		if i < 0 {
			return nil, fail("InvalidParameter.DomainNotFound", "The domain %s does not exist or belongs to another account.", host)
		}
		records = append(records, record{zone: zones[i], url: target, host: host})
	}
	return records, nil
}

// hostOf returns the host of a URL that can be prefetched: an http or https
// one without wildcards and spaces.
func hostOf(target string) (string, bool) {
	path, _, _ := strings.Cut(target, "?")
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		strings.ContainsAny(path, "*") || strings.ContainsAny(target, " \t\r\n") {
		return "", false
	}
	return strings.ToLower(u.Hostname()), true
}

// checkPlans refuses a submission that the plan of one of its zones does not include.
func (sub submission) checkPlans() *apiError {
	n := len(sub.records)
	for _, r := range sub.records {
		switch z := r.zone; {
		case n > z.batch():
			return fail("LimitExceeded.BatchQuota", "%d targets exceed the %d that one submission may hold.", n, z.batch())
		case sub.mode == "edge" && !z.EdgeMode:
			return badParameter("Mode edge is not enabled for the zone %s.", z.ID)
		case sub.mediaSegments && !z.MediaSegments:
			return badParameter("PrefetchMediaSegments is not enabled for the zone %s.", z.ID)
		}
	}
	return nil
}

// spoiling returns the rule with a code that concerns one of the URLs, if any.
func (s *Simulator) spoiling(urls []string) Rule {
	for _, url := range urls {
		if rule := s.ruleFor(url); rule.Code != "" {
			return rule
		}
	}
	return Rule{}
}

// sortTargets adds the accepted targets of a submission to a job, and counts what they cost.
func (s *Simulator) sortTargets(c *call, sub submission, j *job) verdict {
	v := verdict{cost: map[*zone]int{}, extra: map[*zone]int{}}
	for _, r := range sub.records {
		rule := s.ruleFor(r.url)
		if rule.Refuse != "" {
			v.refused = append(v.refused, r.url)
			v.failed = addFailed(v.failed, c.echo(rule.Refuse), r.url)
			continue
		}
		s.follow(&r, rule, j.accepted, len(j.records))
		r.failMessage = c.echo(r.failMessage)
		v.accepted = append(v.accepted, r.url)
		j.records = append(j.records, r)
		v.cost[r.zone]++
		if sub.mediaSegments {
			v.extra[r.zone] += rule.Segments
		}
	}
	return v
}

// chargeQuotas takes what a submission costs from the quotas of its zones, or nothing if
// one of them does not have as much.
func chargeQuotas(v verdict, mode string) *apiError {
	for z, urls := range v.cost {
		if left := z.quotaFor(mode); urls > left {
			return fail("LimitExceeded.DailyQuota", "%d targets exceed the %d that are left today.", urls, left)
		}
	}
	for z, urls := range v.cost {
		z.charge(mode, urls)
		z.charge(mode, min(v.extra[z], z.quotaFor(mode))) // what is beyond the quota is skipped silently
	}
	return nil
}

// startJob records a job that has targets. One without any keeps its ID unless EdgeOne
// is configured to give none.
func (s *Simulator) startJob(j *job) {
	if len(j.records) > 0 {
		s.jobs[j.id] = j
		s.history = append(s.history, j)
	} else if s.config.NoJobIDWhenAllRefused {
		j.id = ""
	}
}

// addFailed adds a target to the element of FailedList with its reason.
func addFailed(failed []failReason, reason, target string) []failReason {
	i := slices.IndexFunc(failed, func(f failReason) bool { return f.Reason == reason })
	if i < 0 {
		return append(failed, failReason{reason, []string{target}})
	}
	failed[i].Targets = append(failed[i].Targets, target)
	return failed
}

func (c *call) headers() []Header {
	var headers []Header
	for _, h := range c.objects("Headers") {
		headers = append(headers, Header{h["Name"].(string), h["Value"].(string)})
	}
	return headers
}
