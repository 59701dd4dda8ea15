// Package metrics has the operator's own metrics.
//
//   - counters.go: what this process did. Each process counts for itself.
//   - collector.go: how things stand, as gauges. Only the leader reports them.
//   - zone_stats.go: what the gauges say of one zone.
//   - task_counter.go: tasks in the cache by reason, counted as they change.
//
// The package does not know the controllers: they hand the collector functions that report
// their state. The Help texts are documentation: docs/metrics.md is made from them.
package metrics
