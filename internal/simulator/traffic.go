package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Traffic is another program that submits to a zone at a rate. Its jobs fill the
// zone's history. They are not in the ledger and use up no quota: see
// [Config.Rivals] for calls that use up rate.
type Traffic struct {
	ZoneID string `json:"zoneID"`
	// Every is the time from one of its jobs to the next.
	Every time.Duration `json:"every"`
	// URLs is how many URLs a job has (default 1), each URL a new one. Targets are
	// the URLs of every job instead, as they are: also several times the same.
	URLs    int      `json:"urls,omitempty"`
	Targets []string `json:"targets,omitempty"`
	// Duration is how long a URL is processing. Default: as for all; rules
	// concern others' URLs, too.
	Duration time.Duration `json:"duration,omitempty"`
}

func (t Traffic) validate() error {
	if t.ZoneID == "" || t.Every <= 0 || t.URLs < 0 {
		return fmt.Errorf("traffic needs a zoneID and a positive time from one job to the next: %+v", t)
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

// traffic is a Traffic under way.
type traffic struct {
	Traffic
	next time.Time // when it submits next
	jobs int
}

// SetTraffic replaces what other programs submit, from now on. Jobs that they
// have submitted stay.
func (s *Simulator) SetTraffic(all ...Traffic) {
	if err := validateTraffic(all); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addTraffic(time.Now())
	s.setTraffic(all)
}

func (s *Simulator) setTraffic(all []Traffic) {
	s.traffic = nil
	for _, t := range all {
		s.traffic = append(s.traffic, &traffic{Traffic: t, next: time.Now().Add(t.Every)})
	}
}

// addTraffic adds the jobs that were submitted until now. Nobody sees a job
// before the next call, so none has to be added before: no clock has to run. A job
// is listed with the CreateTime that it would have had.
func (s *Simulator) addTraffic(now time.Time) {
	for _, t := range s.traffic {
		for ; !t.next.After(now); t.next = t.next.Add(t.Every) {
			t.jobs++
			urls := t.Targets
			if urls == nil {
				urls = s.foreignURLs(t)
			}
			s.insert(Job{ZoneID: t.ZoneID, URLs: urls, Created: t.next.Add(s.clockOffset), duration: t.Duration})
		}
	}
}

// foreignURLs are new URLs of a host of the zone.
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

// Job is a job of the past, whoever submitted it.
type Job struct {
	// ID is its JobId. Default: a new one.
	ID     string   `json:"id,omitempty"`
	ZoneID string   `json:"zoneID"`
	URLs   []string `json:"urls"`
	// Created is when it was submitted, on EdgeOne's clock. Default: now.
	Created time.Time `json:"created,omitzero"`

	duration time.Duration
}

func (s *Simulator) validateJob(j Job) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones[j.ZoneID] == nil || len(j.URLs) == 0 {
		return fmt.Errorf("a job needs a zone that exists and URLs: %+v", j)
	}
	return nil
}

// AddJob adds a job to a zone's history that no call of this simulator made, and
// that is not in the ledger. Rules decide what becomes of its URLs. It panics if
// there is no such zone.
func (s *Simulator) AddJob(j Job) {
	if err := s.validateJob(j); err != nil {
		panic("simulator: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert(j)
}

// insert puts a job into the history, which is in the order of submission.
func (s *Simulator) insert(added Job) {
	z := s.zones[added.ZoneID]
	if z == nil {
		return
	}
	j := s.newJob(added.URLs[0])
	j.id = cmp.Or(added.ID, j.id)
	if !added.Created.IsZero() {
		skew := j.created.Sub(s.now().UTC().Truncate(time.Second))
		j.created = added.Created.Add(skew).UTC().Truncate(time.Second)
		j.accepted = added.Created.Add(-s.clockOffset)
	}
	for _, url := range added.URLs {
		rule := s.ruleFor(url)
		rule.Duration = cmp.Or(rule.Duration, added.duration)
		host, _ := hostOf(url)
		r := record{zone: z, url: url, host: host}
		s.follow(&r, rule, j.accepted, len(j.records))
		j.records = append(j.records, r)
	}
	s.jobs[j.id] = j
	i := len(s.history) // mostly it is the newest
	for i > 0 && s.history[i-1].accepted.After(j.accepted) {
		i--
	}
	s.history = slices.Insert(s.history, i, j)
}
