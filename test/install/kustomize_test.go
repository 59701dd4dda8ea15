package install

import "testing"

func TestKustomizeInstallsAnOperatorThatWorks(t *testing.T) {
	s := newSite(t)
	t.Cleanup(s.removeCRD)
	s.giveCredentials("teo-credentials", "AKIDdemo", "demo-secret-key")
	all := s.overlay("--teo-endpoint="+s.url, "--poll-interval=500ms")
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", all},
		{"rollout", "status", "deployment/teo-prefetch-operator", "--timeout=90s"},
	} {
		if out, err := s.command("kubectl", args...); err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
	stop := s.runManager(s.deployment("teo-prefetch-operator"))
	s.create(s.namespace, "kustomized")
	s.succeeded(s.namespace, "kustomized")
	stop()
	if out, err := s.command("kubectl", "delete", "--wait", "-f", all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s.crdExists() {
		t.Error("the CRD is left")
	}
}
