package teo

import "slices"

// The actions, by EdgeOne's names. They are keys of limiters and labels of metrics.
const (
	ActionCreatePrefetchTask    = "CreatePrefetchTask"
	ActionDescribePrefetchTasks = "DescribePrefetchTasks"
	ActionCreatePurgeTask       = "CreatePurgeTask"
	ActionDescribePurgeTasks    = "DescribePurgeTasks"
	ActionDescribeContentQuota  = "DescribeContentQuota"
)

// actions are all actions that the client can call.
var actions = [...]string{
	ActionCreatePrefetchTask, ActionDescribePrefetchTasks, ActionCreatePurgeTask, ActionDescribePurgeTasks, ActionDescribeContentQuota,
}

// Actions returns all actions that the client can call.
func Actions() []string { return slices.Clone(actions[:]) }

// isCreate says whether an action starts a job. The other actions have no effect.
func isCreate(action string) bool {
	return action == ActionCreatePrefetchTask || action == ActionCreatePurgeTask
}
