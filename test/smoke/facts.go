package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// The names of the facts. docs/edgeone.md has a row for each of them.
const (
	factSignature  = "Signature lifetime"
	factDate       = "Date header"
	factStatus     = "HTTP status of refusals"
	factParameter  = "Unknown parameters"
	factRateHeader = "Rate headers"
	factRate       = "Call rate"

	factZone     = "Code of an unknown zone"
	factWildcard = "Zone * in the history"

	factQuota = "Shape of the quota"
	factCost  = "Cost of a URL"
	factBatch = "URLs in a call"
	factReset = "Reset of the quota"

	factPage       = "Page size"
	factOffset     = "Deep pages"
	factWindow     = "Length of a window"
	factRetention  = "Retention"
	factUnknownJob = "Unknown job"

	factAccepted = "Answer to a submission"
	factPartial  = "Partial acceptance"
	factEmptyID  = "JobId of a refused call"
	factUnique   = "Unique JobIds"
	factRepeat   = "Repeated calls"
	factDouble   = "One URL twice in a call"

	factDelay    = "Delay of the history"
	factClock    = "CreateTime"
	factFormat   = "Format of times"
	factEnds     = "Ends of a window"
	factJobID    = "Filter job-id"
	factTarget   = "Filter target"
	factSpelling = "Spelling of a listed URL"
	factRecords  = "Records of a URL"
	factOutcome  = "States of a URL"

	factEdge     = "Edge mode"
	factSegments = "Media segments"
	factEncode   = "EncodeUrl"
)

// verdict is what a run says about a fact.
type verdict string

const (
	asAssumed verdict = "as assumed"
	differs   verdict = "differs"
	unprobed  verdict = "could not be probed"
	noted     verdict = "noted" // the operator relies on neither
)

// fact is something that the operator assumes of EdgeOne, and what a run found.
type fact struct {
	name, expected string

	verdict  verdict
	observed string
	reason   string // what to do if it differs, or why it could not be probed
	never    bool   // no run can probe it
}

// text returns the verdict with its reason.
func (f *fact) text() string {
	if f.reason == "" {
		return string(f.verdict)
	}
	return string(f.verdict) + ": " + f.reason
}

// noFlag is what to do about a difference that no flag can express.
const noFlag = "no flag changes this; report it"

// newFacts returns all facts in the order of the report. Facts for which nothing was found
// say why.
func newFacts(s *settings) []*fact {
	open := func(name, expected string) *fact {
		return &fact{name: name, expected: expected, verdict: unprobed, reason: "the run ended before"}
	}
	never := func(name, expected, why string) *fact {
		return &fact{name: name, expected: expected, verdict: unprobed, reason: why, never: true}
	}
	return []*fact{
		open(factDate, "every answer has the time of EdgeOne's clock"),
		open(factStatus, "200"),
		open(factParameter, "refused with UnknownParameter"),
		open(factRateHeader, "no header about rates"),
		open(factSignature, fmt.Sprintf("accepted after %s, refused after %s", brief(s.signatureValidity/2), brief(s.signatureValidity))),
		open(factZone, "a code that is about the zone, not the keys"),
		open(factQuota, "prefetch_url with Batch, Daily and DailyAvailable"),
		open(factCost, "1"),
		open(factPage, "1000 records"),
		open(factOffset, "an empty page, or a refusal"),
		open(factWindow, fmt.Sprintf("%s or more", brief(s.neededWindow()))),
		open(factRetention, fmt.Sprintf("%s or more", brief(s.historyRetention))),
		open(factUnknownJob, "an empty list, or a refusal of this job"),
		open(factWildcard, "accepted, or refused with a known code"),
		open(factAccepted, "a JobId, and a FailedList that is absent, null or empty"),
		open(factDelay, fmt.Sprintf("at most %s", brief(s.listingDelay))),
		open(factClock, fmt.Sprintf("from %s before the signature to %s after the answer", clockSkew, clockSkew)),
		open(factFormat, "ISO 8601 with a time zone"),
		open(factEnds, "both ends belong to it"),
		open(factJobID, "lists the job, and nothing else"),
		open(factTarget, "the operator does not use it"),
		open(factSpelling, "an encoding of the URL that was sent"),
		open(factRecords, "1"),
		open(factOutcome, "processing, then success"),

		never(factRate, "20 calls a second for each action and account",
			"it takes more than 20 calls in a second, which throttles the account's other programs (--teo-qps)"),
		never(factBatch, "up to Batch", "it would cost more than one URL (--batch)"),
		never(factReset, "16:00 UTC", "it takes a day in which the quota is read (--quota-reset)"),
		never(factPartial, "a FailedList with reasons", "it needs a URL that EdgeOne refuses in an accepted call"),
		never(factEmptyID, "any", "it needs a call of which EdgeOne refuses every URL"),
		never(factUnique, "no two calls have the same", "it takes many calls"),
		never(factRepeat, "a second job, which costs quota again", "it would cost another URL"),
		never(factDouble, "one or two records", "it would cost another URL"),
		never(factEdge, "allowed per account, with a quota of its own", "its traffic is billed"),
		never(factSegments, "allowed per account; segments beyond the quota are skipped", "it costs one URL for each segment"),
		never(factEncode, "accepted, and deprecated", "it would cost another URL"),
	}
}

// report collects what a run finds.
type report struct {
	facts    []*fact
	finished bool // the URL has an outcome
	success  bool
}

func (r *report) get(name string) *fact {
	for _, f := range r.facts {
		if f.name == name {
			return f
		}
	}
	panic("smoke: no fact " + name)
}

func (r *report) assumed(name, observed string) { r.set(name, asAssumed, observed, "") }

func (r *report) differ(name, observed, remedy string) { r.set(name, differs, observed, remedy) }

func (r *report) note(name, observed string) { r.set(name, noted, observed, "") }

func (r *report) skip(name, why string) { r.set(name, unprobed, "", why) }

func (r *report) set(name string, v verdict, observed, reason string) {
	f := r.get(name)
	f.verdict, f.observed, f.reason = v, observed, reason
}

// judge records a fact that either is as assumed or differs with the remedy.
func (r *report) judge(name string, ok bool, observed, remedy string) {
	if ok {
		r.assumed(name, observed)
	} else {
		r.differ(name, observed, remedy)
	}
}

// hasDifferences says whether an assumption is wrong.
func (r *report) hasDifferences() bool {
	for _, f := range r.facts {
		if f.verdict == differs {
			return true
		}
	}
	return false
}

// print writes the table for the terminal.
func (r *report) print(out io.Writer) {
	headings := [4]string{"FACT", "EXPECTED", "OBSERVED", "VERDICT"}
	var widths [3]int
	rows := [][4]string{headings}
	for _, f := range r.facts {
		rows = append(rows, [4]string{f.name, f.expected, dash(f.observed), f.text()})
	}
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], len([]rune(row[i])))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, width := range widths {
			b.WriteString(row[i] + strings.Repeat(" ", width-len([]rune(row[i]))+2))
		}
		b.WriteString(row[3] + "\n")
	}
	_, _ = io.WriteString(out, b.String())
}

// printMarkdown writes the block for docs/edgeone.md, with what a run can measure.
func (r *report) printMarkdown(out io.Writer, where string, today time.Time) {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s, %s\n\n| fact | expected | observed | verdict |\n|---|---|---|---|\n", today.UTC().Format(time.DateOnly), where)
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`)
	for _, f := range r.facts {
		if f.never {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell.Replace(f.name), cell.Replace(f.expected), cell.Replace(dash(f.observed)), cell.Replace(f.text()))
	}
	_, _ = io.WriteString(out, b.String())
}

func dash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// brief writes a duration without units that are zero: 5m, not 5m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
