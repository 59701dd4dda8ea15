package follow

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Config holds the dependencies and intervals of the Poller. The manager's flags document
// the meaning and the defaults of the intervals.
type Config struct {
	Kind        v1alpha1.JobKind // which of EdgeOne's two histories to read
	Tasks       *kube.TaskStore
	Writer      kube.StatusWriter
	Events      *kube.EventReporter
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Jobs        *RecordedJobs
	Runs        *kube.WriteRate           // limits starts of runs and retries
	IsInFlight  func(claimID string) bool // reports whether this process is making the claim's call

	PollInterval      time.Duration
	JobDeadline       time.Duration
	PurgeSettle       time.Duration
	RecheckInterval   time.Duration
	SignatureValidity time.Duration
	SettleMargin      time.Duration
	HistoryRetention  time.Duration
	CallTimeout       time.Duration
}

// history returns the history that the Poller reads.
func (c *Config) history() teo.History {
	if c.Kind == v1alpha1.JobPurge {
		return teo.PurgeHistory
	}
	return teo.PrefetchHistory
}

// claimOf returns the claim of a task that the Poller's history settles, or nil.
func (c *Config) claimOf(task *v1alpha1.PrefetchTask) *v1alpha1.Submission {
	if claim := task.Status.Submission; claim != nil && claim.Kind == c.Kind {
		return claim
	}
	return nil
}

// isOpen reports whether the Poller's history has outcomes of a job that are missing.
func (c *Config) isOpen(job v1alpha1.Job) bool {
	if c.Kind == v1alpha1.JobPurge {
		return taskstate.IsPurgeOpen(job)
	}
	return taskstate.IsJobOpen(job)
}

// followOutcomes returns the transition that records the outcomes of a pass.
func (p *Poller) followOutcomes(seen *taskstate.HistoryRead, isRead bool) taskstate.Transition {
	if p.Kind == v1alpha1.JobPurge {
		return taskstate.FollowPurges(seen, p.outcomeLimits(), time.Now(), isRead)
	}
	return taskstate.FollowJobs(seen, p.outcomeLimits(), time.Now(), isRead)
}
