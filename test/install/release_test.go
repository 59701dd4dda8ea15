package install

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// A release of a user with a private registry. install.yaml creates its own namespace and
// installs everything there.
func TestTheFilesOfAReleaseInstall(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRDs)
	dist := t.TempDir()
	_, err := cluster.RunMake(t.Context(), shared.root, "release", "DIST="+dist, "PLATFORMS=linux-"+runtime.GOARCH, "PLUGIN_PLATFORMS=linux-"+runtime.GOARCH,
		"VERSION=v7.8.9-rc.1", "IMAGE=registry.example/team/teo-prefetch-operator")
	s.must(err)
	const image = "registry.example/team/teo-prefetch-operator:v7.8.9-rc.1"

	manifests := filepath.Join(dist, "install.yaml")
	own := *s
	own.namespace = cluster.Namespace
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", manifests},
		{"-n", own.namespace, "rollout", "status", "deployment/" + release, "--timeout=90s"},
	} {
		if out, err := s.command("kubectl", args...); err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
	runs(t, own.deployment(release), image)
	if out, err := s.command("kubectl", "delete", "--wait", "-f", manifests); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	crd := filepath.Join(dist, "crd.yaml")
	if out, err := s.command("kubectl", "apply", "--server-side", "-f", crd); err != nil || !s.hasCRD() {
		t.Errorf("crd.yaml: %v\n%s", err, out)
	}
	s.removeCRDs()

	s.helm("install", release, filepath.Join(dist, "teo-prefetch-operator-7.8.9-rc.1.tgz"), "--wait", "--timeout=90s", "--set=edgeone.endpoint="+s.url)
	defer s.helm("uninstall", release, "--wait", "--timeout=90s")
	d := s.deployment(release)
	runs(t, d, image)
	if version := d.Labels["app.kubernetes.io/version"]; version != "v7.8.9-rc.1" {
		t.Errorf("the chart installs version %s", version)
	}
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	stop := s.runManager(d)
	s.create(s.namespace, "released")
	s.succeeded(s.namespace, "released")
	stop()
}

func runs(t *testing.T, d *appsv1.Deployment, image string) {
	t.Helper()
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Image != image {
			t.Errorf("it runs %s, want %s", c.Image, image)
		}
	}
}

// As described in docs/gitops.md: the patch adds to the existing settings of an Argo CD
// installation.
func TestThePatchOfArgoCDsConfigurationKeepsTheRest(t *testing.T) {
	s := newSite(t)
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "argocd-cm"}, Data: map[string]string{"url": "https://cd.example"}}
	s.must(s.Create(t.Context(), settings))
	out, err := s.command("kubectl", "-n", s.namespace, "patch", "configmap", "argocd-cm", "--patch-file", "config/argocd/argocd-cm.yaml")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.must(s.Get(t.Context(), client.ObjectKeyFromObject(settings), settings))
	const group = "teo.prefetch-operator.io_"
	for key, want := range map[string]string{
		"url": "https://cd.example",
		"resource.customizations.health." + group + "PrefetchTask":   "return hs",
		"resource.customizations.actions." + group + "PrefetchTask":  "name: retry",
		"resource.customizations.health." + group + "EdgeOneAccount": "return hs",
	} {
		if !strings.Contains(settings.Data[key], want) {
			t.Errorf("%s is %q", key, settings.Data[key])
		}
	}
	if len(settings.Data) != 4 {
		t.Errorf("it has %d settings", len(settings.Data))
	}
}
