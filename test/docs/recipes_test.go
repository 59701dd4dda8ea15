package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Argo Rollouts and Flagger, as Go modules with their checksums: the definitions of their
// kinds, and the chart of Flagger's load tester.
const (
	rolloutsModule = "github.com/argoproj/argo-rollouts@v1.10.1"
	rolloutsSum    = "h1:6oyVPGiHHxu3ixkT6mngemh88HLPDoTX1IwO6KNR1Y4="
	flaggerModule  = "github.com/fluxcd/flagger@v1.36.1"
	flaggerSum     = "h1:X2PumtNwZz9YSGaOtZLFm2zAKLgHhFkbNv8beg7ifyc="
)

// deliveryKinds are the kinds of Argo Rollouts and Flagger that pages have.
var deliveryKinds = map[string]bool{"AnalysisTemplate": true, "Rollout": true, "Canary": true}

// installDeliveryKinds installs their definitions. It returns the folder of Flagger's charts.
func (d *desk) installDeliveryKinds(t *testing.T) (charts string) {
	t.Helper()
	rollouts, flagger := downloadModule(t, rolloutsModule, rolloutsSum), downloadModule(t, flaggerModule, flaggerSum)
	for _, file := range []string{
		filepath.Join(rollouts, "manifests/crds/analysis-template-crd.yaml"), filepath.Join(rollouts, "manifests/crds/rollout-crd.yaml"),
		filepath.Join(flagger, "artifacts/flagger/crd.yaml"),
	} {
		must(t, d.cluster.Apply(t.Context(), file))
	}
	return filepath.Join(flagger, "charts")
}

// downloadModule returns the folder of a Go module.
func downloadModule(t *testing.T, module, sum string) (dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
	if err != nil {
		t.Fatalf("go mod download %s: %v\n%s", module, err, out)
	}
	var result struct{ Dir, Sum string }
	must(t, json.Unmarshal(out, &result))
	if result.Sum != sum {
		t.Fatalf("%s has the checksum %s, want %s", module, result.Sum, sum)
	}
	return result.Dir
}

// recipe has the parts of YAML that other programs run: the steps of a GitHub workflow, the
// Job of an AnalysisTemplate, other arguments of that Job, and the commands that a Canary sends to
// a load tester.
type recipe struct {
	Kind  string   `json:"kind"`
	Args  []string `json:"args"`
	Steps []struct {
		Env map[string]string `json:"env"`
		Run string            `json:"run"`
	} `json:"steps"`
	Spec struct {
		Metrics []struct {
			Provider struct {
				Job *struct {
					Spec batchv1.JobSpec `json:"spec"`
				} `json:"job"`
			} `json:"provider"`
		} `json:"metrics"`
		Analysis struct {
			Webhooks []struct {
				Metadata struct{ Type, Cmd string } `json:"metadata"`
			} `json:"webhooks"`
		} `json:"analysis"`
	} `json:"spec"`
}

// podTemplateHash is the revision that Argo Rollouts gives to an AnalysisTemplate.
const podTemplateHash = "687d76d795"

// workflowSecret is a secret of the repository in a step of a workflow.
var workflowSecret = regexp.MustCompile(`\$\{\{ secrets\.(\w+) \}\}`)

// recipeCommands returns commands that do what other programs do with a block of YAML, in one
// line. It is "" for other blocks.
func recipeCommands(t *testing.T, dir string, b *block) string {
	t.Helper()
	var r recipe
	if b.language != "yaml" || b.notRun != "" || yaml.Unmarshal([]byte(b.text()), &r) != nil {
		return ""
	}
	var commands []string
	for i, step := range r.Steps {
		file := fmt.Sprintf(".step-%d-%d.sh", b.line, i)
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(step.Run), 0o600))
		command := "run_step " + file
		for name, value := range step.Env {
			command += fmt.Sprintf(" %s=%q", name, workflowSecret.ReplaceAllString(value, "$$(cat .secret-$1)"))
		}
		commands = append(commands, command)
	}
	for i, metric := range r.Spec.Metrics {
		if metric.Provider.Job == nil {
			continue
		}
		job := &batchv1.Job{
			TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("analysis-%d", i)},
			Spec:       metric.Provider.Job.Spec,
		}
		text, err := yaml.Marshal(job)
		must(t, err)
		file := fmt.Sprintf(".job-%d-%d.yaml", b.line, i)
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(strings.ReplaceAll(string(text), "{{args.revision}}", podTemplateHash)), 0o600))
		commands = append(commands, "kubectl create -f "+file, "kubectl wait --for=condition=Complete --timeout=2m job/"+job.Name)
	}
	if len(r.Args) > 0 {
		args := strings.NewReplacer("/lists/", "", "{{args.revision}}", podTemplateHash).Replace(strings.Join(r.Args, " "))
		commands = append(commands, "as_account prefetcher kubectl teo-prefetch "+args)
	}
	for i, webhook := range r.Spec.Analysis.Webhooks {
		command := webhook.Metadata.Cmd
		if webhook.Metadata.Type == "kubectl" {
			command = "kubectl " + command
		}
		file := fmt.Sprintf(".webhook-%d-%d.sh", b.line, i)
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(command), 0o600))
		commands = append(commands, "as_account flagger-loadtester bash -e "+file)
	}
	return strings.Join(commands, "; ")
}

// actionlint checks workflows of GitHub. The module has the checksums of what it needs.
const (
	actionlintModule = "github.com/rhysd/actionlint@v1.7.12"
	actionlintSum    = "h1:vQ4GeJN86C0QH+gTUQcs8McmK62OLT3kmakPMtEWYnY="
)

// The workflows of the repository are valid, and so are the steps on pages, as the last ones of
// a job.
func TestWorkflowsAreValid(t *testing.T) {
	if testing.Short() {
		t.Skip("builds actionlint; skipped with -short")
	}
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("the repository has no workflows")
	}
	onPages := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "yaml" || b.lines[0] != "steps:" {
				continue
			}
			onPages++
			job := "on: push\njobs:\n  deploy:\n    runs-on: ubuntu-24.04\n    " + strings.Join(b.lines, "\n    ") + "\n"
			file := filepath.Join(t.TempDir(), fmt.Sprintf("line-%d.yml", b.line))
			must(t, os.WriteFile(file, []byte(job), 0o600))
			files = append(files, file)
		}
	}
	if onPages == 0 {
		t.Error("no page has steps of a workflow")
	}
	for i := range files {
		files[i], err = filepath.Abs(files[i])
		must(t, err)
	}
	dir := downloadModule(t, actionlintModule, actionlintSum)
	lint := exec.CommandContext(t.Context(), "go", append([]string{"-C", dir, "run", "./cmd/actionlint"}, files...)...)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("actionlint: %v\n%s", err, out)
	}
}
