package simulator

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

// job is an executed CreatePrefetchTask.
type job struct {
	id       string
	created  time.Time // on EdgeOne's clock, in whole seconds as it is listed
	accepted time.Time // on ours
	records  []record
}

// record is one URL of a job.
type record struct {
	zone                          *zone
	url, host                     string
	status, failType, failMessage string    // in the end
	listedAt, endsAt              time.Time // on our clock; a zero endsAt is never
}

func (r *record) finished(now time.Time) bool { return !r.endsAt.IsZero() && !now.Before(r.endsAt) }

func (r *record) statusAt(now time.Time) string {
	if r.finished(now) {
		return r.status
	}
	return "processing"
}

// failReason is an element of FailedList.
type failReason struct {
	Reason  string
	Targets []string
}

// checkPlans refuses a call that the plan of one of its zones does not include.
func checkPlans(records []record, mode, segments string) *apiError {
	for _, r := range records {
		switch z := r.zone; {
		case len(records) > z.batch():
			return fail("LimitExceeded.BatchQuota", "%d targets exceed the %d that one submission may hold.", len(records), z.batch())
		case mode == "edge" && !z.EdgeMode:
			return badParameter("Mode edge is not enabled for the zone %s.", z.ID)
		case segments == "on" && !z.MediaSegments:
			return badParameter("PrefetchMediaSegments is not enabled for the zone %s.", z.ID)
		}
	}
	return nil
}

// createPrefetchTask checks a call as a whole, sorts its targets into
// accepted and refused ones, charges the accepted and starts their job.
func (s *Simulator) createPrefetchTask(c *call) (map[string]any, *apiError) {
	mode := cmp.Or(c.text("Mode"), "default")
	segments := cmp.Or(c.text("PrefetchMediaSegments"), "off")
	switch {
	case len(c.targets) == 0:
		return nil, fail("MissingParameter", "The request is missing the parameter `Targets`.")
	case mode != "default" && mode != "edge":
		return nil, badParameter("Mode is %q, not default or edge.", mode)
	case segments != "on" && segments != "off":
		return nil, badParameter("PrefetchMediaSegments is %q, not on or off.", segments)
	}
	zones, err := s.zonesOf(c)
	if err != nil {
		return nil, err
	}
	if !c.key.maySend(mode) {
		return nil, fail("UnauthorizedOperation.NoPermission", "The key has no permission for the mode %s.", mode)
	}
	records, err := place(c.targets, zones, c.flag("EncodeUrl"))
	if err != nil {
		return nil, err
	}
	if err := checkPlans(records, mode, segments); err != nil {
		return nil, err
	}

	spoiler := s.spoiling(c.targets)
	if spoiler.Code != "" && !spoiler.Executed {
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}

	j := s.newJob(c.targets[0])
	var failed []failReason
	var accepted, refused []string
	cost := map[*zone]int{}
	extra := map[*zone]int{}
	for _, r := range records {
		rule := s.ruleFor(r.url)
		if rule.Refuse != "" {
			refused = append(refused, r.url)
			failed = addFailed(failed, c.echo(rule.Refuse), r.url)
			continue
		}
		s.follow(&r, rule, j.accepted, len(j.records))
		r.failMessage = c.echo(r.failMessage)
		accepted = append(accepted, r.url)
		j.records = append(j.records, r)
		cost[r.zone]++
		if segments == "on" {
			extra[r.zone] += rule.Segments
		}
	}
	s.renewQuota()
	for z, urls := range cost {
		if left := z.quotaFor(mode); urls > left {
			return nil, fail("LimitExceeded.DailyQuota", "%d targets exceed the %d that are left today.", urls, left)
		}
	}
	for z, urls := range cost {
		z.charge(mode, urls)
		z.charge(mode, min(extra[z], z.quotaFor(mode))) // what is beyond the quota is skipped silently
	}

	if len(accepted) > 0 {
		s.jobs[j.id] = j
		s.history = append(s.history, j)
	} else if s.config.NoJobIDWhenAllRefused {
		j.id = ""
	}
	c.JobID = j.id
	s.ledger = append(s.ledger, Execution{
		Time: s.now(), Account: c.Account, SecretID: c.SecretID, ZoneID: c.ZoneID, JobID: j.id,
		Mode: mode, Headers: c.headers(), MediaSegments: segments == "on", EncodeURL: c.flag("EncodeUrl"),
		Accepted: accepted, Refused: refused, Fetched: fetched(accepted, c.flag("EncodeUrl")),
		SignedAt: c.signedAt, UserAgent: c.header.Get("User-Agent"), RequestID: c.RequestID,
	})
	if spoiler.Code != "" {
		c.Executed = true
		return nil, fail(spoiler.Code, "%s", c.echo(spoiler.Message))
	}
	return map[string]any{"JobId": j.id, "FailedList": failed}, nil
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

// newJob returns a job that is accepted now. Its ID looks like EdgeOne's, say
// 1379afjk91u32h. The ID and the error of CreateTime depend on what was
// submitted before and when, so that a test in virtual time can be repeated.
func (s *Simulator) newJob(firstURL string) *job {
	now := time.Now()
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %s", len(s.history), now.UnixNano(), firstURL))
	id := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:14]
	created := s.now()
	if skew := s.config.CreateTimeSkew; skew > 0 {
		random := rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[16:]), 0))
		created = created.Add(time.Duration(random.Int64N(2*int64(skew)+1)) - skew)
	}
	return &job{id: id, created: created.UTC().Truncate(time.Second), accepted: now}
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

// ruleFor returns the first rule that concerns a URL.
func (s *Simulator) ruleFor(url string) Rule {
	for _, rule := range s.rules {
		if strings.Contains(url, rule.URL) {
			return rule
		}
	}
	return Rule{}
}

// follow decides what becomes of the n-th accepted URL of a job, and when.
func (s *Simulator) follow(r *record, rule Rule, accepted time.Time, n int) {
	r.status, r.failType, r.failMessage = cmp.Or(rule.Status, "success"), rule.FailType, rule.FailMessage
	r.listedAt = accepted.Add(cmp.Or(rule.ListingDelay, s.config.ListingDelay) + time.Duration(n)*s.config.ListingStep)
	if r.status != Never {
		r.endsAt = accepted.Add(max(cmp.Or(rule.Duration, s.config.JobDuration), 0))
	}
}

// Finish ends the targets that contain a text and are still processing, and
// returns how many they were.
func (s *Simulator) Finish(url, status, failType, failMessage string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, n := time.Now(), 0
	for _, j := range s.history {
		for i := range j.records {
			if r := &j.records[i]; !r.finished(now) && strings.Contains(r.url, url) {
				r.status, r.failType, r.failMessage, r.endsAt = status, failType, failMessage, now
				n++
			}
		}
	}
	return n
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

// task is an element of DescribePrefetchTasks' list.
type task struct {
	JobId, Target, Type, Method, Status, CreateTime, UpdateTime, FailType, FailMessage string
}

// lookup is a DescribePrefetchTasks request.
type lookup struct {
	zones      []*zone
	start, end time.Time // both inclusive; zero: no window
	jobID      string
	target     string
	domains    []string
	statuses   []string
}

func (s *Simulator) describePrefetchTasks(c *call) (map[string]any, *apiError) {
	q, err := s.parseLookup(c)
	if err != nil {
		return nil, err
	}
	offset, size := c.integer("Offset", 0), c.integer("Limit", 20)
	if offset < 0 {
		return nil, badParameter("Offset is negative.")
	}
	if size < 1 || size > 1000 {
		return nil, badParameter("Limit is %d, not 1 to 1000.", size)
	}

	jobs := s.history
	if q.jobID != "" && s.rejectedIDs != nil && s.rejectedIDs.MatchString(q.jobID) {
		return nil, badParameter("The job-id %q is not valid.", q.jobID)
	}
	if q.jobID != "" {
		jobs = nil
		if j := s.jobs[q.jobID]; j != nil {
			jobs = []*job{j}
		}
	}
	now, total, tasks := time.Now(), 0, []task{}
	for _, j := range slices.Backward(jobs) {
		if !q.inWindow(j.created) {
			continue
		}
		for i := range j.records {
			r := &j.records[i]
			if !q.matches(r, now) {
				continue
			}
			if total >= offset && len(tasks) < size {
				tasks = append(tasks, j.task(r, now))
			}
			total++
		}
	}
	if most := s.config.MaxTotalCount; most > 0 {
		total = min(total, most)
	}
	return map[string]any{"TotalCount": total, "Tasks": tasks}, nil
}

func (s *Simulator) parseLookup(c *call) (q lookup, err *apiError) {
	if c.ZoneID == "*" && !s.config.WildcardLookups {
		return q, badParameter("ZoneId * is not accepted here.")
	}
	if q.zones, err = s.zonesOf(c); err != nil {
		return q, err
	}
	filters := c.objects("Filters")
	for _, f := range filters {
		name, values := f["Name"].(string), texts(f["Values"])
		single := name == "job-id" || name == "target"
		switch {
		case f["Fuzzy"] == true:
			return q, badParameter("The filter %s cannot be fuzzy.", name)
		case len(values) == 0, len(values) > 20, single && len(values) > 1:
			return q, badParameter("The filter %s has %d values.", name, len(values))
		}
		switch name {
		case "job-id":
			q.jobID = values[0]
		case "target":
			q.target = values[0]
		case "domains":
			q.domains = values
		case "statuses":
			q.statuses = values
		default:
			return q, badParameter("The filter %q does not exist.", name)
		}
	}
	start, end := c.text("StartTime"), c.text("EndTime")
	if start == "" && end == "" && q.jobID != "" {
		return q, nil
	}
	if start == "" || end == "" {
		return q, fail("MissingParameter", "The request needs StartTime and EndTime, or the filter job-id.")
	}
	var bad [2]error
	q.start, bad[0] = time.Parse(time.RFC3339, start)
	q.end, bad[1] = time.Parse(time.RFC3339, end)
	switch {
	case bad[0] != nil || bad[1] != nil:
		return q, badParameter("StartTime or EndTime is not an ISO 8601 time.")
	case q.end.Before(q.start):
		return q, badParameter("EndTime is before StartTime.")
	case s.config.NoFutureWindows && q.end.After(s.now()):
		return q, badParameter("EndTime is in the future.")
	case s.config.MaxWindow > 0 && q.end.Sub(q.start) > s.config.MaxWindow:
		return q, badParameter("The time range exceeds %s.", s.config.MaxWindow)
	}
	return q, nil
}

func (q *lookup) inWindow(t time.Time) bool {
	return q.start.IsZero() || !t.Before(q.start) && !t.After(q.end)
}

func (q *lookup) matches(r *record, now time.Time) bool {
	return !now.Before(r.listedAt) &&
		slices.Contains(q.zones, r.zone) &&
		(q.target == "" || q.target == r.url) &&
		(q.domains == nil || slices.Contains(q.domains, r.host)) &&
		(q.statuses == nil || slices.Contains(q.statuses, r.statusAt(now)))
}

// task returns a record as it is listed.
func (j *job) task(r *record, now time.Time) task {
	t := task{JobId: j.id, Target: r.url, Type: "prefetch_url", Status: r.statusAt(now), CreateTime: j.created.Format(time.RFC3339)}
	t.UpdateTime = t.CreateTime
	if r.finished(now) {
		t.UpdateTime = j.created.Add(r.endsAt.Sub(j.accepted)).Format(time.RFC3339)
		t.FailType, t.FailMessage = r.failType, r.failMessage
	}
	return t
}
