package simulator

import (
	"net/url"
	"slices"
	"strings"
)

// jobKind is what the targets of a job have in common.
type jobKind struct {
	action   string   // that creates the job: createPrefetch or createPurge
	taskType string   // prefetch_url, or the type of the purge
	mode     string   // of a prefetch: default or edge
	method   string   // of a purge: invalidate or delete
	domains  []string // of a purge by tag; nil means all domains
	encode   bool     // EdgeOne encodes the targets as they were sent
}

// The modes of a prefetch.
const (
	modeDefault = "default"
	modeEdge    = "edge"
)

// submission is a call that creates a job and that EdgeOne has not refused as a whole.
type submission struct {
	jobKind
	mediaSegments bool
	records       []record // one for each target
}

// verdict holds the accepted and refused targets of a submission, and their cost.
type verdict struct {
	accepted, refused []string
	failed            []failReason
	cost              map[*zone]int // accepted targets
	extra             map[*zone]int // their media segments
}

// failReason is an element of FailedList.
type failReason struct {
	Reason  string
	Targets []string
}

// submit sorts the targets of a submission into accepted and refused ones, charges quota
// for the accepted targets and starts their job.
func (s *Simulator) submit(c *call, sub submission) (map[string]any, *apiError) {
	if err := sub.checkPlans(); err != nil {
		return nil, err
	}
	spoiler := s.spoiling(sub)
	if spoiler.Code != "" && !spoiler.Executed {
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}
	j := s.newJob(sub.jobKind, sub.records[0].url)
	v := s.sortTargets(c, sub, j)
	s.renewQuota()
	if err := chargeQuotas(v, sub.quotaType()); err != nil {
		return nil, err
	}
	s.startJob(j)
	c.JobID = j.id
	s.ledger = append(s.ledger, Execution{
		Time: s.now(), Account: c.Account, SecretID: c.SecretID, ZoneID: c.ZoneID, JobID: j.id,
		Action: sub.action, Type: sub.taskType, Mode: sub.mode, Method: sub.method, Domains: sub.domains,
		Headers: c.headers(), MediaSegments: sub.mediaSegments, EncodeURL: sub.encode,
		Accepted: v.accepted, Refused: v.refused, Fetched: fetched(v.accepted, sub.encode),
		SignedAt: c.signedAt, UserAgent: c.header.Get("User-Agent"), RequestID: c.RequestID,
	})
	if spoiler.Code != "" {
		c.Executed = true
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}
	return map[string]any{"JobId": j.id, "FailedList": v.failed}, nil
}

// place finds the zone of each target. One invalid target fails the whole call.
func (k jobKind) place(targets []string, zones []*zone) ([]record, *apiError) {
	records := make([]record, 0, len(targets))
	for _, target := range targets {
		sent := target
		if k.encode {
			sent = encodeURL(target)
		}
		host, ok := k.hostOf(sent)
		if !ok {
			return nil, fail("InvalidParameter.Target", "%q is not a target for %s.", target, k.taskType)
		}
		i := slices.IndexFunc(zones, func(z *zone) bool { return z.serves(host) })
		if i < 0 {
			return nil, fail("InvalidParameter.DomainNotFound", "The domain %s does not exist or belongs to another account.", host)
		}
		records = append(records, record{zone: zones[i], url: target, host: host})
	}
	return records, nil
}

// hostOf returns the host of a target, and whether the target is valid.
func (k jobKind) hostOf(target string) (string, bool) {
	if k.taskType == purgeHost {
		return strings.ToLower(target), isPlainHost(target)
	}
	return hostOf(target)
}

// hostOf returns the host of a URL that EdgeOne accepts: an http or https URL without
// white space, and without an asterisk before its query.
func hostOf(target string) (string, bool) {
	path, _, _ := strings.Cut(target, "?")
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		strings.ContainsAny(path, "*") || strings.ContainsAny(target, " \t\r\n") {
		return "", false
	}
	return strings.ToLower(u.Hostname()), true
}

// checkPlans refuses a submission that exceeds the plan of one of its zones.
func (sub submission) checkPlans() *apiError {
	n := len(sub.records)
	for _, r := range sub.records {
		switch limits := r.zone.limits(sub.taskType); {
		case limits.NotAllowed:
			return fail("LimitExceeded.PackNotAllow", "The plan of the zone %s does not have %s.", r.zone.ID, sub.taskType)
		case n > limits.Batch:
			return fail("LimitExceeded.BatchQuota", "%d targets exceed the %d that one submission may hold.", n, limits.Batch)
		}
	}
	return nil
}

// spoiling returns the first rule with a Code that applies to one of the targets, or an
// empty Rule.
func (s *Simulator) spoiling(sub submission) Rule {
	for _, r := range sub.records {
		if rule := s.ruleFor(sub.action, r.url); rule.Code != "" {
			return rule
		}
	}
	return Rule{}
}

// sortTargets adds the accepted targets of a submission to a job, and counts their cost.
func (s *Simulator) sortTargets(c *call, sub submission, j *job) verdict {
	v := verdict{cost: map[*zone]int{}, extra: map[*zone]int{}}
	for _, r := range sub.records {
		rule := s.ruleFor(sub.action, r.url)
		if rule.Refuse != "" {
			v.refused = append(v.refused, r.url)
			v.failed = addFailed(v.failed, c.echo(rule.Refuse), r.url)
			continue
		}
		s.follow(j, &r, rule)
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

// chargeQuotas takes the cost of a submission from the quotas of its zones. If one quota
// is too small, it takes nothing and fails.
func chargeQuotas(v verdict, quotaType string) *apiError {
	for z, urls := range v.cost {
		if left := z.left(quotaType); urls > left {
			return fail("LimitExceeded.DailyQuota", "%d targets exceed the %d that are left today.", urls, left)
		}
	}
	for z, urls := range v.cost {
		z.used[quotaType] += urls
		z.used[quotaType] += min(v.extra[z], z.left(quotaType)) // EdgeOne silently skips media segments beyond the quota
	}
	return nil
}

// startJob adds a job with targets to the history. A job without targets keeps its ID,
// unless the configuration says that EdgeOne returns none.
func (s *Simulator) startJob(j *job) {
	if len(j.records) > 0 {
		s.jobs[j.id] = j
		s.histories[j.action] = append(s.histories[j.action], j)
		s.cache.unsettled = append(s.cache.unsettled, j)
	} else if s.config.NoJobIDWhenAllRefused {
		j.id = ""
	}
}

// addFailed adds a target to the element of FailedList with that reason.
func addFailed(failed []failReason, reason, target string) []failReason {
	i := slices.IndexFunc(failed, func(f failReason) bool { return f.Reason == reason })
	if i < 0 {
		return append(failed, failReason{reason, []string{target}})
	}
	failed[i].Targets = append(failed[i].Targets, target)
	return failed
}

// headers returns the parameter Headers.
func (c *call) headers() []Header {
	var headers []Header
	for _, h := range c.objects("Headers") {
		headers = append(headers, Header{h["Name"].(string), h["Value"].(string)})
	}
	return headers
}
