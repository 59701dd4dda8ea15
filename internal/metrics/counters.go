package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// The counters and histograms. Each process counts what it does itself. docs/metrics.md
// is generated from them (metrics_test.go), so their Help is documentation.
var (
	apiCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "teo_prefetch_api_calls_total",
		Help: "Calls of the EdgeOne API by action and result: OK, or the kind of failure " +
			"(Throttled, Exhausted, Denied, Rejected, Unavailable; Ambiguous if the answer was lost).",
	}, []string{"action", "result"})
	apiDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "teo_prefetch_api_call_duration_seconds",
		Help:    "Duration of calls of the EdgeOne API, by action.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 11),
	}, []string{"action"})
	limiterWait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "teo_prefetch_limiter_wait_seconds",
		Help: "Time for which calls of the EdgeOne API waited for a slot of the limiter, by action. " +
			"Calls of CreatePrefetchTask are claimed up to 0.3 seconds before their slot is free.",
		Buckets: prometheus.ExponentialBuckets(0.005, 2, 11),
	}, []string{"action"})
	callTargets = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "teo_prefetch_call_targets",
		Help:    "Number of URLs in a call of CreatePrefetchTask.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000},
	})
	callTasks = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "teo_prefetch_call_tasks",
		Help:    "Number of tasks in a call of CreatePrefetchTask.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500},
	})
	lostAnswers = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "teo_prefetch_lost_answers_total",
		Help: "Calls of CreatePrefetchTask and CreatePurgeTask whose answer was lost. They are looked up in EdgeOne's history.",
	})
	settledCalls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "teo_prefetch_settled_calls_total",
		Help: "Calls looked up in EdgeOne's history because their answer was lost or their process ended before it came, by outcome: " +
			"found, or not_executed (their targets are submitted again).",
	}, []string{"outcome"})
	runDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "teo_prefetch_run_duration_seconds",
		Help:    "Duration of runs from the first claim (status.startTime) to the last outcome, by the reason of the condition Finished. Retried runs do not count.",
		Buckets: []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600},
	}, []string{"reason"})
)

// Counters are all counters and histograms.
var Counters = []prometheus.Collector{apiCalls, apiDuration, limiterWait, callTargets, callTasks, lostAnswers, settledCalls, runDuration, refreshFailures}

// The values of the label outcome of settledCalls.
const outcomeFound, outcomeNotExecuted = "found", "not_executed"

func init() {
	metrics.Registry.MustRegister(Counters...)
	// Create all series at 0. A series that starts with its first event hides that event
	// from rate().
	for _, action := range teo.Actions() {
		for _, kind := range []teo.Kind{"", teo.Throttled, teo.Exhausted, teo.Denied, teo.Rejected, teo.Unavailable, teo.Ambiguous} {
			apiCalls.WithLabelValues(action, resultLabel(kind))
		}
		limiterWait.WithLabelValues(action)
	}
	settledCalls.WithLabelValues(outcomeFound)
	settledCalls.WithLabelValues(outcomeNotExecuted)
}

// resultLabel returns the label result of a call: its kind, or OK.
func resultLabel(kind teo.Kind) string {
	if kind == "" {
		return "OK"
	}
	return string(kind)
}

// ObserveCall counts a call of the EdgeOne API. It is for teo.Options.Observe.
func ObserveCall(call teo.Call) {
	apiCalls.WithLabelValues(call.Action, resultLabel(call.Kind)).Inc()
	apiDuration.WithLabelValues(call.Action).Observe(call.Duration.Seconds())
}

// ObserveWait measures the wait for a slot. It is for teo.Options.ObserveWait.
func ObserveWait(action string, wait time.Duration) {
	limiterWait.WithLabelValues(action).Observe(wait.Seconds())
}

// ObserveCreate records how many targets and tasks a call of CreatePrefetchTask has.
func ObserveCreate(targets, tasks int) {
	callTargets.Observe(float64(targets))
	callTasks.Observe(float64(tasks))
}

// CountLostAnswer counts a call whose answer was lost.
func CountLostAnswer() { lostAnswers.Inc() }

// CountSettledCall counts a call whose unknown outcome was looked up: EdgeOne's history
// has the call, or EdgeOne did not execute it.
func CountSettledCall(isFound bool) {
	outcome := outcomeNotExecuted
	if isFound {
		outcome = outcomeFound
	}
	settledCalls.WithLabelValues(outcome).Inc()
}

// ObserveRun measures the duration of a run that has ended. It ignores runs with a
// retried job.
func ObserveRun(task *v1alpha1.PrefetchTask, reason string) {
	for i := range task.Status.Jobs {
		if task.Status.Jobs[i].RetriedPositions != "" {
			return
		}
	}
	if task.Status.StartTime.IsZero() {
		return // the status was edited by hand
	}
	runDuration.WithLabelValues(reason).Observe(task.Status.CompletionTime.Sub(task.Status.StartTime.Time).Seconds())
}
