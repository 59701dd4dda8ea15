package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

func TestBadCommandLinesExitWith1AndPrintNothingOnStandardOutput(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{{"no-such-command"}, {"version", "--no-such-flag"}, {"version", "extra"}, {"completion", "tcsh"}, {"completion"}} {
		r := w.run(args...)
		if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, "Error: ") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestNamesComplete(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("warm-home", good), w.task("warm-shop", good))
	for _, c := range []struct{ args, want string }{
		{"version --namespace ", w.namespace},
		{"wait warm-shop ", "warm-home"},
		{"failed ", "warm-shop"},
		{"wait -o ", "yaml"},
	} {
		r := w.run(append([]string{"__complete"}, strings.Split(c.args, " ")...)...)
		if !strings.Contains("\n"+r.out, "\n"+c.want+"\n") || c.args == "wait warm-shop " && strings.Contains(r.out, "warm-shop") {
			t.Errorf("%q: %+v", c.args, r)
		}
	}
}

func TestNamesAndZonesBeyondTheFirstPageComplete(t *testing.T) {
	w := newWorld(t)
	for i := range 510 {
		w.create(w.task(fmt.Sprintf("a-%03d", i), good))
	}
	last := w.task("z-last", good)
	last.Spec.ZoneID = "zone-last"
	w.create(last)
	if r := w.run("__complete", "wait", "z"); !strings.HasPrefix(r.out, "z-last\n:") {
		t.Errorf("%+v", r)
	}
	if r := w.run("__complete", "submit", "--zone", "zone-l"); !strings.Contains(r.out, "zone-last\n") {
		t.Errorf("%+v", r)
	}
}

// No other test creates a Deployment, or depends on there being none: the operator may run in any namespace.
func TestVersionAndWhyFindTheOperator(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	why := func() string { return strings.Join(strings.Fields(w.run("why", "home").out), " ") }
	label := "app.kubernetes.io/name=teo-prefetch-operator"
	w.run("version").is(t, 0, "Client: v0.0.0-test\n", "The version of the operator is not known: no Deployment has the label "+label+"\n")
	if want := "The cluster has no Deployment of an operator (label " + label + ")."; !strings.Contains(why(), want) {
		t.Errorf("not %q in %q", want, why())
	}
	labels := map[string]string{"app.kubernetes.io/name": "teo-prefetch-operator"}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "operator", Labels: labels}}
	deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	deployment.Spec.Template.Labels = labels
	deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "manager", Image: "registry.example:5000/operator:v1.4.0@sha256:" + strings.Repeat("0", 64)}}
	w.create(deployment)
	t.Cleanup(func() { w.must(w.Delete(context.Background(), deployment)) })
	w.run("version").is(t, 0, "Client: v0.0.0-test\nOperator: v1.4.0 (Deployment operator in namespace "+w.namespace+")\n", "")
	w.run("version", "--client").is(t, 0, "Client: v0.0.0-test\n", "")
	if want := "Deployment operator in namespace " + w.namespace + " has 0 of 0 pods available."; !strings.Contains(why(), want) {
		t.Errorf("not %q in %q", want, why())
	}
}

func TestUsersWithoutPermissionLearnWhatToDo(t *testing.T) {
	w := newWorld(t)
	nobody := rest.CopyConfig(shared.cluster.Admin)
	nobody.Impersonate.UserName = "nobody"
	r := w.startWith(nobody, "", "--as=nobody", "wait", "home").wait()
	if r.code != 1 || r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.HasSuffix(r.err, "; ask who manages the cluster for the role edit (or view, to read only)\n") {
		t.Errorf("%+v", r)
	}
	w.startWith(nobody, "", "--as=nobody", "version").wait().is(t, 0, "Client: v0.0.0-test\n",
		"The version of the operator is not known: you may not list the Deployments of all namespaces; --client leaves out the operator\n")
	w.startWith(nobody, "", "--as=nobody", "quota").wait().has(t, 1, "", "\nError: prefetchtasks.teo.prefetch-operator.io is forbidden: User \"nobody\" cannot list resource")
}

func TestAClusterThatCannotBeReachedIsAnErrorOfEachCommand(t *testing.T) {
	w := newWorld(t)
	for _, command := range []string{"wait home", "wait -l a=b", "why home", "quota", "retry home --yes"} {
		r := w.run(append(strings.Fields(command), "--server=https://127.0.0.1:1")...)
		r.has(t, 1, "", "the cluster cannot be reached at https://127.0.0.1:1/")
		r = w.run(append(strings.Fields(command), "--kubeconfig=/none")...)
		r.is(t, 1, "", "Error: the kubeconfig cannot be read: stat /none: no such file or directory; check --kubeconfig and KUBECONFIG\n")
	}
}

func TestAClusterWithoutTheOperatorIsNamed(t *testing.T) {
	bare := cluster.ForTest(t, cluster.Options{Bare: true})
	w := &world{Client: bare.Client, t: t, namespace: "default"}
	for _, args := range []string{"wait home", "failed home", "quota", "retry -l a=b"} {
		r := w.startWith(bare.Admin, "", strings.Fields(args)...).wait()
		if r.code != 1 || r.out != "" || !strings.Contains(r.err, "install the operator first") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestCtrlCEndsCommandsThatReadStandardInput(t *testing.T) {
	w := newWorld(t)
	manifest := filepath.Join(t.TempDir(), "task.yaml")
	w.must(os.WriteFile(manifest, []byte("# no task\n"), 0o600))
	for _, args := range []string{"verify -f -", "submit - --zone=" + zoneID, "plan -", "plan " + manifest + " -"} {
		input, user := io.Pipe()
		c := w.startReading(shared.cluster.Admin, input, strings.Fields(args)...)
		if _, err := user.Write([]byte("# the command reads this, and waits for more\n")); err != nil {
			t.Fatal(err)
		}
		c.interrupt()
		c.wait().is(t, 130, "", "Error: interrupted\n")
	}
}
