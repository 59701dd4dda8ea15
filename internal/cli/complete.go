package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

const (
	// completionTimeout bounds how long a shell waits for a completion.
	completionTimeout = 3 * time.Second
	// maxCompletions is how many names a shell gets, and at most a page more.
	maxCompletions = 500
)

// completeTasks completes names of tasks in the namespace. Names that are there already are left out.
func (e *environment) completeTasks(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	namespace, err := e.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := e.completeNames(cmd, toComplete, newTaskMetadataList(), client.InNamespace(namespace))
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) }), cobra.ShellCompDirectiveNoFileComp
}

// completeTask completes the name of the only task of a command.
func (e *environment) completeTask(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return e.completeTasks(cmd, args, toComplete)
}

// completeNamespaces completes the value of --namespace.
func (e *environment) completeNamespaces(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("NamespaceList"))
	list.APIVersion = "v1"
	return e.completeNames(cmd, toComplete, list), cobra.ShellCompDirectiveNoFileComp
}

// completeAccounts completes names of EdgeOneAccounts.
func (e *environment) completeAccounts(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	return e.completeNames(cmd, toComplete, newMetadataList("EdgeOneAccountList")), cobra.ShellCompDirectiveNoFileComp
}

// completeZones completes zones: those that EdgeOneAccounts name, and those of the namespace's tasks.
func (e *environment) completeZones(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	namespace, err := e.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := e.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var zones []string
	var accounts v1alpha1.EdgeOneAccountList
	if c.List(ctx, &accounts, client.Limit(pageSize)) == nil {
		for _, account := range accounts.Items {
			for _, zone := range account.Spec.Zones {
				zones = append(zones, zone.ID)
			}
			for _, zone := range account.Status.Zones {
				zones = append(zones, zone.ID)
			}
		}
	}
	_ = e.readTaskRows(ctx, namespace, "", func(row taskRow) error { // as many as there is time for
		if zone := row.text("Zone"); !slices.Contains(zones, zone) {
			zones = append(zones, zone)
		}
		return nil
	})
	slices.Sort(zones)
	return slices.Compact(zones), cobra.ShellCompDirectiveNoFileComp
}

// completeNames returns names of objects that begin with a text: as many as there is time for. Without a
// cluster, there are none.
func (e *environment) completeNames(cmd *cobra.Command, toComplete string, list *metav1.PartialObjectMetadataList, opts ...client.ListOption) (names []string) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	c, err := e.client()
	if err != nil {
		return nil
	}
	_ = listPages(ctx, c, list, func(page *metav1.PartialObjectMetadataList) {
		for i := range page.Items {
			if name := page.Items[i].Name; strings.HasPrefix(name, toComplete) {
				names = append(names, name)
			}
		}
		if len(names) >= maxCompletions {
			cancel()
		}
	}, opts...)
	return names
}

// refuseUnknownShells makes the command completion refuse what is no command of it. cobra's prints its help on
// standard output then, as if that were a script.
func refuseUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(*cobra.Command, []string) error {
				return errors.New("completion is for a shell: give bash, zsh, fish or powershell")
			}
		}
	}
}
