package follow

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Config holds the dependencies and intervals of the Poller. The manager's flags document
// the meaning and the defaults of the intervals.
type Config struct {
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
	RecheckInterval   time.Duration
	SignatureValidity time.Duration
	SettleMargin      time.Duration
	HistoryRetention  time.Duration
	CallTimeout       time.Duration
}
