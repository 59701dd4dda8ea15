package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	testZone   = "zone-2x9examplea"
	testURL    = "https://www.example.com/logo.png"
	testID     = "AKIDsmoketest000000"
	testSecret = "smoke-test-secret-key-0000"
)

// edgeOne is a simulated EdgeOne on a loopback port.
type edgeOne struct {
	*simulator.Simulator
	url string
}

func startEdgeOne(t *testing.T, change func(*simulator.Config)) edgeOne {
	t.Helper()
	c := simulator.Config{
		Keys:         []simulator.Key{{SecretID: testID, SecretKey: testSecret, Account: "a"}},
		Zones:        []simulator.Zone{{ID: testZone, Account: "a", Domains: []string{"www.example.com"}}},
		JobDuration:  2 * time.Second,
		ListingDelay: 300 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	s := simulator.New(c)
	e := edgeOne{s, s.Start()}
	t.Cleanup(s.Close)
	return e
}

// result is what a run left behind.
type result struct {
	status         int
	stdout, stderr string
}

// skipIfShort keeps test-unit fast: each run takes seconds, as in reality.
func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes several runs; skipped with -short")
	}
	t.Parallel()
}

// runWith runs the program. Empty values in env remove a variable.
func (e edgeOne) runWith(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	getenv := func(name string) string {
		if value, ok := env[name]; ok {
			return value
		}
		return map[string]string{"TENCENTCLOUD_SECRET_ID": testID, "TENCENTCLOUD_SECRET_KEY": testSecret}[name]
	}
	all := append([]string{"-endpoint=" + e.url, "-look-interval=50ms", "-poll-interval=100ms", "-timeout=30s"}, args...)
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), all, getenv, &stdout, &stderr)
	for _, text := range []string{stdout.String(), stderr.String()} {
		for _, secret := range []string{testID, testSecret, getenv("TENCENTCLOUD_SECRET_ID"), getenv("TENCENTCLOUD_SECRET_KEY"), getenv("TENCENTCLOUD_TOKEN")} {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("the output has a secret:\n%s", text)
			}
		}
	}
	return result{status, stdout.String(), stderr.String()}
}

// prefetch runs the program with good input.
func (e edgeOne) prefetch(t *testing.T, args ...string) result {
	t.Helper()
	return e.runWith(t, nil, append([]string{"-zone=" + testZone, "-url=" + testURL}, args...)...)
}

// row returns a fact's cells of the Markdown table: expected, observed, verdict.
func (r result) row(t *testing.T, name string) (cells [3]string) {
	t.Helper()
	for line := range strings.SplitSeq(r.stdout, "\n") {
		if rest, ok := strings.CutPrefix(line, "| "+strings.ReplaceAll(name, "*", `\*`)+" | "); ok {
			copy(cells[:], strings.Split(strings.TrimSuffix(rest, " |"), " | "))
			return cells
		}
	}
	t.Fatalf("no row of %s in:\n%s", name, r.stdout)
	return cells
}

// verdict fails the test unless a fact has a verdict and an observation that contain these
// texts.
func (r result) verdict(t *testing.T, name, verdict, observed string) {
	t.Helper()
	if row := r.row(t, name); !strings.Contains(row[2], verdict) || !strings.Contains(row[1], observed) {
		t.Errorf("%s: observed %q, verdict %q; want %q and %q", name, row[1], row[2], observed, verdict)
	}
}

func (e edgeOne) submissions() (n int) {
	for _, c := range e.Calls() {
		if c.Action == teo.ActionCreatePrefetchTask {
			n++
		}
	}
	return n
}

func TestAnEdgeOneAsAssumed(t *testing.T) {
	t.Parallel()
	e := startEdgeOne(t, nil)
	e.AddJob(simulator.Job{ZoneID: testZone, URLs: []string{"https://www.example.com/old"}, Created: time.Now().Add(-100 * time.Hour)})
	before := e.Ledger().Targets()
	r := e.prefetch(t)
	if r.status != exitOK || r.stderr != "" {
		t.Errorf("status %d, %s\n%s", r.status, r.stderr, r.stdout)
	}
	if n := e.Ledger().Targets() - before; n != 1 || e.Ledger().Executed(testURL) != 1 || e.submissions() != 1 {
		t.Errorf("EdgeOne executed %d URLs in %d submissions, %d times the one that was asked for", n, e.submissions(), e.Ledger().Executed(testURL))
	}
	for name, observed := range map[string]string{
		factDate: "the clock here agrees", factStatus: "200", factParameter: "UnknownParameter", factRateHeader: "none",
		factSignature: "accepted after 2m30s, refused after 5m15s", factZone: "InvalidParameter.ZoneNotFound", factWildcard: "InvalidParameter.ParameterError",
		factQuota: "Batch 2000, Daily 10000, DailyAvailable 10000", factCost: "1", factPage: "1000", factOffset: "0 records", factWindow: "744h is accepted",
		factRetention: "4.2 days old", factUnknownJob: "a list of 0", factAccepted: "FailedList null", factDelay: "shown after", factClock: "after the signature",
		factFormat: "T", factEnds: "both", factJobID: "lists the job, and 0 records", factSpelling: "as it was sent", factRecords: "1, with a TotalCount of 1",
		factOutcome: "processing, then success",
	} {
		r.verdict(t, name, string(asAssumed), observed)
	}
	r.verdict(t, factTarget, string(noted), "finds it; with the host in upper case does not find it")
	if !strings.Contains(r.stdout, "throttles the account's other programs (--teo-qps)") {
		t.Errorf("it does not say why it does not probe the call rate:\n%s", r.stdout)
	}
	first, _, _ := strings.Cut(r.stdout, "\n")
	for _, part := range []string{testZone, testURL, "one call", "1 URL of the zone's daily quota"} {
		if !strings.Contains(first, part) {
			t.Errorf("the first line does not have %q: %s", part, first)
		}
	}
	if heading := "### " + time.Now().UTC().Format(time.DateOnly) + ", a simulator\n\n| fact | expected | observed | verdict |\n"; !strings.Contains(r.stdout, heading) {
		t.Errorf("no Markdown for the page:\n%s", r.stdout)
	}
}

func TestADifferenceNamesTheFlag(t *testing.T) {
	skipIfShort(t)
	for _, c := range []struct {
		name           string
		change         func(*simulator.Config)
		args           []string
		fact           string
		verdict, shows string
		status         int
	}{
		{"the history is late", func(c *simulator.Config) { c.ListingDelay = 1200 * time.Millisecond }, []string{"-listing-delay=500ms"},
			factDelay, "differs: set --listing-delay=10s", "shown after", exitDiffers},
		{"the history never shows the call", func(c *simulator.Config) { c.ListingDelay = time.Hour }, []string{"-listing-delay=500ms", "-timeout=7s"},
			factDelay, "differs: set --listing-delay to more", "not shown after", exitDiffers},
		{"signatures live longer", func(c *simulator.Config) { c.SignatureValidity = 11 * time.Minute }, nil,
			factSignature, "differs: set --signature-validity=15m15s", "refused only after 15m15s", exitDiffers},
		{"signatures live shorter", func(c *simulator.Config) { c.SignatureValidity = 2 * time.Minute }, nil,
			factSignature, "differs: set --signature-validity=2m30s", "refused after 2m30s", exitDiffers},
		{"no quota is reported", func(c *simulator.Config) { c.Zones[0].NullQuota = true }, nil,
			factQuota, "differs: set --batch", "no quota", exitDiffers},
		{"the Date is ahead", func(c *simulator.Config) { c.DateSkew = 20 * time.Second }, []string{"-listing-delay=500ms"},
			factClock, "differs: no flag changes this", "before the signature", exitDiffers},
		{"a job cannot be read by its ID", func(c *simulator.Config) { c.RejectedJobIDs = "." }, []string{"-listing-delay=500ms"},
			factJobID, "differs: no flag changes this", "a window shows the job and the filter does not", exitDiffers},
		{"long windows are refused", func(c *simulator.Config) { c.MaxWindow = 30 * time.Minute }, nil,
			factWindow, string(asAssumed), "5m33s is accepted", exitOK},
		{"windows are too short", func(c *simulator.Config) { c.MaxWindow = 2 * time.Minute }, nil,
			factWindow, "differs: no flag changes this", "5m33s is refused with InvalidParameter.ParameterError", exitDiffers},
		{"zone * is accepted", func(c *simulator.Config) { c.WildcardLookups = true }, nil,
			factWildcard, string(asAssumed), "accepted", exitOK},
		{"this machine's clock is wrong", func(c *simulator.Config) { c.ClockOffset = 10 * time.Minute }, nil,
			factDate, string(asAssumed), "behind", exitOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := startEdgeOne(t, c.change)
			r := e.prefetch(t, c.args...)
			r.verdict(t, c.fact, c.verdict, c.shows)
			if r.status != c.status || e.submissions() != 1 {
				t.Errorf("status %d after %d submissions; want %d after 1:\n%s", r.status, e.submissions(), c.status, r.stdout)
			}
		})
	}
}

func TestWithoutUsableInputNothingIsCalled(t *testing.T) {
	t.Parallel()
	e := startEdgeOne(t, nil)
	zone, url := "-zone="+testZone, "-url="+testURL
	for _, c := range []struct {
		name, says string
		env        map[string]string
		args       []string
	}{
		{"no zone", "no zone is set", nil, []string{url}},
		{"an empty zone", "no zone is set", nil, []string{"-zone=", url}},
		{"all zones", `the zone "*" is not an EdgeOne zone ID`, nil, []string{"-zone=*", url}},
		{"no URL", "no URL is set", nil, []string{zone}},
		{"no scheme", "must be a full URL that starts with http:// or https://", nil, []string{zone, "-url=www.example.com/logo.png"}},
		{"a wildcard", "must not have a wildcard", nil, []string{zone, "-url=https://www.example.com/*"}},
		{"no keys", "TENCENTCLOUD_SECRET_ID or TENCENTCLOUD_SECRET_KEY is not set", map[string]string{"TENCENTCLOUD_SECRET_ID": ""}, []string{zone, url}},
		{"no secret", "TENCENTCLOUD_SECRET_ID or TENCENTCLOUD_SECRET_KEY is not set", map[string]string{"TENCENTCLOUD_SECRET_KEY": ""}, []string{zone, url}},
		{"a line break in a key", "white space", map[string]string{"TENCENTCLOUD_SECRET_KEY": testSecret + "\n"}, []string{zone, url}},
		{"plain http", "use https", nil, []string{zone, url, "-endpoint=http://teo.tencentcloudapi.com"}},
		{"no time", "-timeout is 0s", nil, []string{zone, url, "-timeout=0"}},
		{"an unknown flag", "not defined: -zones", nil, []string{"-zones=x"}},
		{"a word", `"now" is not a flag`, nil, []string{zone, url, "now"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := e.runWith(t, c.env, c.args...)
			r.isOneSentence(t, c.says)
		})
	}
	if calls := e.Calls(); len(calls) > 0 {
		t.Errorf("EdgeOne got %d calls", len(calls))
	}
}

// isOneSentence fails the test unless the program ended with the status of unusable input
// and one sentence.
func (r result) isOneSentence(t *testing.T, says string) {
	t.Helper()
	if r.status != exitInput || !strings.Contains(r.stderr, says) || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, ".\n") {
		t.Errorf("status %d, and it says %q; want %d and one line with %q", r.status, r.stderr, exitInput, says)
	}
}

func TestRefusedKeysSubmitNothing(t *testing.T) {
	t.Parallel()
	reads := []string{teo.ActionDescribeContentQuota, teo.ActionCreatePrefetchTask}
	for _, c := range []struct {
		name, says string
		change     func(*simulator.Config)
		env        map[string]string
		zone       string
	}{
		{"unknown keys", "refuses the keys, so nothing was prefetched: AuthFailure.SecretIdNotFound", nil, map[string]string{"TENCENTCLOUD_SECRET_ID": "AKIDsomebodyelse"}, ""},
		{"another secret", "AuthFailure.SignatureFailure", nil, map[string]string{"TENCENTCLOUD_SECRET_KEY": "another-secret-key-00000"}, ""},
		{"a token of other keys", "AuthFailure.TokenFailure", nil, map[string]string{"TENCENTCLOUD_TOKEN": "token-of-other-keys-0000"}, ""},
		{"disabled keys", "AuthFailure.SecretIdNotFound", func(c *simulator.Config) { c.Keys[0].Disabled = true }, nil, ""},
		{"an unknown zone", "does not know the zone zone-0another", nil, nil, "zone-0another"},
		{"no right to read the history", "Allow teo:DescribePrefetchTasks", func(c *simulator.Config) { c.Keys[0].Actions = reads }, nil, ""},
		{"a plan without prefetch", "has no quota for prefetching URLs", func(c *simulator.Config) { c.Zones[0].Daily = -1 }, nil, ""},
		{"a gateway that quotes the keys", "refuses the keys", nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := startEdgeOne(t, c.change)
			if strings.Contains(c.name, "quotes") {
				e.AddFault(simulator.Fault{Effect: simulator.Effect{Code: "AuthFailure.SignatureFailure", Message: "no: {secretID} {authorization}"}})
			}
			zone := c.zone
			if zone == "" {
				zone = testZone
			}
			r := e.runWith(t, c.env, "-zone="+zone, "-url="+testURL)
			r.isOneSentence(t, c.says)
			if e.submissions() != 0 {
				t.Errorf("%d submissions", e.submissions())
			}
			if n := len(e.Calls()); strings.Contains(c.says, "AuthFailure") && n != 1 {
				t.Errorf("%d calls with keys that EdgeOne refuses", n)
			}
		})
	}
}

func TestOtherProgramsHideTheCostOfAURL(t *testing.T) {
	skipIfShort(t)
	var e edgeOne
	e = startEdgeOne(t, func(config *simulator.Config) {
		config.OnCall = func(c simulator.Call) {
			if c.Action == teo.ActionCreatePrefetchTask {
				e.SetAvailable(testZone, 9000)
			}
		}
	})
	r := e.prefetch(t)
	r.verdict(t, factCost, "1000 URLs were used during the run", "–")
	if r.status != exitOK {
		t.Errorf("status %d", r.status)
	}
}

func TestAUsedUpQuotaSubmitsNothing(t *testing.T) {
	t.Parallel()
	e := startEdgeOne(t, nil)
	e.SetAvailable(testZone, 0)
	e.prefetch(t).isOneSentence(t, "today's quota of the zone "+testZone+", 10000 URLs, is used up")
	if e.submissions() != 0 {
		t.Errorf("%d submissions", e.submissions())
	}
}

func TestAURLThatIsNotPrefetchedFailsTheRun(t *testing.T) {
	skipIfShort(t)
	for _, c := range []struct {
		name, fact, verdict, shows, says string
		rule                             simulator.Rule
		args                             []string
	}{
		{"the origin has none", factOutcome, "differs", "processing, then invalid", "The URL was NOT prefetched.", simulator.Rule{Status: "invalid"}, nil},
		{"EdgeOne does not accept it", factAccepted, "EdgeOne does not accept this URL", "a FailedList with 1 reasons", "The URL was NOT prefetched.",
			simulator.Rule{Refuse: "no"}, nil},
		{"EdgeOne refuses the call", factAccepted, "differs", "InvalidParameter.Target", "The URL was NOT prefetched.", simulator.Rule{Code: "InvalidParameter.Target"}, nil},
		{"it never ends", factOutcome, string(unprobed), "–", "The URL has no outcome after 7s", simulator.Rule{Status: simulator.Never}, []string{"-timeout=7s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := startEdgeOne(t, func(config *simulator.Config) { config.Rules = []simulator.Rule{c.rule} })
			began := time.Now()
			r := e.prefetch(t, c.args...)
			r.verdict(t, c.fact, c.verdict, c.shows)
			if r.status != exitDiffers || !strings.Contains(r.stdout, c.says) || e.submissions() != 1 {
				t.Errorf("status %d after %d submissions:\n%s", r.status, e.submissions(), r.stdout)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestALostAnswerIsLookedUpAndNotRepeated(t *testing.T) {
	skipIfShort(t)
	e := startEdgeOne(t, nil)
	e.AddFault(simulator.Fault{Match: simulator.Matcher{Action: teo.ActionCreatePrefetchTask},
		Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: true}})
	r := e.prefetch(t)
	r.verdict(t, factAccepted, "the answer was lost", "–")
	r.verdict(t, factOutcome, string(asAssumed), "success")
	if r.status != exitOK || e.submissions() != 1 {
		t.Errorf("status %d after %d submissions:\n%s", r.status, e.submissions(), r.stdout)
	}
}

func TestAnInterruptedRunReports(t *testing.T) {
	skipIfShort(t)
	e := startEdgeOne(t, func(c *simulator.Config) { c.Rules = []simulator.Rule{{Status: simulator.Never}} })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for e.submissions() == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	var out bytes.Buffer
	env := map[string]string{"TENCENTCLOUD_SECRET_ID": testID, "TENCENTCLOUD_SECRET_KEY": testSecret}
	status := run(ctx, []string{"-zone=" + testZone, "-url=" + testURL, "-endpoint=" + e.url}, func(name string) string { return env[name] }, &out, &out)
	if status != exitDiffers || !strings.Contains(out.String(), "Interrupted.") || !strings.Contains(out.String(), "| "+factSignature+" |") {
		t.Errorf("status %d:\n%s", status, out.String())
	}
}

func TestAQueryIsNotPrinted(t *testing.T) {
	skipIfShort(t)
	e := startEdgeOne(t, func(c *simulator.Config) {
		c.Rules = []simulator.Rule{{Status: "failed", FailMessage: "cannot fetch https://www.example.com/a?sign=0123456789"}}
	})
	r := e.runWith(t, nil, "-zone="+testZone, "-url=https://www.example.com/a?sign=0123456789")
	if e.submissions() != 1 || strings.Contains(r.stdout, "0123456789") || !strings.Contains(r.stdout, "cannot fetch") {
		t.Errorf("after %d submissions:\n%s", e.submissions(), r.stdout)
	}
}

func TestASecondSubmissionIsNotSent(t *testing.T) {
	t.Parallel()
	e := startEdgeOne(t, nil)
	w := newWire()
	client, err := teo.NewClient(teo.Options{Endpoint: e.url, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	creds := teo.Credentials{SecretID: testID, SecretKey: testSecret}
	submit := func() error {
		_, err := client.CreateTask(t.Context(), creds, time.Now(), teo.CreatePrefetchTaskRequest{ZoneID: testZone, Targets: []string{testURL}})
		return err
	}
	if err := submit(); err != nil {
		t.Fatal(err)
	}
	if err := submit(); !errors.Is(err, errSecondSubmission) || e.submissions() != 1 {
		t.Errorf("%v after %d submissions", err, e.submissions())
	}
}

func TestAReadCannotSubmit(t *testing.T) {
	t.Parallel()
	e := startEdgeOne(t, nil)
	w := newWire()
	client, err := teo.NewClient(teo.Options{Endpoint: e.url, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	s := &smoke{settings: &settings{creds: teo.Credentials{SecretID: testID, SecretKey: testSecret}}, client: client, wire: w}
	if _, err := client.DescribeContentQuota(t.Context(), s.creds, testZone); err != nil {
		t.Fatal(err)
	}
	parameters := map[string]any{"ZoneId": testZone, "Targets": []string{testURL}}
	if answer, err := s.read(t.Context(), teo.ActionCreatePrefetchTask, parameters, time.Now()); err == nil || e.submissions() != 0 {
		t.Errorf("%+v after %d submissions", answer, e.submissions())
	}
}

func TestAHeaderAboutRatesIsNoted(t *testing.T) {
	w := newWire()
	w.answers = []exchange{{status: http.StatusOK, header: http.Header{"X-Ratelimit-Remaining": {"19"}}}}
	s := &smoke{settings: &settings{}, wire: w, report: report{facts: newFacts(&settings{})}}
	s.probeHeaders()
	if f := s.get(factRateHeader); f.verdict != noted || f.observed != "X-Ratelimit-Remaining" {
		t.Errorf("%+v", f)
	}
	if f := s.get(factDate); f.verdict != differs {
		t.Errorf("answers without a Date: %+v", f)
	}
}

// The page has a row for every fact. The column measured has "smoke" if this program
// measures the fact.
func TestThePageHasEveryFact(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "edgeone.md"))
	if err != nil {
		t.Fatal(err)
	}
	var onPage []string
	for _, m := range regexp.MustCompile(`(?m)^\| \*\*(.+?)\*\*:.*?\|.*?\| (.*?) \|`).FindAllStringSubmatch(string(page), -1) {
		name := strings.ReplaceAll(m[1], `\*`, "*")
		onPage = append(onPage, name)
		measures := strings.Contains(m[2], "smoke")
		for _, f := range newFacts(&settings{}) {
			if f.name == name && measures == f.never {
				t.Errorf("the page says of %q: %s", name, m[2])
			}
		}
	}
	for _, f := range newFacts(&settings{}) {
		if !slices.Contains(onPage, f.name) {
			t.Errorf("docs/edgeone.md has no row of %q", f.name)
		}
	}
}

func TestTheDefaultsAreThoseOfTheManager(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "cmd", "manager", "options.go"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSettings([]string{"-zone=" + testZone, "-url=" + testURL}, func(string) string { return testSecret }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s.signatureValidity != 5*time.Minute || s.listingDelay != 20*time.Second || s.historyRetention != 72*time.Hour {
		t.Errorf("%s, %s, %s", s.signatureValidity, s.listingDelay, s.historyRetention)
	}
	for _, text := range []string{`"signature-validity", 5*time.Minute`, `"listing-delay", 20*time.Second`, `"history-retention", 72*time.Hour`} {
		if !strings.Contains(string(source), text) {
			t.Errorf("the manager's default is not %s", text)
		}
	}
}
