package docs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// othersFlags are flags of other programs that appear in the text.
var othersFlags = strings.Fields(`--build-arg --custom-resource-state-config-file --custom-resource-state-only --force-conflicts --from-file --health --max-reconcile-rate --namespaces --no-cross-namespace-refs --help --reset-then-reuse-values --resource --reuse-values --server-side --set --take-ownership --timeout --values --wait`)

var flagName = regexp.MustCompile(`--[a-z][a-z-]*`)

// managersFlags returns the flags that the manager's help lists.
func managersFlags(t *testing.T) (flags []string) {
	t.Helper()
	manager, err := cluster.BuildManager(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(manager, "check", "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err, string(help))
	}
	for _, m := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		flags = append(flags, "--"+m[1])
	}
	if len(flags) < 20 {
		t.Fatalf("the manager has %d flags:\n%s", len(flags), help)
	}
	return flags
}

// pluginsFlags returns the flags of all commands of the kubectl plugin.
func pluginsFlags() (flags []string) {
	var visit func(*cobra.Command)
	visit = func(command *cobra.Command) {
		for _, set := range []*pflag.FlagSet{command.Flags(), command.PersistentFlags()} {
			set.VisitAll(func(flag *pflag.Flag) { flags = append(flags, "--"+flag.Name) })
		}
		for _, sub := range command.Commands() {
			visit(sub)
		}
	}
	visit(cli.NewCommand(genericiooptions.NewTestIOStreamsDiscard(), ""))
	return flags
}

func TestFlagsAreTheManagersAndAllAreDescribed(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the manager; skipped with -short")
	}
	flags, plugins := managersFlags(t), pluginsFlags()
	described := map[string]bool{}
	for _, p := range pages(t) {
		p.code(func(line int, code string) {
			if !strings.HasPrefix(code, "--") {
				return
			}
			name := flagName.FindString(code)
			if strings.HasPrefix(p.path, "docs/cli/") || p.path == "docs/howto/pipelines.md" {
				if !slices.Contains(plugins, name) {
					t.Errorf("%s:%d: the plugin has no flag %s", p.path, line, name)
				}
				return
			}
			if !slices.Contains(flags, name) && !slices.Contains(othersFlags, name) && strings.HasPrefix(p.path, "docs/") {
				t.Errorf("%s:%d: there is no flag %s", p.path, line, name)
			}
			described[name] = described[name] || p.path == "docs/flags.md"
		})
		for _, b := range p.blocks {
			for i, command := range b.lines {
				if !regexp.MustCompile(`bin/manager|ARGS=|/args/`).MatchString(command) {
					continue
				}
				for _, name := range flagName.FindAllString(command, -1) {
					if !slices.Contains(flags, name) {
						t.Errorf("%s:%d: the manager has no flag %s", p.path, b.line+i, name)
					}
				}
			}
		}
	}
	for _, name := range flags {
		if !described[name] {
			t.Errorf("docs/flags.md does not describe %s", name)
		}
	}
}

// Without one of these options helm discards the values that a reader has set earlier.
// With --reuse-values it has no defaults for the values of a newer chart.
func TestUpgradesKeepTheReadersValues(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			for command := range strings.SplitSeq(strings.ReplaceAll(b.text(), "\\\n", " "), "\n") {
				if !strings.HasPrefix(command, "helm upgrade ") {
					continue
				}
				found++
				words := strings.Fields(command)
				if !slices.Contains(words, "--values") && !slices.Contains(words, "--reset-then-reuse-values") {
					t.Errorf("%s:%d: this forgets the reader's values: %s", p.path, b.line, command)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no page upgrades the chart")
	}
}

func TestMakeTargetsAndPackagesExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-zA-Z0-9/ _-]+):(?: |$)`).FindAllStringSubmatch(string(makefile), -1) {
		for _, target := range strings.Fields(m[1]) {
			targets[target] = true
		}
	}
	if !targets["test"] || !targets["demo"] {
		t.Fatalf("targets: %v", targets)
	}
	target, pkg := regexp.MustCompile(`^(?:\w+=\S+ )*make ([a-z][\w/-]*)`), regexp.MustCompile(`^go (?:test|run) .*?\./(\S*)`)
	check := func(p *page, line int, command string) {
		if m := target.FindStringSubmatch(command); m != nil && !targets[m[1]] && !strings.HasPrefix(m[1], "bin/") {
			t.Errorf("%s:%d: there is no target %s", p.path, line, m[1])
		}
		if m := pkg.FindStringSubmatch(command); m != nil {
			if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(m[1], "..."))); err != nil {
				t.Errorf("%s:%d: there is no package ./%s", p.path, line, m[1])
			}
		}
	}
	for _, p := range pages(t) {
		p.code(func(line int, code string) { check(p, line, code) })
		for _, b := range p.blocks {
			for i, command := range b.lines {
				if b.language == "sh" {
					check(p, b.line+i, command)
				}
			}
		}
	}
}

// Every reason has a heading on the troubleshooting page.
func TestTroubleshootingKnowsEveryReason(t *testing.T) {
	all := byPath(t)
	_, table, _ := strings.Cut(all["docs/status.md"].prose, "<!-- generated by hack/docs: reasons -->")
	table, _, _ = strings.Cut(table, "<!-- end -->")
	reasons := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table, -1)
	if len(reasons) < 15 {
		t.Fatalf("docs/status.md has %d reasons", len(reasons))
	}
	var headings []string
	for _, m := range heading.FindAllStringSubmatch(all["docs/troubleshooting.md"].prose, -1) {
		headings = append(headings, strings.FieldsFunc(m[1], func(r rune) bool { return r == ' ' || r == ',' })...)
	}
	for _, reason := range reasons {
		if !slices.Contains(headings, reason[1]) {
			t.Errorf("docs/troubleshooting.md has no heading with %s", reason[1])
		}
	}
}
