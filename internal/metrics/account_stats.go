package metrics

import "github.com/prometheus/client_golang/prometheus"

// AccountStats is what the status of an EdgeOneAccount says.
type AccountStats struct {
	IsReady bool
	Reason  string // of the condition Ready; "" if there is none yet
	Used    int    // URLs today
	Limit   int    // spec.limits.dailyURLs; negative if there is none
}

// AccountCollector reports the gauges of EdgeOneAccounts at each scrape, if this process
// leads.
type AccountCollector struct {
	leads    <-chan struct{}
	accounts func() map[string]AccountStats
}

// NewAccountCollector returns a collector. accounts reports the accounts by name.
func NewAccountCollector(leads <-chan struct{}, accounts func() map[string]AccountStats) *AccountCollector {
	return &AccountCollector{leads, accounts}
}

var (
	accountReadyDesc = prometheus.NewDesc("teo_prefetch_account_ready",
		"1 if the condition Ready of an EdgeOneAccount is True, otherwise 0, with the reason of the condition.", []string{"account", "reason"}, nil)
	accountUsedDesc = prometheus.NewDesc("teo_prefetch_account_used_urls",
		"URLs that EdgeOne has accepted today from the tasks of an EdgeOneAccount, as in its status.", []string{"account"}, nil)
	accountLimitDesc = prometheus.NewDesc("teo_prefetch_account_limit_urls",
		"The daily budget of an EdgeOneAccount (spec.limits.dailyURLs). Without a budget, there is no such series.", []string{"account"}, nil)
)

// Describe sends the descriptions of the gauges.
func (*AccountCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{accountReadyDesc, accountUsedDesc, accountLimitDesc} {
		descs <- desc
	}
}

// Collect sends the current values of the gauges.
func (c *AccountCollector) Collect(out chan<- prometheus.Metric) {
	select {
	case <-c.leads:
	default:
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for name, account := range c.accounts() {
		gauge(accountUsedDesc, float64(account.Used), name)
		if account.Limit >= 0 {
			gauge(accountLimitDesc, float64(account.Limit), name)
		}
		switch {
		case account.IsReady:
			gauge(accountReadyDesc, 1, name, account.Reason)
		case account.Reason != "":
			gauge(accountReadyDesc, 0, name, account.Reason)
		}
	}
}
