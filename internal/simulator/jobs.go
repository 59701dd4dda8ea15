package simulator

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// job is an executed call of CreatePrefetchTask or CreatePurgeTask.
type job struct {
	jobKind
	id       string
	created  time.Time // on EdgeOne's clock, in whole seconds, as listed
	accepted time.Time // on the local clock
	records  []record

	clockOffset  time.Duration // EdgeOne's, when the job was accepted
	isHandedOver bool          // the journal says that it was accepted
}

// statusSuccess is the final status of a target that worked.
const statusSuccess = "success"

// record is one target of a job.
type record struct {
	zone                          *zone
	url, host                     string    // a prefix, a host, a tag or a zone instead of the URL, by the type of the job
	status, failType, failMessage string    // the final ones
	listedAt, endsAt              time.Time // on the local clock; a zero endsAt means never

	// A target that isEffective changes the cache, cacheDelay after its end. isTaken says
	// that it did.
	cacheDelay           time.Duration
	isEffective, isTaken bool
}

func (r *record) finished(now time.Time) bool { return !r.endsAt.IsZero() && !now.Before(r.endsAt) }

func (r *record) statusAt(now time.Time) string {
	if r.finished(now) {
		return r.status
	}
	return "processing"
}

// newJob returns a job that is accepted now. Its ID looks like EdgeOne's, for example
// 1379afjk91u32h. The ID and the error of CreateTime depend only on the time, the number
// of earlier jobs and the first target, so a test in virtual time is reproducible. The
// caller holds s.mu.
func (s *Simulator) newJob(kind jobKind, firstTarget string) *job {
	now := time.Now()
	if kind.action == createPurge {
		firstTarget = kind.taskType + " " + firstTarget
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %s", len(s.histories[kind.action]), now.UnixNano(), firstTarget))
	id := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:14]
	created := s.now()
	if skew := s.config.CreateTimeSkew; skew > 0 {
		random := rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[16:]), 0))
		created = created.Add(time.Duration(random.Int64N(2*int64(skew)+1)) - skew)
	}
	return &job{jobKind: kind, id: id, created: created.UTC().Truncate(time.Second), accepted: now, clockOffset: s.clockOffset}
}

// follow decides the outcome of the next target of a job, and when it is listed and ends.
func (s *Simulator) follow(j *job, r *record, rule Rule) {
	duration := s.config.JobDuration
	if j.action == createPurge {
		duration = s.config.PurgeDuration
	}
	r.status, r.failType, r.failMessage = cmp.Or(rule.Status, statusSuccess), rule.FailType, rule.FailMessage
	r.listedAt = j.accepted.Add(cmp.Or(rule.ListingDelay, s.config.ListingDelay) + time.Duration(len(j.records))*s.config.ListingStep)
	r.cacheDelay, r.isEffective = rule.CacheDelay, r.status == statusSuccess || rule.Executed
	if r.status != Never {
		r.endsAt = j.accepted.Add(max(cmp.Or(rule.Duration, duration), 0))
	}
}

// finishing is the body of POST /_simulator/finish.
type finishing struct {
	Action      string `json:"action,omitempty"` // default: CreatePrefetchTask
	URL         string `json:"url"`
	Status      string `json:"status"`
	FailType    string `json:"failType,omitempty"`
	FailMessage string `json:"failMessage,omitempty"`
}

// finished is the answer to POST /_simulator/finish.
type finished struct {
	Finished int `json:"finished"`
}

func (f finishing) validate() error {
	if f.Status == "" {
		return errors.New("a status is needed, such as success")
	}
	return validateRules([]Rule{{Action: f.Action}})
}

// Finish ends the targets of prefetches that contain a text and are still processing. It
// returns their number.
func (s *Simulator) Finish(url, status, failType, failMessage string) int {
	return s.finishTargets(finishing{createPrefetch, url, status, failType, failMessage})
}

// FinishPurges is Finish for the targets of purges.
func (s *Simulator) FinishPurges(target, status, failType, failMessage string) int {
	return s.finishTargets(finishing{createPurge, target, status, failType, failMessage})
}

// finishTargets gives targets that are processing an outcome.
func (s *Simulator) finishTargets(f finishing) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, n := time.Now(), 0
	for _, j := range s.histories[cmp.Or(f.Action, createPrefetch)] {
		for i := range j.records {
			if r := &j.records[i]; !r.finished(now) && strings.Contains(r.url, f.URL) {
				r.status, r.failType, r.failMessage, r.endsAt = f.Status, f.FailType, f.FailMessage, now
				r.isEffective = f.Status == statusSuccess
				n++
			}
		}
	}
	return n
}
