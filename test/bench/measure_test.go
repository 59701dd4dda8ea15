package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

func TestAPercentileIsTheSmallestThatTheShareDoesNotExceed(t *testing.T) {
	var hundred series
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, tt := range []struct {
		of   series
		p    float64
		want time.Duration
	}{
		{hundred, .5, 50}, {hundred, .99, 99}, {hundred, 1, 100}, {hundred, .001, 1},
		{series{3, 1, 2}, .5, 2}, {series{7}, .99, 7}, {nil, .5, 0},
	} {
		if got := tt.of.percentile(tt.p); got != tt.want {
			t.Errorf("of %d values %v is %d, want %d", len(tt.of), tt.p, got, tt.want)
		}
	}
}

func TestTheSamplesOfAMetricAreAddedUp(t *testing.T) {
	const page = `# HELP requests_total Requests.
requests_total{verb="PUT",subresource="status"} 3
requests_total{verb="PUT",subresource=""} 4
requests_total{verb="GET",subresource="status"} 1.5e+01
requests_total_created{subresource="status"} 100
plain 7
`
	for _, tt := range []struct {
		metric string
		with   []string
		want   float64
	}{
		{"requests_total", nil, 22},
		{"requests_total", []string{`subresource="status"`}, 18},
		{"requests_total", []string{`subresource="status"`, `verb="PUT"`}, 3},
		{"plain", nil, 7},
		{"missing", nil, 0},
	} {
		if got, err := sum(page, tt.metric, tt.with...); err != nil || got != tt.want {
			t.Errorf("%s %q: %v, %v, want %v", tt.metric, tt.with, got, err, tt.want)
		}
	}
}

func TestALimiterAtTheLimitUsesAllOfIt(t *testing.T) {
	start := time.Now()
	var calls []simulator.Call
	for i := range 200 { // 20 at once, every second
		calls = append(calls, simulator.Call{Time: start.Add(time.Duration(i/rate) * time.Second)})
	}
	if got := share(calls, rate); got != 1 {
		t.Errorf("bursts use %v, want 1", got)
	}
	for i := range calls { // one every 100 ms
		calls[i].Time = start.Add(time.Duration(i) * 100 * time.Millisecond)
	}
	if got := share(calls, rate); got < .45 || got > .5 {
		t.Errorf("half of the rate uses %v", got)
	}
}

func TestOnlyCallsThatBeganAfterACreationAreAheadOfATask(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	calls := []simulator.Call{
		{Time: at(10), URLs: []string{targetURL("earlier", 0)}},
		{Time: at(110), URLs: []string{targetURL("under-way", 0)}},
		{Time: at(250), URLs: []string{targetURL("decided", 0)}},
		{Time: at(320), URLs: []string{targetURL("ahead", 0), targetURL("ahead", 1)}},
		{Time: at(420), URLs: []string{targetURL("beside", 0)}},
		{Time: at(430), URLs: []string{targetURL("single", 0)}},
		{Time: at(440), URLs: []string{targetURL("after", 0)}},
	}
	lives := map[string]life{
		"single": {created: at(100), claimed: at(400)}, "earlier": {claimed: at(5)}, "under-way": {claimed: at(90)},
		"decided": {claimed: at(150)}, "ahead": {claimed: at(300)}, "beside": {claimed: at(390)}, "after": {claimed: at(435)},
	}
	if before, ahead := callsBefore(calls, lives, "single"), callsAhead(calls, lives, "single"); before != 3 || ahead != 1 {
		t.Errorf("%d calls went before, want 3, and %d were ahead, want 1", before, ahead)
	}
}

func TestNumbersAreWrittenWithCommas(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 100000: "100,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d is written %s", n, got)
		}
	}
}

func TestATargetTellsItsTask(t *testing.T) {
	url := targetURL("task-000001", 7)
	if len(url) != 100 || taskOf(url) != "task-000001" || taskOf(string(archiveURL("a"))) != "a" {
		t.Errorf("%s, %d bytes, is of %s", url, len(url), taskOf(url))
	}
	if fmt.Sprint(task(namespace, "a", 2).Spec.Targets[1]) == fmt.Sprint(task(namespace, "a", 2).Spec.Targets[0]) {
		t.Error("two targets of a task are the same")
	}
}
