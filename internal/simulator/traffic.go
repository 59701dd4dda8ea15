package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Traffic is another program that prefetches or purges at regular intervals. Its jobs
// fill the zone's history. They are not in the ledger and use no quota. For programs that
// use up the rate, see [Config.Rivals].
type Traffic struct {
	ZoneID string `json:"zoneID"`
	// Every is the time between two of its jobs.
	Every time.Duration `json:"every"`
	// URLs is how many URLs a job has (default 1); each URL is new. If Targets is set,
	// every job has exactly these URLs instead. Targets may list a URL several times.
	URLs    int      `json:"urls,omitempty"`
	Targets []string `json:"targets,omitempty"`
	// Duration is how long a URL is processing. Default: JobDuration of the Config. Rules
	// also apply to these URLs, and the Duration of a Rule takes precedence.
	Duration time.Duration `json:"duration,omitempty"`
	// Type and Method are those of a Job: another program may purge too.
	Type   string `json:"type,omitempty"`
	Method string `json:"method,omitempty"`
}

func (t Traffic) validate() error {
	if t.ZoneID == "" || t.Every <= 0 || t.URLs < 0 {
		return fmt.Errorf("traffic needs a zoneID and a positive time from one job to the next: %+v", t)
	}
	return validateKind(t.Type, t.Method)
}

// validateKind checks the type of a job and its method.
func validateKind(taskType, method string) error {
	isPurge := slices.Contains(purgeTypes, taskType)
	if taskType != "" && taskType != prefetchURL && !isPurge {
		return fmt.Errorf("the type of a job is %q, not %s or one of %s", taskType, prefetchURL, strings.Join(purgeTypes, ", "))
	}
	if method != "" && (!isPurge || method != methodInvalidate && method != methodDelete) {
		return fmt.Errorf("the method of a job is %q; a purge has %s or %s", method, methodInvalidate, methodDelete)
	}
	return nil
}

func validateTraffic(traffic []Traffic) error {
	var wrong []error
	for _, t := range traffic {
		wrong = append(wrong, t.validate())
	}
	return errors.Join(wrong...)
}

// traffic is the state of a Traffic.
type traffic struct {
	Traffic
	next time.Time // when it submits next
	jobs int
}

// SetTraffic replaces the traffic of other programs from now on. Jobs that they have
// submitted stay. It panics if an element is not valid.
func (s *Simulator) SetTraffic(all ...Traffic) {
	if err := validateTraffic(all); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addTraffic(time.Now())
	s.setTraffic(all)
}

// setTraffic is SetTraffic for callers that hold s.mu.
func (s *Simulator) setTraffic(all []Traffic) {
	s.traffic = nil
	for _, t := range all {
		s.traffic = append(s.traffic, &traffic{Traffic: t, next: time.Now().Add(t.Every)})
	}
}

// addTraffic adds the jobs that were due until now. A job becomes visible only with the
// next call, so it is sufficient to add jobs before each call, without a timer. Each job
// has the CreateTime at which it was due. The caller holds s.mu.
func (s *Simulator) addTraffic(now time.Time) {
	for _, t := range s.traffic {
		for ; !t.next.After(now); t.next = t.next.Add(t.Every) {
			t.jobs++
			urls := t.Targets
			if urls == nil {
				urls = s.foreignURLs(t)
			}
			s.insert(Job{ZoneID: t.ZoneID, URLs: urls, Created: t.next.Add(s.clockOffset), Type: t.Type, Method: t.Method, duration: t.Duration})
		}
	}
}

// foreignURLs returns new URLs on the zone's first domain.
func (s *Simulator) foreignURLs(t *traffic) []string {
	host := "foreign.invalid"
	if z := s.zones[t.ZoneID]; z != nil && len(z.Domains) > 0 {
		host = z.Domains[0]
	}
	urls := make([]string, max(t.URLs, 1))
	for i := range urls {
		urls[i] = fmt.Sprintf("https://%s/foreign/%d/%d", host, t.jobs, i)
	}
	return urls
}

// Job is a job that another program submitted.
type Job struct {
	// ID is its JobId. Default: a new one.
	ID     string   `json:"id,omitempty"`
	ZoneID string   `json:"zoneID"`
	URLs   []string `json:"urls"`
	// Created is when the job was submitted, on EdgeOne's clock. Default: now.
	Created time.Time `json:"created,omitzero"`
	// Type is prefetch_url (default) or a type of purge; then, URLs are targets of this
	// type. Method is the method of the purge. Default: invalidate.
	Type   string `json:"type,omitempty"`
	Method string `json:"method,omitempty"`

	duration time.Duration
}

// validateJob checks that the zone exists, and that the job has URLs.
func (s *Simulator) validateJob(j Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones[j.ZoneID] == nil || len(j.URLs) == 0 {
		return fmt.Errorf("a job needs a zone that exists and URLs: %+v", j)
	}
	return validateKind(j.Type, j.Method)
}

// kind returns what the targets of the job have in common.
func (j Job) kind() jobKind {
	if j.Type == "" || j.Type == prefetchURL {
		return jobKind{action: createPrefetch, taskType: prefetchURL, mode: modeDefault}
	}
	return jobKind{action: createPurge, taskType: j.Type, method: purgeMethod(j.Type, cmp.Or(j.Method, methodInvalidate))}
}

// AddJob adds a job to a zone's history. No call to this simulator made the job, and it
// is not in the ledger. Rules decide the outcome of its URLs. AddJob panics if the zone
// does not exist, or if the job has no URLs.
func (s *Simulator) AddJob(j Job) {
	if err := s.validateJob(j); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(j)
}

// insert adds a job to the history, which is in the order of submission. It ignores a job
// of an unknown zone. The caller holds s.mu.
func (s *Simulator) insert(added Job) {
	z := s.zones[added.ZoneID]
	if z == nil {
		return
	}
	j := s.newJob(added.kind(), added.URLs[0])
	j.id = cmp.Or(added.ID, j.id)
	if !added.Created.IsZero() {
		skew := j.created.Sub(s.now().UTC().Truncate(time.Second))
		j.created = added.Created.Add(skew).UTC().Truncate(time.Second)
		j.accepted = added.Created.Add(-s.clockOffset)
	}
	for _, url := range added.URLs {
		rule := s.ruleFor(j.action, url)
		rule.Duration = cmp.Or(rule.Duration, added.duration)
		r := record{zone: z, url: url}
		if j.taskType != purgeAll && j.taskType != purgeCacheTag {
			r.host, _ = j.hostOf(url)
		}
		s.follow(j, &r, rule)
		j.records = append(j.records, r)
	}
	s.jobs[j.id] = j
	history := s.histories[j.action]
	i := len(history) // the job is usually the newest
	for i > 0 && history[i-1].accepted.After(j.accepted) {
		i--
	}
	s.histories[j.action] = slices.Insert(history, i, j)
	s.cache.unsettled = append(s.cache.unsettled, j)
}
