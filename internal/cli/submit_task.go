package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/urllist"
)

// listLabel is the label of tasks that submit has made. Its value is the name without a part's number.
const listLabel = "teo.prefetch-operator.io/list"

// newTask returns the task that the flags describe, without targets.
func (o *submitOptions) newTask(namespace string, args []string, now time.Time) (*v1alpha1.PrefetchTask, error) {
	name, err := o.taskName(args)
	if err != nil {
		return nil, err
	}
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{listLabel: name}}}
	task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
	for key, value := range o.labels {
		task.Labels[key] = value
	}
	task.Spec.ZoneID, task.Spec.Revision, task.Spec.Mode = o.zone, o.revision, v1alpha1.PrefetchMode(o.mode)
	task.Spec.AccountRef.Name = o.account
	task.Spec.TTLSecondsAfterFinished = int32(o.ttl.Seconds())
	if o.freshSince != "" {
		since, err := time.Parse(time.RFC3339, o.freshSince)
		if err != nil || since.After(now) || since.Nanosecond() != 0 {
			return nil, fmt.Errorf("--fresh-since is %q: give a time in whole seconds that is not in the future, such as 2026-11-28T14:05:00Z", o.freshSince)
		}
		task.Spec.FreshSince = metav1.NewTime(since)
	}
	task.Spec.Purge, err = parsePurge(o.purge)
	return task, err
}

// maxName is how long a name may be: that of a part, with its number, is a label's value as well.
const maxName = validation.LabelValueMaxLength - len("-100")

// taskName returns --name, or the name of the file, or a new name. It changes no name: two files must not
// become one task.
func (o *submitOptions) taskName(args []string) (string, error) {
	isValid := func(name string) bool { return len(name) <= maxName && len(validation.IsDNS1123Subdomain(name)) == 0 }
	switch {
	case o.name != "" && !isValid(o.name):
		return "", fmt.Errorf("--name is %q: use at most %d lower case letters, digits, hyphens and dots", o.name, maxName)
	case o.name != "":
		return o.name, nil
	case len(args) == 0 || args[0] == "-":
		return "prefetch-" + utilrand.String(5), nil
	}
	base := filepath.Base(args[0])
	name := strings.TrimSuffix(base, filepath.Ext(base))
	if !isValid(name) {
		return "", fmt.Errorf("the file name %q gives no name for the task (at most %d lower case letters, digits, hyphens and dots): give --name", base, maxName)
	}
	return name, nil
}

// parsePurge parses the values of --purge: URL, or TYPE=VALUE of one type.
func parsePurge(values []string) (purge v1alpha1.Purge, err error) {
	for _, value := range values {
		kind, name, hasName := strings.Cut(value, "=")
		switch known := v1alpha1.PurgeType(kind); {
		case known == "URL" && !hasName, (known == "Prefix" || known == "Host" || known == "CacheTag") && name != "":
			if purge.Type != "" && purge.Type != known {
				return purge, fmt.Errorf("--purge has the types %s and %s: a task purges by one", purge.Type, known)
			}
			purge.Type = known
		default:
			return purge, fmt.Errorf("--purge is %q: use URL, Prefix=https://www.example.com/images/, Host=www.example.com or CacheTag=home", value)
		}
		if hasName {
			purge.Targets = append(purge.Targets, v1alpha1.PurgeTarget(name))
		}
	}
	return purge, nil
}

// maxParts is how many tasks a list may become.
const maxParts = 100

// splitTask returns the tasks of a list: one, or several of which all but the first are numbered. The first
// keeps its name when the list grows, because another task would submit its URLs again.
func splitTask(template *v1alpha1.PrefetchTask, list *urllist.List) (tasks []*v1alpha1.PrefetchTask, err error) {
	reserved := 0 // as the rule of the spec counts
	for _, t := range template.Spec.Purge.Targets {
		reserved += 2*len(t) + 20
	}
	parts := urllist.Split(list.URLs, reserved)
	if len(parts) > maxParts {
		return nil, fmt.Errorf("the list needs %d tasks, and %d are the most: submit it in several lists", len(parts), maxParts)
	}
	if len(parts) > 1 && len(template.Spec.Purge.Targets) > 0 {
		return nil, errors.New("the list needs several tasks, and each would purge what others have prefetched: use --purge=URL, or purge with a task of its own first")
	}
	for i, part := range parts {
		task := template.DeepCopy()
		task.Spec.Targets = part
		if i > 0 {
			task.Name = fmt.Sprintf("%s-%d", template.Name, i+1)
		}
		tasks = append(tasks, task)
	}
	return tasks, nil
}
