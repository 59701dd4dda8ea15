package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

var (
	apiCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "teo_prefetch_api_calls_total",
		Help: "Calls of the EdgeOne API by action and kind of failure (OK if there was none).",
	}, []string{"action", "result"})
	apiDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "teo_prefetch_api_call_duration_seconds",
		Help:    "How long calls of the EdgeOne API took.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 11),
	}, []string{"action"})
)

func init() { metrics.Registry.MustRegister(apiCalls, apiDuration) }

// ObserveCall counts a call of the EdgeOne API. It is meant for teo.Options.
func ObserveCall(call teo.Call) {
	result := string(call.Kind)
	if result == "" {
		result = "OK"
	}
	apiCalls.WithLabelValues(call.Action, result).Inc()
	apiDuration.WithLabelValues(call.Action).Observe(call.Duration.Seconds())
}
