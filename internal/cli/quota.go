package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/account"
)

// QuotaResult is what quota -o json prints.
type QuotaResult struct {
	OutputHeader `json:",inline"`
	Accounts     []AccountQuota `json:"accounts"`
	// HeldTasks are the tasks that wait for quota.
	HeldTasks []HeldTask `json:"heldTasks"`
}

// AccountQuota is the use of an EdgeOneAccount today.
type AccountQuota struct {
	Name string `json:"name"`
	// Ready and Reason are those of the condition Ready.
	Ready  string `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// DayStartTime is when today began. It is absent if the operator has written no numbers yet.
	DayStartTime *time.Time `json:"dayStartTime,omitempty"`
	// Budget is the budget of the account: spec.limits.dailyURLs.
	Budget DailyQuota `json:"budget"`
	// NamespaceBudget is the budget of the namespace in the account, if there is one.
	NamespaceBudget *DailyQuota `json:"namespaceBudget,omitempty"`
	// Zones are EdgeOne's quotas of zones.
	Zones []ZoneQuota `json:"zones"`
}

// DailyQuota is a number of URLs for a day. What is unknown or not limited is absent.
type DailyQuota struct {
	Quota *int32 `json:"quota,omitempty"`
	Left  *int32 `json:"left,omitempty"`
	Used  *int32 `json:"used,omitempty"`
}

// ZoneQuota is the quota of a zone.
type ZoneQuota struct {
	ID         string `json:"id"`
	DailyQuota `json:",inline"`
}

func newQuotaCommand(env *environment) *cobra.Command {
	var output outputFlag
	var allNamespaces bool
	cmd := &cobra.Command{
		Use:   "quota [ACCOUNT...]",
		Short: "Show the quotas of accounts and zones, and the tasks that wait for them",
		Long: `Show the quotas of EdgeOneAccounts and their zones today, and the tasks of the namespace that wait for
quota. The numbers are those that the operator has read from EdgeOne and counted. It publishes no quotas
for its own key and for the Secrets of tasks: of these, only the tasks that wait are shown.`,
		Example: `  # All accounts, and the waiting tasks of all namespaces
  kubectl teo-prefetch quota -A`,
		ValidArgsFunction: env.completeAccounts,
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := output.validate(); err != nil {
				return err
			}
			namespace, err := env.namespace()
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			result := QuotaResult{OutputHeader: newOutputHeader("QuotaResult"), HeldTasks: []HeldTask{}}
			if result.Accounts, err = env.readQuotas(cmd.Context(), c, names, namespace); err != nil {
				return err
			}
			if !output.isStructured() { // the tasks may take a while
				if err := env.printQuotas(result.Accounts, namespace); err != nil {
					return err
				}
			}
			if allNamespaces {
				namespace = ""
			}
			if result.HeldTasks, err = env.readHeldTasks(cmd.Context(), namespace); err != nil {
				return err
			}
			if output.isStructured() {
				return output.print(env.Out, result)
			}
			return env.printHeldTasks(result.HeldTasks, namespace)
		},
	}
	cmd.Flags().BoolVarP(&allNamespaces, "all-namespaces", "A", false, "Show the waiting tasks of all namespaces")
	output.addTo(cmd)
	return cmd
}

// readQuotas reads the named accounts, or all. Users who may not read accounts see none.
func (e *environment) readQuotas(ctx context.Context, c client.Client, names []string, namespace string) ([]AccountQuota, error) {
	quotas := []AccountQuota{}
	for _, name := range names {
		read := &v1alpha1.EdgeOneAccount{}
		err := c.Get(ctx, client.ObjectKey{Name: name}, read)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("there is no EdgeOneAccount %q: check the name", name)
		}
		if err != nil {
			return nil, err
		}
		quotas = append(quotas, quotaOf(account.AdvanceDay(read, e.now()), namespace))
	}
	if len(names) > 0 {
		return quotas, nil
	}
	err := listPages(ctx, c, &v1alpha1.EdgeOneAccountList{}, func(page *v1alpha1.EdgeOneAccountList) {
		for i := range page.Items {
			quotas = append(quotas, quotaOf(account.AdvanceDay(&page.Items[i], e.now()), namespace))
		}
	})
	switch {
	case apierrors.IsForbidden(err):
		_ = printLine(e.ErrOut, "You may not list EdgeOneAccounts, so no quotas are shown: name your account, or ask who manages it.")
		return quotas, nil
	case meta.IsNoMatchError(err):
		return quotas, errors.New("the cluster has no EdgeOneAccounts: install the operator first, see docs/install.md")
	case err == nil && len(quotas) == 0:
		_ = printLine(e.ErrOut, "There are no EdgeOneAccounts. The operator publishes no quotas for its own key and for Secrets.")
	}
	return quotas, err
}

// quotaOf returns the use of an account on the day of its status.
func quotaOf(a *v1alpha1.EdgeOneAccount, namespace string) AccountQuota {
	limits, status := a.Spec.Limits, &a.Status
	q := AccountQuota{Name: a.Name, Ready: "Unknown", Zones: []ZoneQuota{}, Budget: DailyQuota{Quota: limits.DailyURLs, Left: status.Left, Used: status.Used}}
	if ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady); ready != nil {
		q.Ready, q.Reason = string(ready.Status), ready.Reason
	}
	if !status.DayStartTime.IsZero() {
		start := status.DayStartTime.UTC()
		q.DayStartTime = &start
	}
	if most := limits.DailyURLsPerNamespace; most != nil {
		used := int32(0)
		for _, n := range status.Namespaces {
			if n.Name == namespace && n.Used != nil {
				used = *n.Used
			}
		}
		left := max(0, *most-used)
		q.NamespaceBudget = &DailyQuota{Quota: most, Left: &left, Used: &used}
	}
	for _, zone := range status.Zones {
		q.Zones = append(q.Zones, ZoneQuota{ID: zone.ID, DailyQuota: DailyQuota{Quota: zone.Daily, Left: zone.Left, Used: zone.Used}})
	}
	return q
}

// printQuotas prints the quotas as a table.
func (e *environment) printQuotas(accounts []AccountQuota, namespace string) error {
	if len(accounts) == 0 {
		return nil
	}
	quotas := table{header: []string{"ACCOUNT", "FOR", "QUOTA", "LEFT", "USED", "DAY BEGAN", "READY"}}
	for _, account := range accounts {
		day, ready := "-", account.Ready
		if account.DayStartTime != nil {
			day = account.DayStartTime.Format(time.RFC3339)
		}
		if account.Reason != "" && account.Ready != "True" {
			ready += " (" + account.Reason + ")"
		}
		addRow := func(of string, q DailyQuota) {
			row := []cell{{text: account.Name}, {text: of}, {text: optional(q.Quota)}, {text: optional(q.Left)}, {text: optional(q.Used)}, {text: day}, {text: ready}}
			if q.Left != nil && *q.Left == 0 {
				row[3].color = colorRed
			}
			quotas.rows = append(quotas.rows, row)
		}
		addRow("all zones", account.Budget)
		if account.NamespaceBudget != nil {
			addRow("namespace "+namespace, *account.NamespaceBudget)
		}
		for _, zone := range account.Zones {
			addRow(zone.ID, zone.DailyQuota)
		}
	}
	if err := quotas.print(e.Out, newPainter(e.Out)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.Out) // the second table follows
	return err
}

// optional returns a number, or a dash if it is unknown or not limited.
func optional(n *int32) string {
	if n == nil {
		return "-"
	}
	return strconv.Itoa(int(*n))
}
