package simulator

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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
