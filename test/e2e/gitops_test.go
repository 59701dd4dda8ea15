package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

func TestTheTasksOfTheGitOpsExamplesWork(t *testing.T) {
	w := newWorld(t, config())
	files, err := filepath.Glob("../../config/samples/gitops/*.yaml")
	w.must(err)
	values := map[string]any{ // as in Helm
		"Release": map[string]any{"Name": "shop", "Revision": 7}, "Chart": map[string]any{"AppVersion": "1.4.2"},
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := template.ParseFiles(file)
		w.must(err)
		var text bytes.Buffer
		w.must(parsed.Execute(&text, values))
		for part := range strings.SplitSeq(text.String(), "\n---\n") {
			if !strings.Contains(part, "\nkind: PrefetchTask\n") {
				continue
			}
			task := &v1alpha1.PrefetchTask{}
			w.must(yaml.UnmarshalStrict([]byte(part), task))
			task.Namespace = w.namespace
			if names[task.Name] {
				task.Name += "-of-flux"
			}
			names[task.Name] = true
			w.create(task)
		}
	}
	if _, err := os.Stat("../../config/argocd/argocd-cm.yaml"); err != nil || len(w.list()) != 4 {
		t.Errorf("%d tasks (%v)", len(w.list()), err)
	}
	w.manager()
	for _, task := range w.list() {
		w.untilFinished(task.Name, v1alpha1.ReasonSucceeded)
	}
}
