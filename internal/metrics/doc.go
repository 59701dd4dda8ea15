// Package metrics has the operator's own metrics.
//
//   - counters.go: counters and histograms of what this process did. Each process counts
//     for itself.
//   - target_counter.go: a counter of URLs by zone and outcome.
//   - collector.go: gauges of the current state. Only the leader reports them.
//   - zone_stats.go: the state of one zone, for the gauges.
//   - account_stats.go: gauges of EdgeOneAccounts.
//   - task_counter.go: the number of tasks in the cache by reason, updated with each
//     event.
//
// The package does not import the controllers. They pass functions that report their
// state to the collector. The Help texts are documentation: docs/metrics.md is generated
// from them.
package metrics
