package follow

import (
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/kube"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Config is what the Poller needs. See the manager's flags for the meaning and the
// defaults of its intervals.
type Config struct {
	Tasks       *kube.TaskStore
	Writer      kube.StatusWriter
	Events      *kube.EventReporter
	EdgeOne     *teo.Client
	Credentials *credentials.Reader
	Jobs        *RecordedJobs
	Runs        *kube.WriteRate           // starts of runs and retries
	IsInFlight  func(claimID string) bool // whether this process is making the claim's call

	PollInterval      time.Duration
	JobDeadline       time.Duration
	RecheckInterval   time.Duration
	SignatureValidity time.Duration
	SettleMargin      time.Duration
	HistoryRetention  time.Duration
	CallTimeout       time.Duration
}
