package taskstate

import "github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"

// UpgradeStatus moves what a former version of the operator wrote under other names to the
// present fields of the status. If a status has both, the present field counts. A finished
// task is never written again, so former fields can be as old as the task.
func UpgradeStatus(s *v1alpha1.PrefetchTaskStatus) {
	moveField(&s.FormerRefusedTargets, &s.RefusedPositions)
	for i := range s.Jobs {
		moveField(&s.Jobs[i].FormerTargets, &s.Jobs[i].Positions)
		moveField(&s.Jobs[i].FormerRetried, &s.Jobs[i].RetriedPositions)
	}
	if s.Submission != nil {
		moveField(&s.Submission.FormerTargets, &s.Submission.Positions)
	}
}

// moveField moves the text of a former field to the present one, unless that has text.
func moveField(former, present *string) {
	if *present == "" {
		*present = *former
	}
	*former = ""
}
