package cli

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

func TestSuggestedCommandsAreAboutTheSameTasksAndCluster(t *testing.T) {
	w, other := newWorld(t), newSecondWorld(t)
	selected := map[string]string{"for": w.namespace}
	for _, in := range []*world{w, other} {
		task := in.task("home", good)
		task.Labels, task.Spec.Suspend = selected, ptr.To(true)
		in.create(task)
		in.setStatus("home", suspended)
	}
	as := rest.CopyConfig(shared.cluster.Admin)
	kubeconfig := w.writeKubeconfig(as)
	cluster := " -n " + w.namespace + " --as=kate --as-group=system:masters --kubeconfig=" + kubeconfig
	flags := strings.Fields(cluster)[2:]

	c := w.start("", append(flags, "wait", "-l", "for in ("+w.namespace+")", "-A", "--timeout=45m", "-o", "json")...)
	for _, in := range []*world{w, other} {
		want := in.namespace + "/home: Suspended (0/1): Nothing is submitted while spec.suspend is true; continues after: " +
			"kubectl teo-prefetch resume home" + strings.Replace(cluster, w.namespace, in.namespace, 1) + "\n"
		c.waitForErr(want)
	}
	c.interrupt()
	r := c.wait()
	again := "To wait again: kubectl teo-prefetch wait -l 'for in (" + w.namespace + ")' -A --timeout=45m0s -o json" + strings.TrimPrefix(cluster, " -n "+w.namespace) + "\n"
	if !strings.HasSuffix(r.err, again) {
		t.Errorf("not %q in %q", again, r.err)
	}
	c = w.start("", append(flags, "wait", "home", "--stalled-grace=1s")...)
	c.waitForErr("home: Suspended")
	c.interrupt()
	r = c.wait()
	if again = "To wait again: kubectl teo-prefetch wait home --stalled-grace=1s" + cluster + "\n"; !strings.HasSuffix(r.err, again) {
		t.Errorf("not %q in %q", again, r.err)
	}
	r = w.run(append(flags, "rerun", "home", "--dry-run=client")...)
	if note := "home: note: the task is suspended: nothing is submitted before kubectl teo-prefetch resume home" + cluster + "\n"; !strings.Contains(r.err, note) {
		t.Errorf("not %q in %q", note, r.err)
	}
	r = w.run(append(flags, "why", "home")...)
	if advice := "\nTo resume it: kubectl teo-prefetch resume home" + cluster + "\n"; !strings.HasSuffix(r.out, advice) {
		t.Errorf("not %q in %q", advice, r.out)
	}
}

func TestATaskWhoseAccountIsSuspendedIsNotToBeResumed(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	w.setStatus("home", suspended)
	c := w.start("", "wait", "home")
	c.waitForErr("home: Suspended (0/1): ")
	c.interrupt()
	if r := c.wait(); strings.Contains(r.err, "resume") {
		t.Errorf("%+v", r)
	}
}

// suspended writes the status of a task that waits because something is suspended.
func suspended(task *v1alpha1.PrefetchTask) {
	note := taskstate.WaitingStatus{Task: task, Cause: taskstate.Cause{Reason: v1alpha1.ReasonSuspended, Message: "Nothing is submitted while spec.suspend is true"}}
	taskstate.ReportWaiting(note, task.CreationTimestamp.Time)(task)
}
