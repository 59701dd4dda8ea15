package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

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

// readHeldTasks reads the tasks that wait for quota, page by page. It asks the API server for its
// tables: the tasks themselves have lists of targets, which may be long.
func (e *environment) readHeldTasks(ctx context.Context, namespace string) ([]HeldTask, error) {
	config, err := e.config.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &v1alpha1.GroupVersion, "/apis", clientgoscheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	held := []HeldTask{}
	for next := ""; ; {
		text, err := c.Get().Resource("prefetchtasks").NamespaceIfScoped(namespace, namespace != "").
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
			Param("limit", strconv.Itoa(pageSize)).Param("continue", next).Param("includeObject", string(metav1.IncludeMetadata)).
			DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		page := &metav1.Table{}
		if err := json.Unmarshal(text, page); err != nil {
			return nil, err
		}
		onPage, err := heldTasks(page)
		if err != nil {
			return nil, err
		}
		held = append(held, onPage...)
		if next = page.Continue; next == "" {
			return held, nil
		}
	}
}

// heldTasks returns the tasks of a table that wait for quota.
func heldTasks(page *metav1.Table) (held []HeldTask, err error) {
	column := map[string]int{}
	for i, c := range page.ColumnDefinitions {
		column[c.Name] = i
	}
	for _, row := range page.Rows {
		text := func(name string) string {
			if i, has := column[name]; has && i < len(row.Cells) && row.Cells[i] != nil {
				return strings.TrimSuffix(fmt.Sprint(row.Cells[i]), "<none>")
			}
			return ""
		}
		if !slices.Contains(quotaReasons, text("Reason")) {
			continue
		}
		object := &metav1.PartialObjectMetadata{}
		if err := json.Unmarshal(row.Object.Raw, object); err != nil {
			return nil, err
		}
		total, _ := strconv.Atoi(text("Targets"))
		submitted, _ := strconv.Atoi(text("Submitted"))
		held = append(held, HeldTask{
			Namespace: object.Namespace, Name: object.Name, ZoneID: text("Zone"), Reason: text("Reason"),
			Waiting: total - submitted, NextAttemptTime: text("Next attempt"),
		})
	}
	return held, nil
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
