package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// revisions returns the revisions of tasks, in a text.
func (w *world) revisions(names ...string) string {
	var revisions []string
	for _, name := range names {
		revisions = append(revisions, w.get(name).Spec.Revision)
	}
	return strings.Join(revisions, ",")
}

func TestATaskThatCannotBeChangedDoesNotKeepActionsFromTheOthers(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("a", good), w.task("b", good), w.task("c", good))
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "some"}}
	role.Rules = []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"prefetchtasks"}, Verbs: []string{"get"}},
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"prefetchtasks"}, Verbs: []string{"patch"}, ResourceNames: []string{"a", "c"}},
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "some", APIGroup: rbacv1.GroupName}}
	binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: w.namespace, APIGroup: rbacv1.GroupName}}
	w.create(role, binding)
	user := rest.CopyConfig(shared.cluster.Admin)
	user.Impersonate.UserName = w.namespace
	run := func(args ...string) result {
		return w.startWith(user, "", append([]string{"--as=" + w.namespace}, args...)...).wait()
	}
	w.eventually("the user may change a", func() bool { return run("rerun", "a", "--yes", "--dry-run=server").code == 0 })

	r := run("rerun", "a", "b", "c", "--revision=2", "--yes", "--wait")
	if r.code != 1 || r.out != "prefetchtask.teo.prefetch-operator.io/a rerun requested\nprefetchtask.teo.prefetch-operator.io/c rerun requested\n" ||
		strings.Count(r.err, "b: failed: prefetchtasks.teo.prefetch-operator.io \"b\" is forbidden: ") != 1 ||
		!strings.HasSuffix(r.err, "\nError: only 2 of 3 tasks are changed: repeat the command for the others\n") {
		t.Errorf("%+v", r)
	}
	if got := w.revisions("a", "b", "c"); got != "2,,2" {
		t.Errorf("the revisions are %s", got)
	}
	r = run("rerun", "a", "b", "c", "--revision=3", "--yes", "-o", "json")
	var got cli.ActResult
	w.must(json.Unmarshal([]byte(r.out), &got))
	if r.code != 1 || len(got.Tasks) != 3 || !got.Tasks[0].Changed || got.Tasks[1].Changed || !strings.Contains(got.Tasks[1].Error, "is forbidden") || !got.Tasks[2].Changed {
		t.Errorf("%+v", r)
	}
	r = run("rerun", "b", "--revision=2", "--yes")
	if r.code != 1 || r.out != "" || !strings.Contains(r.err, "\nError: b: prefetchtasks.teo.prefetch-operator.io \"b\" is forbidden: ") || strings.Count(r.err, "is forbidden") != 1 {
		t.Errorf("%+v", r)
	}
}

func TestActionsSayWhatIsChangedIfTheyAreInterrupted(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("a", good), w.task("b", good), w.task("c", good))
	proxy, err := faults.StartProxy(shared.cluster)
	w.must(err)
	config := proxy.Config(shared.cluster.Admin)
	patch := faults.Match{Verb: "patch", Resource: "prefetchtasks", Namespace: w.namespace, Name: "b"}

	lost := proxy.AddFault(faults.Fault{Match: patch, Effect: faults.Effect{Executed: true, Close: true}})
	r := w.startWith(config, "", "rerun", "a", "b", "c", "--revision=2", "--yes", "-o", "name").wait()
	if r.code != 1 || r.out != "prefetchtask.teo.prefetch-operator.io/a\nprefetchtask.teo.prefetch-operator.io/c\n" ||
		!strings.Contains(r.err, "b: failed: no answer, so it is not known whether the task is changed: ") {
		t.Errorf("%+v", r)
	}
	if got := w.revisions("a", "b", "c"); got != "2,2,2" {
		t.Errorf("the revisions are %s", got)
	}
	proxy.RemoveFault(lost)

	held := proxy.Hold(patch)
	c := w.startWith(config, "", "rerun", "a", "b", "c", "--revision=3", "--yes")
	<-held.Arrived()
	c.interrupt()
	r = c.wait()
	if r.code != 130 || r.out != "prefetchtask.teo.prefetch-operator.io/a rerun requested\n" || !strings.HasSuffix(r.err, "\nError: interrupted; 1 of 3 tasks are changed\n") {
		t.Errorf("%+v", r)
	}
	held.Drop()
	if got := w.revisions("a", "c"); got != "3,2" {
		t.Errorf("the revisions are %s", got)
	}
}

func TestSubmitSaysWhatIsWrittenIfItIsInterrupted(t *testing.T) {
	w := newWorld(t)
	proxy, err := faults.StartProxy(shared.cluster)
	w.must(err)
	// Every task is checked first, so the second request for a task writes it.
	held := proxy.Hold(faults.Match{Verb: "patch", Resource: "prefetchtasks", Namespace: w.namespace, Name: "list-2", Nth: 2})
	var list strings.Builder
	for i := range 10001 {
		_, _ = fmt.Fprintf(&list, "%s%d\n", good, i)
	}
	c := w.startWith(proxy.Config(shared.cluster.Admin), list.String(), "submit", "-", "--name=list", "--zone="+zoneID)
	<-held.Arrived()
	c.interrupt()
	r := c.wait()
	if r.code != 130 || !strings.Contains(r.err, "Error: interrupted; 1 of 2 tasks are written: list (created). ") {
		t.Errorf("%+v", r)
	}
	held.Drop()
}
