package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// submission is a list that is submitted.
type submission struct {
	*environment
	client   client.WithWatch
	options  *submitOptions
	name     string
	tasks    []*v1alpha1.PrefetchTask
	outcomes []string // created, configured or unchanged, for those that are applied
}

// apply lets the API server check all tasks, and then writes them.
func (s *submission) apply(ctx context.Context) error {
	if err := s.checkZone(ctx); err != nil {
		return err
	}
	var checked []*actTarget
	for _, task := range s.tasks {
		before, after, err := s.applyTask(ctx, task, true)
		if err != nil {
			return fmt.Errorf("nothing is created or changed: task %s: %w", task.Name, err)
		}
		checked = append(checked, newSubmitTarget(before, after))
	}
	if err := s.checkFormerParts(ctx); err != nil {
		return err
	}
	s.announceRuns(ctx, checked)
	isDryRun := s.options.dryRun == "server"
	for _, task := range s.tasks {
		before, after, err := s.applyTask(ctx, task, isDryRun)
		if err != nil && ctx.Err() != nil {
			return exitError{ExitInterrupted, errors.New("interrupted" + s.whatExists())}
		}
		if err != nil {
			return fmt.Errorf("task %s: %w%s", task.Name, err, s.whatExists())
		}
		outcome := describeOutcome(before, after)
		s.outcomes = append(s.outcomes, outcome)
		if outcome == "unchanged" {
			_ = printLine(s.ErrOut, "%s is unchanged, so nothing is submitted; a new --revision submits every URL again", task.Name)
		}
	}
	return nil
}

// whatExists says what was written before an error.
func (s *submission) whatExists() string {
	if len(s.tasks) == 1 {
		return ""
	}
	var done []string
	for i, outcome := range s.outcomes {
		done = append(done, fmt.Sprintf("%s (%s)", s.tasks[i].Name, outcome))
	}
	if len(done) == 0 {
		return fmt.Sprintf("; none of the %d tasks is created or changed", len(s.tasks))
	}
	return fmt.Sprintf("; %d of %d tasks are written: %s. Run the same command again to write the rest",
		len(done), len(s.tasks), strings.Join(done, ", "))
}

// checkZone refuses a zone that the account does not list. Who may not read accounts is not stopped.
func (s *submission) checkZone(ctx context.Context) error {
	name := s.options.account
	if name == "" {
		name = v1alpha1.DefaultAccount
	}
	account := &v1alpha1.EdgeOneAccount{}
	err := s.client.Get(ctx, client.ObjectKey{Name: name}, account)
	switch {
	case apierrors.IsNotFound(err) && s.options.account != "":
		return fmt.Errorf("there is no EdgeOneAccount %q: check --account", name)
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err), meta.IsNoMatchError(err), err == nil && len(account.Spec.Zones) == 0:
		return nil // the operator checks it
	case err != nil:
		return err
	}
	var known []string
	for _, zone := range account.Spec.Zones {
		known = append(known, zone.ID)
	}
	if !slices.Contains(known, s.options.zone) && s.options.zone != "*" {
		return fmt.Errorf("the EdgeOneAccount %q has no zone %q: use one of %s", name, s.options.zone, strings.Join(known, ", "))
	}
	return nil
}

// checkFormerParts warns of tasks of the same list that are not among its parts any more.
func (s *submission) checkFormerParts(ctx context.Context) error {
	var names, former []string
	for _, task := range s.tasks {
		names = append(names, task.Name)
	}
	err := listPages(ctx, s.client, newTaskMetadataList(), func(page *metav1.PartialObjectMetadataList) {
		for i := range page.Items {
			if !slices.Contains(names, page.Items[i].Name) {
				former = append(former, page.Items[i].Name)
			}
		}
	}, client.InNamespace(s.tasks[0].Namespace), client.MatchingLabels{listLabel: s.name})
	if len(former) > 0 {
		_ = printLine(s.ErrOut, "Warning: an earlier list of this name made %s too, which this one does not change: %s",
			strings.Join(former, ", "), s.suggestCommand("kubectl delete prefetchtask", s.tasks[0].Namespace, former...))
	}
	if apierrors.IsForbidden(err) { // a pipeline needs not list tasks
		return nil
	}
	return err
}

// errOthersTask says that a task exists that another program, or another list, has made.
var errOthersTask = errors.New("another program or list keeps the task of this name: give another --name, or --force-conflicts to take over")

// applyTask applies a task. It returns the task as it was before, or nil if there was none, and as it is then.
func (s *submission) applyTask(ctx context.Context, task *v1alpha1.PrefetchTask, isDryRun bool) (before, after *v1alpha1.PrefetchTask, err error) {
	before = &v1alpha1.PrefetchTask{}
	err = s.client.Get(ctx, client.ObjectKeyFromObject(task), before)
	switch {
	case isMissingTask(err):
		before = nil
	case err != nil:
		return nil, nil, err
	}
	if before != nil && !s.options.forceConflicts {
		if list, isOurs := before.Labels[listLabel]; !isOurs || list != s.name {
			return nil, nil, errOthersTask
		}
	}
	applied, err := s.writeTask(ctx, task, isDryRun)
	if err != nil {
		return nil, nil, err
	}
	after = &v1alpha1.PrefetchTask{}
	return before, after, runtime.DefaultUnstructuredConverter.FromUnstructured(applied.Object, after)
}

// describeOutcome says what applying a task has done: created, configured or unchanged.
func describeOutcome(before, after *v1alpha1.PrefetchTask) string {
	switch {
	case before == nil:
		return "created"
	case after.UID == before.UID && after.Generation == before.Generation && maps.Equal(after.Labels, before.Labels):
		return "unchanged"
	}
	return "configured"
}

// writeTask writes the fields of a task that this program sets, and returns the task as it is then.
func (s *submission) writeTask(ctx context.Context, task *v1alpha1.PrefetchTask, isDryRun bool) (*unstructured.Unstructured, error) {
	applied, err := newApplyObject(task)
	if err != nil {
		return nil, err
	}
	options := []client.ApplyOption{client.FieldOwner(fieldManager)}
	if isDryRun {
		options = append(options, client.DryRunAll)
	}
	if s.options.forceConflicts {
		options = append(options, client.ForceOwnership)
	}
	err = s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), options...)
	if isOwnConflict(err) { // with retry, suspend or rerun of this program
		err = s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), append(options, client.ForceOwnership)...)
	}
	if apierrors.IsConflict(err) {
		err = fmt.Errorf("%w (%w)", errOthersTask, err)
	}
	return applied, err
}

// isOwnConflict reports whether all fields in conflict were set by this program.
func isOwnConflict(err error) bool {
	status := apierrors.APIStatus(nil)
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return false
	}
	return !slices.ContainsFunc(status.Status().Details.Causes, func(cause metav1.StatusCause) bool {
		return cause.Type != metav1.CauseTypeFieldManagerConflict || !strings.HasPrefix(cause.Message, fmt.Sprintf("conflict with %q", fieldManager))
	})
}

// newApplyObject returns a task with the fields that this program sets, and no others.
func newApplyObject(task *v1alpha1.PrefetchTask) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(task)
	if err != nil {
		return nil, err
	}
	delete(content, "status")
	return &unstructured.Unstructured{Object: content}, nil
}

func (s *submission) keys() (keys []client.ObjectKey) {
	for _, task := range s.tasks {
		keys = append(keys, client.ObjectKeyFromObject(task))
	}
	return keys
}

// print prints what was done on standard output, as kubectl apply does.
func (s *submission) print() error {
	if s.options.output.isStructured() {
		return s.printManifests()
	}
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[s.options.dryRun]
	for i, task := range s.tasks {
		text := "prefetchtask." + v1alpha1.GroupVersion.Group + "/" + task.Name
		switch {
		case s.options.output.format == "name":
		case s.options.dryRun == "client":
			text += " created" + suffix
		default:
			text += " " + s.outcomes[i] + suffix
		}
		if _, err := fmt.Fprintln(s.Out, text); err != nil {
			return err
		}
	}
	return nil
}

// printManifests prints the tasks as kubectl apply takes them.
func (s *submission) printManifests() error {
	items := []json.RawMessage{}
	for _, task := range s.tasks {
		object, err := newApplyObject(task)
		if err != nil {
			return err
		}
		text, err := json.Marshal(object.Object)
		if err != nil {
			return err
		}
		items = append(items, text)
	}
	if len(items) == 1 {
		return s.options.output.print(s.Out, items[0])
	}
	return s.options.output.print(s.Out, map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}
