package situations

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
)

// settle waits until the task is in the situation and shows what the page says, and returns
// its section and its row in the index. With -update, it waits until the task shows the
// same for two seconds.
func (s *scene) settle(old string) (section string, row indexRow) {
	s.Helper()
	if !eventually(s.Context(), patience, s.isReached) {
		s.Fatalf("never in this situation: %+v\nEvents: %v\n%s", s.get(taskName).Status, s.taskEvents(), s.logLines())
	}
	section, row = s.record()
	if !*update {
		eventually(s.Context(), 20*time.Second, func() bool {
			section, row = s.record()
			return section == old
		})
		if section != old {
			s.Errorf("%s differs from a run; run go test ./test/situations -args -update. The page has\n%s\nA run has\n%s", pagePath, old, section)
		}
		return section, row
	}
	since := time.Now()
	eventually(s.Context(), patience, func() bool {
		again, _ := s.record()
		if again != section {
			section, since = again, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	_, row = s.record()
	return section, row
}

// isReached reports whether the task is in the situation.
func (s *scene) isReached() bool {
	if readyReason(s.get(taskName)) != s.reason {
		return false
	}
	events, log := s.taskEvents(), strings.Join(s.logLines(), "\n")
	for _, reason := range s.events {
		if !hasEvent(events, reason) {
			return false
		}
	}
	return !slices.ContainsFunc(s.log, func(text string) bool { return !strings.Contains(log, text) })
}

// record returns the section about the task, and its row in the index.
func (s *scene) record() (section string, row indexRow) {
	s.Helper()
	task := s.get(taskName)
	var b strings.Builder
	row = indexRow{title: s.title, now: s.now, reason: readyReason(task)}
	fmt.Fprintf(&b, "%s\n\n```console\n$ kubectl get prefetchtask %s\n%s```\n\n", s.what, taskName, s.kubectlGet())
	fmt.Fprintf(&b, "```console\n$ kubectl teo-prefetch why %s\n%s```\n\n", taskName, s.explain(task))
	b.WriteString(statusTables(task))
	events := s.taskEvents()
	if len(events) == 0 {
		b.WriteString("Events: none.\n\n")
	} else {
		b.WriteString("| Event | reason | message |\n|---|---|---|\n")
		for _, e := range events {
			fmt.Fprintf(&b, "| %s | `%s` | %s |\n", e.Type, e.Reason, cell(e.Note))
		}
		b.WriteString("\n")
	}
	if lines := s.logLines(); len(lines) == 0 {
		b.WriteString("Log: nothing.\n\n")
	} else {
		fmt.Fprintf(&b, "```console\n%s\n```\n\n", strings.Join(lines, "\n"))
	}
	fmt.Fprintf(&b, "**Now:** %s\n", s.now)
	return s.normalize(b.String(), task), row
}

// kubectlGet returns what kubectl get prints about the task. Ages become 5m.
func (s *scene) kubectlGet() string {
	s.Helper()
	cmd, err := s.world.cluster.Kubectl(s.Context(), "get", "prefetchtask", taskName, "-n", s.namespace)
	s.must(err)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("kubectl get: %v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	columns := column.FindAllStringIndex(lines[0], -1)
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, line := range lines {
		var cells []string
		for i, at := range columns {
			end := len(line)
			if i+1 < len(columns) {
				end = min(end, columns[i+1][0])
			}
			text := s.generalize(strings.TrimSpace(line[min(at[0], end):end]))
			cells = append(cells, age.ReplaceAllString(text, "5m"))
		}
		_, err := fmt.Fprintln(w, strings.Join(cells, "\t"))
		s.must(err)
	}
	s.must(w.Flush())
	return trailing.ReplaceAllString(b.String(), "\n")
}

var (
	column   = regexp.MustCompile(`\S+(?: \S+)*`)
	age      = regexp.MustCompile(`^(?:\d+[smhd])+$`)
	trailing = regexp.MustCompile(` +\n`)
)

// explain returns what explainAnew returned about this version of the task.
func (s *scene) explain(task *v1alpha1.PrefetchTask) string {
	s.Helper()
	if s.explainedVersion != task.ResourceVersion {
		s.explanation, s.explainedVersion = s.explainAnew(task), task.ResourceVersion
	}
	return s.explanation
}

// explainAnew returns what kubectl teo-prefetch why prints about the task. Each time is 5m away, except
// that of the daily quota. The lines are broken anew, because what the page replaces has other lengths.
func (s *scene) explainAnew(task *v1alpha1.PrefetchTask) string {
	s.Helper()
	var out, errOut bytes.Buffer
	streams := genericiooptions.IOStreams{Out: &out, ErrOut: &errOut}
	if code := cli.Main(s.Context(), []string{"why", taskName, "--namespace=" + s.namespace}, streams, ""); code != 0 {
		s.Fatalf("why: exit code %d: %s", code, errOut.String())
	}
	head, paragraph, _ := strings.Cut(s.normalize(out.String(), task), "\n")
	paragraph, command, hasCommand := strings.Cut(paragraph, "\nTo ") // a line of its own, to be copied
	text := strings.Join(strings.Fields(paragraph), " ")
	for _, r := range explanationReplacements {
		head, text = r.pattern.ReplaceAllString(head, r.with), r.pattern.ReplaceAllString(text, r.with)
	}
	text = head + "\n" + strings.TrimSpace(lineOfText.ReplaceAllString(text+" ", "$1\n")) + "\n"
	if hasCommand {
		text += "To " + command
	}
	return text
}

// statusTables returns the conditions, the failed targets, and the other fields of the
// status that say what happens next.
func statusTables(task *v1alpha1.PrefetchTask) string {
	var b strings.Builder
	if len(task.Status.Conditions) == 0 {
		return "Conditions: none.\n\n"
	}
	b.WriteString("| condition | status | reason | message |\n|---|---|---|---|\n")
	order := []string{v1alpha1.ConditionReady, v1alpha1.ConditionStalled, v1alpha1.ConditionSubmitted, v1alpha1.ConditionQuotaExceeded, v1alpha1.ConditionFinished}
	for _, name := range order {
		for _, c := range task.Status.Conditions {
			if c.Type == name {
				fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", c.Type, c.Status, c.Reason, cell(c.Message))
			}
		}
	}
	b.WriteString("\n")
	if len(task.Status.FailedTargets) > 0 {
		b.WriteString("| failed target | reason | message |\n|---|---|---|\n")
		for _, f := range task.Status.FailedTargets {
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", f.URL, f.Reason, cell(f.Message))
		}
		b.WriteString("\n")
	}
	if next := task.Status.NextAttemptTime; !next.IsZero() {
		fmt.Fprintf(&b, "`nextAttemptTime`: %s\n\n", next.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// cell returns a text for a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "\n", " ").Replace(text)
}

// events returns the Events about the task, in the order in which they were sent.
func (s *scene) taskEvents() []eventsv1.Event {
	s.Helper()
	var list eventsv1.EventList
	s.must(s.world.cluster.Client.List(s.Context(), &list, client.InNamespace(s.namespace)))
	events := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return e.Regarding.Name != taskName })
	slices.SortStableFunc(events, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return events
}

// logLines returns the lines of the operator's log about the namespace or the zone, without
// the repetitions of a line.
func (s *scene) logLines() (lines []string) {
	if s.operator.manager == nil {
		return nil
	}
	for line := range strings.Lines(s.operator.manager.Output()) {
		isAbout := func(name string) bool { return name != "" && strings.Contains(line, `"`+name) }
		if !isAbout(s.zoneID+`"`) && !isAbout(s.namespace+`/`) && !isAbout(s.account) {
			continue
		}
		line = strings.TrimSpace(line)
		for _, r := range logReplacements {
			line = r.pattern.ReplaceAllString(line, r.with)
		}
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// replacement is of a text that differs from run to run.
type replacement struct {
	pattern *regexp.Regexp
	with    string
}

var (
	logReplacements = []replacement{
		{regexp.MustCompile(`"ts":[^,]+,`), ""},
		{regexp.MustCompile(`"(duration|after)":"[^"]+"`), `"$1":"80ms"`},
		{regexp.MustCompile(`"requestID":"[^"]+"`), `"requestID":"9f1c2d7e-5b1a-4c57-a4ac-4a2b7e61f0d3"`},
		{regexp.MustCompile(`"reconcileID":"[^"]+"`), `"reconcileID":"5d0b2f3c-7c1e-4f0e-9a53-0c8f4e2b6a11"`},
		{regexp.MustCompile(`"job":"[^"]+"`), `"job":"1379afjk91u32h"`},
		{regexp.MustCompile(`"claim":"[^"]+"`), `"claim":"6e5c8f0a"`},
	}
	lineOfText              = regexp.MustCompile(`(.{1,95}|\S+) `)
	explanationReplacements = []replacement{
		{regexp.MustCompile(`\(in \w+\)`), "(in 5m)"},
		{regexp.MustCompile(`16:00:00Z \(in \w+\)`), "16:00:00Z (in 13h)"},
		{regexp.MustCompile(`\((?:\w+ ago|now)\)`), "(5m ago)"},
		{regexp.MustCompile(`under the claim \w+`), "under the claim 6e5c8f0a"},
	}
	replacements = []replacement{
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT16:00:00Z`), "2026-11-30T16:00:00Z"},
		{regexp.MustCompile(`\d{4}-\d\d-\d\dT(?:[02-9]\d|1[0-57-9]|16:[0-5]\d:[0-5][1-9]|16:[1-5]\d:[0-5]\d)[:0-9]*Z`), "2026-11-30T03:00:00Z"},
	}
)

// generalize replaces the names of the situation's namespace, zone and account.
func (s *scene) generalize(text string) string {
	return strings.NewReplacer(s.namespace, "shop", s.zoneID, "zone-2x9examplea", s.accountName(), "main").Replace(text)
}

// normalize removes from a text what differs from run to run.
func (s *scene) normalize(text string, task *v1alpha1.PrefetchTask) string {
	for _, job := range task.Status.Jobs {
		text = strings.ReplaceAll(text, job.ID, "1379afjk91u32h")
	}
	text = s.generalize(text)
	for _, r := range replacements {
		text = r.pattern.ReplaceAllString(text, r.with)
	}
	return text
}
