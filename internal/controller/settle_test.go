package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func history(jobs map[string][]string) taskstate.JobRecords {
	l := taskstate.JobRecords{}
	for id, urls := range jobs {
		for _, u := range urls {
			l.AddTasks([]teo.Record{{JobID: id, Target: u, Status: teo.StatusProcessing, CreateTime: controllertest.T0}})
		}
	}
	return l
}

func TestSettle(t *testing.T) {
	const a, b, c, d = "https://h/a", "https://h/b", "https://h/c", "https://h/d"
	type jobs = map[string][]string
	for _, test := range []struct {
		name   string
		jobs   jobs
		owners map[string]string
		past   bool
		want   taskstate.ClaimDecision
		adopts string
	}{
		{"nothing is listed before the fence: look again", nil, nil, false, taskstate.Undecided, "[]"},
		{"nothing is listed after it: not executed", nil, nil, true, taskstate.NotExecuted, "[]"},
		{"a job that lists all is adopted before the fence", jobs{"1": {a, b, d}}, nil, false, taskstate.Found, "[{1 0-1}]"},
		{"a job that lists some is not", jobs{"1": {a}}, nil, false, taskstate.Undecided, "[]"},
		{"after the fence it is, and the rest goes back", jobs{"1": {a}}, nil, true, taskstate.Found, "[{1 0}]"},
		{"recorded elsewhere: not before the fence", jobs{"1": {a, b}}, map[string]string{"1": "other"}, false, taskstate.Undecided, "[]"},
		{"recorded elsewhere is no evidence that it was not executed", jobs{"1": {a, b}}, map[string]string{"1": "other"}, true, taskstate.Found, "[{1 0-1}]"},
		{"recorded under the same claim", jobs{"1": {a, b}}, map[string]string{"1": "mine"}, false, taskstate.Found, "[{1 0-1}]"},
		{"the exact job comes first", jobs{"1": {a, b, d}, "2": {a, b, c}}, nil, false, taskstate.Found, "[{2 0-1}]"},
		{"one's own before another's, whatever fits better", jobs{"1": {a, b, c}, "2": {a, b, d}}, map[string]string{"1": "other"}, true, taskstate.Found, "[{2 0-1}]"},
		{"overlapping jobs share the targets", jobs{"1": {a}, "2": {b}, "3": {a, d}}, nil, true, taskstate.Found, "[{1 0} {2 1}]"},
		{"another spelling is the same URL", jobs{"1": {"HTTPS://H:443/a", b}}, nil, false, taskstate.Found, "[{1 0-1}]"},
		{"jobs of others do not matter", jobs{"1": {d}}, nil, true, taskstate.NotExecuted, "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			submission := &v1alpha1.Submission{ClaimID: "mine", Positions: "0-1", CallHash: taskstate.HashCall([]string{a, b, c})}
			got, adoptions := taskstate.MatchClaim(submission, []string{a, b, c}, history(test.jobs), test.past, func(id string) string { return test.owners[id] })
			var jobs []string
			for _, job := range adoptions {
				jobs = append(jobs, "{"+job.JobID+" "+job.Positions.String()+"}")
			}
			if got != test.want || fmt.Sprint(jobs) != test.adopts {
				t.Errorf("%v %v, want %v %v", got, jobs, test.want, test.adopts)
			}
		})
	}
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name string
		at   time.Duration
		in   bool
	}{
		{"in the second of the claim", 400 * time.Millisecond, true}, {"as much before as clocks may differ", -taskstate.ClockSkew, true},
		{"before", -taskstate.ClockSkew - time.Second, false}, {"at the end", time.Minute, true}, {"after", time.Minute + time.Second, false},
	} {
		l := taskstate.JobRecords{}
		l.AddTasks([]teo.Record{{JobID: "1", Target: "https://h/a", CreateTime: controllertest.T0.Add(c.at)}})
		if _, in := l.SelectWindow(controllertest.T0.Add(500*time.Millisecond), controllertest.T0.Add(time.Minute), func(string) bool { return false })["1"]; in != c.in {
			t.Errorf("%s: in the window: %v", c.name, in)
		}
		isEarly := c.at < 0
		if _, in := l.SelectWindow(controllertest.T0.Add(500*time.Millisecond), controllertest.T0.Add(time.Minute), func(string) bool { return true })["1"]; in != (c.in && !isEarly) {
			t.Errorf("%s, and another call's: in the window: %v", c.name, in)
		}
	}
}
