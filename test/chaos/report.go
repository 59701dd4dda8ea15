package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/test/judge"
)

// blame records the fault that a fault ID of the simulator belongs to.
func (c *chaos) blame(id int, f *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blamed[id] = f
}

// row is a row of the table.
type row struct {
	struck                     int
	duplicates, losses, stucks int
	recoveries                 []time.Duration
}

// report judges the run and prints the table. It returns an error if there is any defect.
func (c *chaos) report(tasks []v1alpha1.PrefetchTask, took time.Duration, err error) error {
	if err != nil {
		return err
	}
	ledger, calls := c.edgeOne.Ledger(), c.edgeOne.Calls()
	c.users.mu.Lock()
	defects := judge.FindDefects(judge.Evidence{Ledger: ledger, Tasks: tasks, ReadAt: c.edgeOne.Now(), Asked: c.users.asked, Answer: answer})
	c.users.mu.Unlock()
	ofReleases, releases := c.judgeReleases()
	defects = append(defects, ofReleases...)
	rows := c.rows(ledger, calls)
	for _, d := range defects {
		c.attribute(d, rows)
	}
	c.print(rows)
	c.totals(ledger, calls, tasks, defects, took)
	c.printReleases(releases)
	if len(defects) == 0 {
		return c.failure()
	}
	c.explain(defects, ledger, calls)
	return fmt.Errorf("%w: %d defects", errDefects, len(defects))
}

// rows counts how often each fault struck and how long recovery took.
func (c *chaos) rows(ledger simulator.Ledger, calls []simulator.Call) map[*fault]*row {
	rows := map[*fault]*row{}
	for _, g := range groups {
		for i := range g.faults {
			rows[&g.faults[i]] = &row{}
		}
	}
	for _, call := range calls {
		for _, id := range call.Faults {
			if f := c.blamed[id]; f != nil {
				rows[f].struck++
			}
		}
	}
	progress := c.progressTimes(calls)
	for _, i := range c.injections {
		r := rows[i.fault]
		if !i.fault.byCalls {
			r.struck += i.struck
		}
		if i.fault.lost || i.struck == 0 {
			continue
		}
		if next, _ := slices.BinarySearchFunc(progress, i.recovery, time.Time.Compare); next < len(progress) {
			r.recoveries = append(r.recoveries, progress[next].Sub(i.recovery))
		}
	}
	c.lostCalls(ledger, calls, rows)
	return rows
}

// befallen returns how many calls a fault of the simulator has struck so far.
func (c *chaos) befallen(id int) (n int) {
	for _, call := range c.edgeOne.Calls() {
		if slices.Contains(call.Faults, id) {
			n++
		}
	}
	return n
}

// progressTimes returns when the managers made progress: a call was accepted and answered,
// or a job was recorded.
func (c *chaos) progressTimes(calls []simulator.Call) (times []time.Time) {
	for _, call := range calls {
		if call.Action == "CreatePrefetchTask" && call.Executed && call.Outcome == "OK" {
			times = append(times, call.Time)
		}
	}
	c.seen.mu.Lock()
	defer c.seen.mu.Unlock()
	for _, at := range c.seen.jobs {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// lostCalls measures the recovery of each call whose response a fault suppressed. For an
// executed call, it is the time from when EdgeOne lists the complete job until a status
// names the job. For a call that was not executed, it is the time from the end of the
// margin after the fence until all its URLs are sent again. URLs of tasks that a user
// changed do not count.
func (c *chaos) lostCalls(ledger simulator.Ledger, calls []simulator.Call, rows map[*fault]*row) {
	executed := map[string]simulator.Execution{}
	for _, e := range ledger {
		executed[e.RequestID] = e
	}
	sent := map[string][]int{} // calls by URL
	for i, call := range calls {
		if call.Action == "CreatePrefetchTask" {
			for _, u := range call.URLs {
				sent[u] = append(sent[u], i)
			}
		}
	}
	for _, call := range calls {
		for _, id := range call.Faults {
			f := c.blamed[id]
			if f == nil || !f.lost {
				continue
			}
			if e, ok := executed[call.RequestID]; ok {
				// Tasks that were changed may no longer need the job.
				if at, ok := c.seen.jobs[e.JobID]; ok && slices.ContainsFunc(e.Accepted, func(u string) bool { return !c.users.touched(u) }) {
					rows[f].recoveries = append(rows[f].recoveries, max(0, at.Sub(c.listedAt(e))))
				}
				continue
			}
			if d, ok := c.sentAgain(call, calls, sent); ok {
				rows[f].recoveries = append(rows[f].recoveries, d)
			}
		}
	}
}

// listedAt returns when EdgeOne lists all URLs of an execution.
func (c *chaos) listedAt(e simulator.Execution) time.Time {
	delay := listingDelay
	for _, i := range c.injections {
		if strings.HasPrefix(i.fault.name, "history lists late") && !e.Time.Before(i.from) && !e.Time.After(i.to) {
			delay = slowListingDelay
		}
	}
	return e.Time.Add(delay + time.Duration(max(0, len(e.Accepted)-1))*listingStep)
}

// sentAgain returns how long after fence and margin the last of a call's URLs was sent
// again.
func (c *chaos) sentAgain(call simulator.Call, calls []simulator.Call, sent map[string][]int) (worst time.Duration, ok bool) {
	due := call.SignedAt.Add(validity + margin)
	for _, u := range call.URLs {
		if c.users.touched(u) {
			continue
		}
		for _, i := range sent[u] {
			if calls[i].SignedAt.After(call.SignedAt) {
				worst, ok = max(worst, calls[i].Time.Sub(due)), true
				break
			}
		}
	}
	return worst, ok
}

// touched reports whether a URL is shared, or its task was ever changed.
func (u *users) touched(target string) bool {
	parts := strings.Split(target, "/") // https: "" host namespace task run-1 2
	if len(parts) < 7 {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.changed[client.ObjectKey{Namespace: parts[3], Name: parts[4]}]
}

// attribute counts a defect for every fault that was active when the defect arose.
func (c *chaos) attribute(d judge.Defect, rows map[*fault]*row) {
	met := map[*fault]bool{}
	for _, i := range c.injections {
		if i.from.Before(d.To) && i.to.After(d.From) {
			met[i.fault] = true
		}
	}
	for f := range met {
		switch d.Kind {
		case judge.Duplicate:
			rows[f].duplicates++
		case judge.Loss:
			rows[f].losses++
		case judge.Stuck:
			rows[f].stucks++
		case judge.Miscount, judge.Repurge, judge.Overtake, judge.Older, judge.Cold: // counted in the totals only
		}
	}
}

func (c *chaos) print(rows map[*fault]*row) {
	c.say("\n| fault | injected | duplicates | losses | stuck | time to recover: median | worst |")
	c.say("|---|--:|--:|--:|--:|--:|--:|")
	for _, g := range groups {
		for i := range g.faults {
			f := &g.faults[i]
			r := rows[f]
			median, worst := "–", "–"
			if n := len(r.recoveries); n > 0 {
				slices.Sort(r.recoveries)
				median, worst = seconds(r.recoveries[n/2]), seconds(r.recoveries[n-1])
			}
			c.say("| %s: %s | %d | %d | %d | %d | %s | %s |", g.name, f.name, r.struck, r.duplicates, r.losses, r.stucks, median, worst)
		}
	}
	c.say("\nTime to recover: of a lost call that was executed, from its listing to the status that names its job; of one that was not, "+
		"from fence and margin (%s after it was signed) until it is sent again; of anything else, from its end (of a killed process: its death) "+
		"until the next call is accepted or job recorded. A defect counts for every fault that was at work when it came about.", validity+margin)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func (c *chaos) totals(ledger simulator.Ledger, calls []simulator.Call, tasks []v1alpha1.PrefetchTask, defects []judge.Defect, took time.Duration) {
	done, runs, urls := c.users.summary()
	stats := c.edgeOne.Stats()
	outcomes := map[string]int{}
	lost, late, tasksOfCalls := 0, 0, 0
	for _, call := range calls {
		if call.Action != "CreatePrefetchTask" {
			continue
		}
		outcomes[call.Outcome]++
		if slices.ContainsFunc(call.Faults, func(id int) bool { f := c.blamed[id]; return f != nil && f.lost }) {
			lost++
		}
		if call.Time.Sub(call.SignedAt) > callTimeout+3*time.Second {
			late++
		}
		tasksOfCalls = max(tasksOfCalls, call.Targets)
	}
	found := map[judge.Kind]int{}
	for _, d := range defects {
		found[d.Kind]++
	}
	c.say("\n| total | |\n|---|--:|")
	for _, line := range []struct {
		what string
		n    any
	}{
		{"seed", c.seed},
		{"duration", c.duration},
		{"tasks created", done["created"]},
		{"… edited, suspended, resumed, deleted, re-created, edited and put back", fmt.Sprintf("%d, %d, %d, %d, %d, %d",
			done["edited"], done["suspended"], done["resumed"], done["deleted"], done["recreated"], done["detoured"])},
		{"tasks alive at the end", len(tasks)},
		{"runs asked for", runs},
		{"different URLs asked for", urls},
		{"URLs executed", ledger.Prefetches().Targets()},
		{"calls of CreatePrefetchTask", stats.Calls("CreatePrefetchTask")},
		{"… executed", len(ledger.Prefetches())},
		{"… whose answer was lost or spoiled", lost},
		{"… that came more than 5 s after they were signed", late},
		{"… refused by the fence (SignatureExpire)", outcomes["AuthFailure.SignatureExpire"]},
		{"… throttled", stats.Throttled("CreatePrefetchTask")},
		{"… the largest, in URLs", tasksOfCalls},
		{"calls of DescribePrefetchTasks", stats.Calls("DescribePrefetchTasks")},
		{"starts of managers", c.managers[0].process.Starts() + c.managers[1].process.Starts()},
		{"faults injected", len(c.injections)},
		{"calm until all tasks had ended", took.Round(100 * time.Millisecond)},
		{"**duplicates**", found[judge.Duplicate]},
		{"**losses**", found[judge.Loss]},
		{"**stuck**", found[judge.Stuck]},
		{"**miscounts**", found[judge.Miscount]},
	} {
		c.say("| %s | %v |", line.what, line.n)
	}
}

// printReleases prints what visitors and the cache saw of releases.
func (c *chaos) printReleases(n judge.RefreshCounts) {
	stats := c.edgeOne.Stats()
	c.say("\n| releases | |\n|---|--:|")
	for _, line := range []struct {
		what string
		n    int
	}{
		{"runs that purge", n.Runs},
		{"URLs that they refresh", n.URLs},
		{"calls of CreatePurgeTask", stats.Calls("CreatePurgeTask")},
		{"targets purged", n.Purges},
		{"visitors asked after Ready", n.Visitors},
		{"**… who saw an older version**", n.Older},
		{"**URLs purged twice in a run**", n.Repurged},
		{"**URLs prefetched before their purge, or purged after their prefetch**", n.Overtook},
		{fmt.Sprintf("**URLs cold for more than %s without a status that says so**", coldLimit), n.Cold},
	} {
		c.say("| %s | %d |", line.what, line.n)
	}
}

// explain prints the defects and keeps the data that is needed to find their causes.
func (c *chaos) explain(defects []judge.Defect, ledger simulator.Ledger, calls []simulator.Call) {
	c.say("")
	for n, d := range defects {
		if n == 20 {
			c.say("… and %d more", len(defects)-n)
			break
		}
		c.say("%s", d)
		for _, call := range calls {
			if d.URL != "" && slices.Contains(call.URLs, d.URL) {
				var faults []string
				for _, id := range call.Faults {
					if f := c.blamed[id]; f != nil {
						faults = append(faults, f.name)
					}
				}
				c.say("    call %s: arrived %s, signed %s, %d URLs, job %q, outcome %s, executed %t, faults %q", call.RequestID,
					call.Time.UTC().Format("15:04:05.000"), call.SignedAt.UTC().Format("15:04:05"), call.Targets, call.JobID, call.Outcome, call.Executed, faults)
			}
		}
	}
	for name, what := range map[string]any{"ledger.json": ledger, "calls.json": calls} {
		if text, err := json.MarshalIndent(what, "", " "); err == nil {
			_ = os.WriteFile(c.logFile(name), text, 0o600)
		}
	}
	var lines strings.Builder
	for _, i := range c.injections {
		fmt.Fprintf(&lines, "%s to %s struck %d: %s\n", i.from.UTC().Format("15:04:05.000"), i.to.UTC().Format("15:04:05.000"), i.struck, i.event)
	}
	_ = os.WriteFile(c.logFile("faults.txt"), []byte(lines.String()), 0o600)
}
