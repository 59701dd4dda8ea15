package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// pageSize is how many objects a request for a list asks for.
const pageSize = 500

// tasksPerPage is the same for whole tasks: one may have 1.5 MB.
const tasksPerPage = 50

// taskSelection says which tasks a command is about: NAME…, -l SELECTOR or, with a selector, -A.
type taskSelection struct {
	selector      string
	allNamespaces bool
}

// addTo adds the flags -l and -A to a command.
func (s *taskSelection) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.selector, "selector", "l", "", "Label selector, for example app=shop, in place of names")
	cmd.Flags().BoolVarP(&s.allNamespaces, "all-namespaces", "A", false, "Select in all namespaces")
}

// validate refuses arguments that contradict each other, and none at all.
func (s *taskSelection) validate(names []string) error {
	switch {
	case len(names) > 0 && s.selector != "":
		return errors.New("give names or --selector, not both")
	case len(names) > 0 && s.allNamespaces:
		return errors.New("a name is of one namespace: give --namespace in place of --all-namespaces, or --selector in place of names")
	case len(names) == 0 && s.selector == "":
		return errors.New("no task is named: give its name, or --selector")
	}
	if _, err := labels.Parse(s.selector); err != nil {
		return fmt.Errorf("--selector is not a label selector: %w", err)
	}
	return nil
}

// readTasks reads the selected tasks, and calls onTask for each, in the order of the arguments or of the API
// server. Tasks that are named are read before the first call, as one of them may be missing. Those of a
// selector are read page by page: they may be many, and their lists of targets long.
func (s *taskSelection) readTasks(ctx context.Context, env *environment, c client.Client, names []string, onTask func(*v1alpha1.PrefetchTask)) error {
	namespace, err := s.namespace(env)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		var tasks []*v1alpha1.PrefetchTask
		for _, key := range namedKeys(namespace, names) {
			task, err := getTask(ctx, c, key)
			if err != nil {
				return err
			}
			tasks = append(tasks, task)
		}
		for _, task := range tasks {
			onTask(task)
		}
		return nil
	}
	selector, err := labels.Parse(s.selector)
	if err != nil {
		return err
	}
	found := 0
	err = listPages(ctx, c, &v1alpha1.PrefetchTaskList{}, func(page *v1alpha1.PrefetchTaskList) {
		found += len(page.Items)
		for i := range page.Items {
			onTask(&page.Items[i])
		}
	}, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: selector}, client.Limit(tasksPerPage))
	if err == nil && found == 0 {
		err = s.noMatch(namespace)
	}
	return err
}

// label names a task: with its namespace, if tasks of all namespaces are selected.
func (s *taskSelection) label(key client.ObjectKey) string {
	if s.allNamespaces {
		return key.String()
	}
	return key.Name
}

// namespace returns the namespace of the selected tasks, or "" for all.
func (s *taskSelection) namespace(env *environment) (string, error) {
	if s.allNamespaces {
		return "", nil
	}
	return env.namespace()
}

// noMatch is the error if no task is selected.
func (s *taskSelection) noMatch(namespace string) error {
	return fmt.Errorf("no task matches --selector %s%s", s.selector, inNamespace(namespace))
}

// namedKeys returns the tasks with these names, each once.
func namedKeys(namespace string, names []string) (keys []client.ObjectKey) {
	for _, name := range names {
		key := client.ObjectKey{Namespace: namespace, Name: trimKind(name)}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// inNamespace names a namespace at the end of a message, or nothing for all namespaces.
func inNamespace(namespace string) string {
	if namespace == "" {
		return " in any namespace"
	}
	return fmt.Sprintf(" in namespace %q", namespace)
}

// trimKind removes the kind of a name as kubectl -o name prints it: prefetchtask.teo…/NAME.
func trimKind(name string) string {
	kind, rest, found := strings.Cut(name, "/")
	kind, _, _ = strings.Cut(kind, ".")
	switch kind {
	case "prefetchtask", "prefetchtasks", "pft":
		if found {
			return rest
		}
	}
	return name
}

// getTask reads a task. Its error says what to do if there is none.
func getTask(ctx context.Context, c client.Client, key client.ObjectKey) (*v1alpha1.PrefetchTask, error) {
	task := &v1alpha1.PrefetchTask{}
	err := c.Get(ctx, key, task)
	if isMissingTask(err) {
		return nil, missingTask(key)
	}
	return task, err
}

// readTask reads the task that an argument names, and returns it with the client that has read it.
func (e *environment) readTask(ctx context.Context, name string) (*v1alpha1.PrefetchTask, client.Client, error) {
	namespace, err := e.namespace()
	if err != nil {
		return nil, nil, err
	}
	c, err := e.client()
	if err != nil {
		return nil, nil, err
	}
	task, err := getTask(ctx, c, client.ObjectKey{Namespace: namespace, Name: trimKind(name)})
	return task, c, err
}

// requireTask refuses arguments that are not the name of one task.
func requireTask(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("no task is named: give its name")
	case 1:
		return nil
	}
	return fmt.Errorf("%d tasks are named, and the command is about one: give one name", len(args))
}

// isMissingTask reports whether an error says that a task does not exist, and not that the cluster
// does not know tasks.
func isMissingTask(err error) bool {
	status := apierrors.APIStatus(nil)
	return apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name != ""
}

func missingTask(key client.ObjectKey) error {
	return fmt.Errorf("there is no PrefetchTask %q in namespace %q: check the name and --namespace", key.Name, key.Namespace)
}
