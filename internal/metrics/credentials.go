package metrics

import (
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var refreshFailures = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "teo_prefetch_credentials_refresh_failures_total",
	Help: "Failed attempts to get keys of a role, by EdgeOneAccount; the role of the operator has an empty account. The keys at hand stay in use until they expire.",
}, []string{"account"})

// CredentialsExpiry reports when the keys of roles expire. It reports nothing in a process
// that has no such keys.
var CredentialsExpiry = &credentialsExpiry{at: map[string]time.Time{}}

type credentialsExpiry struct {
	mu sync.Mutex
	at map[string]time.Time // by account; the operator's own role has ""
}

var expiryDesc = prometheus.NewDesc("teo_prefetch_credentials_expiry_seconds",
	"Time until the keys of a role expire, by EdgeOneAccount; the role of the operator has an empty account. Negative once they have expired. "+
		"Without a role, there is no such series.", []string{"account"}, nil)

// Describe sends the description of the gauge.
func (*credentialsExpiry) Describe(descs chan<- *prometheus.Desc) { descs <- expiryDesc }

// Collect sends the current values of the gauge.
func (c *credentialsExpiry) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	at := maps.Clone(c.at)
	c.mu.Unlock()
	for account, expires := range at {
		out <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, time.Until(expires).Seconds(), account)
	}
}

func init() { metrics.Registry.MustRegister(CredentialsExpiry) }

// ObserveCredentials records a refresh of the keys of a role: of an EdgeOneAccount, or of
// the operator if account is "". expires is zero if there have never been any keys.
func ObserveCredentials(account string, expires time.Time, err error) {
	failures := refreshFailures.WithLabelValues(account) // 0 at first, so that rate() sees the first failure
	if err != nil {
		failures.Inc()
	}
	if expires.IsZero() {
		return
	}
	CredentialsExpiry.mu.Lock()
	defer CredentialsExpiry.mu.Unlock()
	CredentialsExpiry.at[account] = expires
}

// ForgetCredentials ends the series of an EdgeOneAccount that no longer has the role.
func ForgetCredentials(account string) {
	refreshFailures.DeleteLabelValues(account)
	CredentialsExpiry.mu.Lock()
	defer CredentialsExpiry.mu.Unlock()
	delete(CredentialsExpiry.at, account)
}
