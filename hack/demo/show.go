package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// width is the maximum length of a printed line.
const width = 100

// show applies the samples, follows them until they reach their expected states, and
// prints the results.
func (d *demo) show(ctx context.Context) error {
	if err := d.publishRelease(ctx); err != nil {
		return err
	}
	title("kubectl apply -k hack/demo/tasks")
	out, err := d.kubectlOutput(ctx, "apply", "-k", filepath.Join(d.root, "hack", "demo", "tasks"))
	if err != nil {
		return err
	}
	fmt.Print(out)

	title("Every change of the tasks, with the time since the first was created")
	if err := d.followSamples(ctx); err != nil {
		return err
	}
	title("kubectl get prefetchtasks")
	if out, err = d.kubectlOutput(ctx, "get", "prefetchtasks"); err != nil {
		return err
	}
	fmt.Print(out)
	title("A task that succeeded: kubectl get pft with-headers -o yaml")
	if out, err = d.kubectlOutput(ctx, "get", "pft", "with-headers", "-o", "yaml"); err != nil {
		return err
	}
	if i := strings.Index(out, "\nstatus:"); i >= 0 {
		fmt.Print(out[i+1:])
	}
	title("A task with bad URLs among good ones: some-bad-urls")
	describe(d.tasks.tasks["some-bad-urls"])
	if err := d.showRelease(ctx); err != nil {
		return err
	}
	if err := d.showPlugin(ctx); err != nil {
		return err
	}
	return d.showEdgeOne(ctx)
}

// followSamples prints changes until every sample has reached its expected state.
func (d *demo) followSamples(ctx context.Context) error {
	d.tasks.printHeader()
	late := time.After(patience)
	for {
		select {
		case c := <-d.tasks.changes:
			d.tasks.see(c)
			if len(unreached(d.tasks.tasks)) == 0 {
				return nil
			}
		case <-d.manager.Done():
			return d.failure("the manager ended")
		case <-late:
			return d.failure("not every sample came to what it should within " + patience.String())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// failure prints the samples that have not reached their expected states, with their
// statuses and the end of the manager's log. It returns an error that names them.
func (d *demo) failure(what string) error {
	names := unreached(d.tasks.tasks)
	for _, name := range names {
		title("Not as it should be: " + name)
		if task := d.tasks.tasks[name]; task != nil {
			describe(task)
		} else {
			fmt.Println("There is no such task.")
		}
	}
	d.managerLog()
	return fmt.Errorf("%s: see %s above", what, strings.Join(names, ", "))
}

func (d *demo) managerLog() {
	title("The end of the manager's log")
	fmt.Println(d.manager.LastLines(40))
}

// describe prints the status of a task.
func describe(task *v1alpha1.PrefetchTask) {
	s := &task.Status
	fmt.Printf("targets: %d in all, %d submitted, %d succeeded, %d failed\n",
		ptr.Deref(s.Targets.Total, 0), ptr.Deref(s.Targets.Submitted, 0), ptr.Deref(s.Targets.Succeeded, 0), ptr.Deref(s.Targets.Failed, 0))
	for _, c := range s.Conditions {
		printWrapped(fmt.Sprintf("%-14s %-7s %-16s ", c.Type, c.Status, c.Reason), c.Message)
	}
	if s.Submission != nil {
		fmt.Printf("submission: claim %s for targets %s, signed at %s\n",
			s.Submission.ClaimID, s.Submission.Positions, s.Submission.SignedAt.UTC().Format(time.RFC3339))
	}
	if !s.NextAttemptTime.IsZero() {
		fmt.Println("nextAttemptTime: " + s.NextAttemptTime.UTC().Format(time.RFC3339))
	}
	if len(s.FailedTargets) > 0 {
		fmt.Println("failedTargets:")
	}
	for _, f := range s.FailedTargets {
		fmt.Println("  " + f.URL)
		printWrapped("    "+f.Reason+": ", f.Message)
	}
}

// printWrapped prints a text after a label. Further lines are indented to the width of the
// label.
func printWrapped(label, text string) {
	line := label
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > width && len(line) > len(label) {
			fmt.Println(paintOutcomes(strings.TrimRight(line, " ")))
			line = strings.Repeat(" ", len(label))
		}
		line += word + " "
	}
	fmt.Println(paintOutcomes(strings.TrimRight(line, " ")))
}

// showEdgeOne prints the submitting calls that the simulated EdgeOne received.
func (d *demo) showEdgeOne(ctx context.Context) error {
	calls, err := d.edgeOne.Calls(ctx)
	if err != nil {
		return err
	}
	stats, err := d.edgeOne.Stats(ctx)
	if err != nil {
		return err
	}
	title("What EdgeOne saw")
	const columns = "%8s  %-18s  %-7s  %-17s  %4v  %-12s  %s\n"
	fmt.Printf(columns, "TIME", "ACTION", "ACCOUNT", "ZONE", "URLS", "OUTCOME", "JOB")
	others := map[string]int{}
	for _, c := range calls {
		if c.Action != "CreatePrefetchTask" && c.Action != "CreatePurgeTask" {
			others[c.Action]++
			continue
		}
		fmt.Printf(columns, seconds(c.Time.Sub(d.tasks.start)), c.Action, c.Account, c.ZoneID, c.Targets, c.Outcome, c.JobID)
	}
	for _, action := range slices.Sorted(maps.Keys(others)) {
		fmt.Printf("%8s  %s, %d times\n", "", action, others[action])
	}
	fmt.Printf("\n%d URLs prefetched in %d jobs, %d of them twice; %d calls throttled.\n",
		stats.Targets, stats.Jobs, stats.Duplicates, stats.Throttled(""))
	return verdict(stats)
}

func verdict(stats simulator.Stats) error {
	if stats.Duplicates > 0 {
		return fmt.Errorf("%d URLs were prefetched twice", stats.Duplicates)
	}
	return nil
}

// invite prints commands that the user can try.
func (d *demo) invite() {
	title("Your turn, in another terminal")
	fmt.Printf(`export KUBECONFIG=%s PATH=%s:$PATH

kubectl get pft -o wide
kubectl explain pft.spec
kubectl describe pft some-bad-urls
kubectl teo-prefetch failed some-bad-urls
kubectl wait --for=condition=Finished pft/single-url

# The same URL once more:
kubectl patch pft single-url --type=merge -p '{"spec":{"revision":"2"}}'

# The daily quota returns while the task that waits for it is suspended. Resumed, it continues:
kubectl patch pft over-quota --type=merge -p '{"spec":{"suspend":true}}'
curl -X POST %[3]s/_simulator/quota/reset
kubectl patch pft over-quota --type=merge -p '{"spec":{"suspend":false}}'

# A task of your own, for any host below example.com:
kubectl apply -f - <<EOF
apiVersion: teo.prefetch-operator.io/v1alpha1
kind: PrefetchTask
metadata:
  name: mine
spec:
  zoneID: zone-2x9examplea
  targets: [https://www.example.com/mine.js]
EOF

# What a visitor gets from the simulated EdgeOne, which is behind a proxy here:
%[6]s kubectl teo-prefetch verify single-url

# The log of the manager, and the calls to EdgeOne:
tail -f %[4]s
tail -f %[5]s

# EdgeOne refuses every submission until you end the fault; more faults:
curl -X POST %[3]s/_simulator/faults \
  -d '{"match":{"action":"CreatePrefetchTask"},"effect":{"code":"UnauthorizedOperation.NoPermission","message":"You have no permission."}}'
curl -X DELETE %[3]s/_simulator/faults
curl %[3]s/_simulator/

Ctrl-C ends the demo and removes all of it. Until then, what changes:

`, d.cluster.Kubeconfig, d.programs, d.edgeOne.URL, d.log("manager"), d.log("simulator"),
		strings.Join(d.edge.proxyVariables(), " "))
	d.tasks.printHeader()
}

// watchOn prints changes until the user ends the demo.
func (d *demo) watchOn(ctx context.Context) error {
	for {
		select {
		case c := <-d.tasks.changes:
			d.tasks.see(c)
		case <-d.manager.Done():
			d.managerLog()
			return errors.New("the manager ended")
		case <-ctx.Done():
			fmt.Println("\nStopping everything")
			return nil
		}
	}
}

func title(text string) {
	fmt.Printf("\n%s\n", paint(bold, fmt.Sprintf("--- %s %s", text, strings.Repeat("-", max(3, width-len(text)-5)))))
}

// SGR parameters of a terminal.
const bold, red, green, yellow = 1, 31, 32, 33

// colours reports whether to print colours: on a terminal, unless the environment says
// otherwise.
var colours = sync.OnceValue(func() bool {
	info, err := os.Stdout.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return os.Getenv("FORCE_COLOR") != "" || terminal && os.Getenv("NO_COLOR") == ""
})

func paint(style int, text string) string {
	if !colours() {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", style, text)
}

var outcome = regexp.MustCompile(`\b(?:True|Succeeded|PartiallyFailed|Failed|Refused|Invalid|DailyQuota)\b`)

// paintOutcomes highlights outcomes in a line.
func paintOutcomes(line string) string {
	return outcome.ReplaceAllStringFunc(line, func(word string) string {
		switch word {
		case "True", "Succeeded":
			return paint(green, word)
		case "DailyQuota":
			return paint(yellow, word)
		}
		return paint(red, word)
	})
}
