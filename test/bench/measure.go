package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// series is a list of durations.
type series []time.Duration

// percentile returns the smallest duration that is not exceeded by the share p of all.
func (s series) percentile(p float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, min(len(sorted)-1, int(float64(len(sorted))*p+0.999999)-1))]
}

// untilJobs returns two times. each has, for each task, the time from the request that
// creates the task to the JobId in its status. all is the time from the first request to
// the last JobId.
func untilJobs(lives map[string]life) (each series, all time.Duration) {
	var first, last time.Time
	for _, l := range lives {
		if l.submitted.IsZero() {
			continue
		}
		each = append(each, l.submitted.Sub(l.asked))
		if first.IsZero() || l.asked.Before(first) {
			first = l.asked
		}
		if l.submitted.After(last) {
			last = l.submitted
		}
	}
	return each, last.Sub(first)
}

// sum adds up the samples of a metric whose lines contain all of the given texts.
func sum(page, metric string, with ...string) (total float64, err error) {
	for line := range strings.Lines(page) {
		rest, found := strings.CutPrefix(line, metric)
		if !found || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") ||
			slices.ContainsFunc(with, func(text string) bool { return !strings.Contains(line, text) }) {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
		if err != nil {
			return 0, err
		}
		total += value
	}
	return total, nil
}

// requests returns how many requests a program has made to the API server.
func (p *program) requests(ctx context.Context) (int, error) {
	page, err := get(ctx, http.DefaultClient, p.metrics)
	if err != nil {
		return 0, err
	}
	n, err := sum(page, "rest_client_requests_total")
	return int(n), err
}

// statusWrites returns how many status writes the API server has received, including
// conflicts.
func (w *world) statusWrites(ctx context.Context) (int, error) {
	page, err := w.raw(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	n, err := sum(page, "apiserver_request_total", `subresource="status"`, `resource="`+w.tasks.kind.resource+`"`)
	return int(n), err
}

// usage is what a process has used.
type usage struct {
	cpu       time.Duration
	rss, peak int // MiB
}

// ticks is USER_HZ: how many of the kernel's units of CPU time make a second. It is 100 on
// all current Linux systems.
const ticks = 100

// usage reads from /proc what the process has used so far.
func (p *program) usage() (u usage, err error) {
	dir := "/proc/" + strconv.Itoa(p.PID())
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, err
	}
	// The name, in parentheses, may contain any character. utime and stime are fields 14
	// and 15.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(n) * time.Second / ticks
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if n, found := kilobytes(line, "VmRSS:"); found {
			u.rss = n / 1024
		} else if n, found := kilobytes(line, "VmHWM:"); found {
			u.peak = n / 1024
		}
	}
	return u, nil
}

func kilobytes(line, label string) (n int, found bool) {
	rest, found := strings.CutPrefix(line, label)
	if !found {
		return 0, false
	}
	_, err := fmt.Sscan(rest, &n)
	return n, err == nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
func millis(d time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}
func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// times returns how many times as long as b a is.
func times(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// number formats n with a comma between thousands.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
