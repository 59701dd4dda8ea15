package cli

import (
	"context"
	"slices"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// HeldTask is a task that waits for quota.
type HeldTask struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	ZoneID    string `json:"zoneID"`
	// Reason is DailyQuota, BatchQuota (the plan of the zone has no quota) or Budget (of the account).
	Reason string `json:"reason"`
	// Waiting is how many targets are not submitted.
	Waiting int `json:"waiting"`
	// NextAttemptTime is when the quota is expected, as RFC 3339, if it is known.
	NextAttemptTime string `json:"nextAttemptTime,omitempty"`
}

// quotaReasons are the reasons of tasks that wait for quota.
var quotaReasons = []string{v1alpha1.ReasonDailyQuota, v1alpha1.ReasonBatchQuota, v1alpha1.ReasonBudget}

// readHeldTasks reads the tasks that wait for quota.
func (e *environment) readHeldTasks(ctx context.Context, namespace string) ([]HeldTask, error) {
	held := []HeldTask{}
	err := e.readTaskRows(ctx, namespace, "", func(row taskRow) error {
		if !slices.Contains(quotaReasons, row.text("Reason")) {
			return nil
		}
		object, err := row.metadata()
		if err != nil {
			return err
		}
		held = append(held, HeldTask{
			Namespace: object.Namespace, Name: object.Name, ZoneID: row.text("Zone"), Reason: row.text("Reason"),
			Waiting: row.number("Targets") - row.number("Submitted"), NextAttemptTime: row.text("Next attempt"),
		})
		return nil
	})
	return held, err
}

// printHeldTasks prints the tasks that wait for quota as a table.
func (e *environment) printHeldTasks(held []HeldTask, namespace string) error {
	if len(held) == 0 {
		return printLine(e.ErrOut, "No task%s waits for quota.", inNamespace(namespace))
	}
	waiting := table{header: []string{"NAMESPACE", "TASK", "ZONE", "WAITS FOR", "URLS WAITING", "NEXT ATTEMPT"}}
	for _, h := range held {
		waiting.addRow(h.Namespace, h.Name, h.ZoneID, h.Reason, strconv.Itoa(h.Waiting), h.NextAttemptTime)
	}
	return waiting.print(e.Out, newPainter(e.Out))
}
