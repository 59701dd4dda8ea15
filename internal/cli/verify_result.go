package cli

import (
	"strconv"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/progress"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/verify"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// VerifyResult is what verify -o json prints.
type VerifyResult struct {
	OutputHeader `json:",inline"`
	// Namespace and Name are the task's. They are absent if the URLs are from a file.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Phase and Reason say how far the run of the task is, as in WaitResult.
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason,omitempty"`
	// From is the host name of the machine that asked.
	From string `json:"from"`
	// Notes say why the answers may not be about what the run has prefetched.
	Notes []string `json:"notes,omitempty"`
	// Seed selected the sample.
	Seed uint64 `json:"seed"`
	// Total is how many distinct URLs the list has.
	Total int `json:"total"`
	// Hits is how many of Answers are from the cache.
	Hits int `json:"hits"`
	// Answers are the first answers of the URLs of the sample, in the order of the list.
	Answers []VerifyAnswer `json:"answers"`
}

// VerifyAnswer is the first answer of a URL.
type VerifyAnswer struct {
	URL string `json:"url"`
	// Outcome is one of the outcomes in the package verify.
	Outcome     string `json:"outcome"`
	HTTPStatus  int    `json:"httpStatus,omitempty"`
	CacheStatus string `json:"cacheStatus,omitempty"`
	Age         string `json:"age,omitempty"`
	ETag        string `json:"etag,omitempty"`
	Location    string `json:"location,omitempty"`
	// Address is the address and port that answered.
	Address string `json:"address,omitempty"`
	// Forbids names what in the answer forbids caches to keep it or to use it again.
	Forbids []string `json:"forbids,omitempty"`
	// Error says why there is no answer.
	Error string `json:"error,omitempty"`
}

// addRun adds the run of a task. resolved is the task with the list that it has now.
func (r *VerifyResult) addRun(task, resolved *v1alpha1.PrefetchTask, run progress.Progress) {
	r.Namespace, r.Name, r.Phase, r.Reason = task.Namespace, task.Name, string(run.Phase), run.Reason
	if !run.Phase.IsOver() {
		r.Notes = append(r.Notes, "The run is not over: what is not in the cache may still be prefetched, and EdgeOne fetches what it is asked for")
	}
	started := task.Status.TargetsHash
	if !taskstate.IsNewRun(task) && started != "" && started != taskstate.HashTargets(resolved) {
		r.Notes = append(r.Notes, "The ConfigMap has another list than the run: the run does not prefetch the URLs that are new in it")
	}
}

// addAnswers adds the answers of a sample of a list of total URLs.
func (r *VerifyResult) addAnswers(total int, answers []verify.Answer) {
	r.Total = total
	r.Answers = []VerifyAnswer{}
	for _, a := range answers {
		answer := VerifyAnswer{
			URL: a.URL, Outcome: string(a.Outcome), HTTPStatus: a.Status, CacheStatus: a.CacheStatus,
			Age: a.Age, ETag: a.ETag, Location: a.Location, Address: a.Address, Forbids: a.Forbids,
		}
		if a.Error != nil {
			answer.Error = a.Error.Error()
		}
		if a.Outcome.IsHit() {
			r.Hits++
		}
		r.Answers = append(r.Answers, answer)
	}
}

// print prints the answers on standard output, and on standard error what follows from them.
func (v *verifyCommand) print(result *VerifyResult) error {
	if v.output.isStructured() {
		return v.output.print(v.env.Out, result)
	}
	answers := table{header: []string{"URL", "OUTCOME", "STATUS", "CACHE", "AGE", "ETAG", "NOTE"}}
	for i := range result.Answers {
		a := &result.Answers[i]
		status := ""
		if a.HTTPStatus > 0 {
			status = strconv.Itoa(a.HTTPStatus)
		}
		answers.addRow(a.URL, a.Outcome, status, a.CacheStatus, a.Age, a.ETag, a.note())
		answers.rows[i][1].color = colorOfOutcome(verify.Outcome(a.Outcome))
	}
	if err := answers.print(v.env.Out, newPainter(v.env.Out)); err != nil {
		return err
	}
	v.explain(result)
	return nil
}

func (v *verifyCommand) explain(result *VerifyResult) {
	say := func(format string, args ...any) { _ = printLine(v.env.ErrOut, format, args...) }
	count := map[verify.Outcome]int{}
	for _, a := range result.Answers {
		count[verify.Outcome(a.Outcome)]++
	}
	say("%d of %d asked URLs were in the cache.", result.Hits, len(result.Answers))
	if n := count[verify.NotCacheable]; n > 0 {
		say("Answers that forbid caches to keep them or to use them again: %d. Unless a cache rule of EdgeOne keeps them all the same, "+
			"each prefetch of them takes quota for nothing. Change the answer of the origin or the cache rules of EdgeOne, or remove them from the list.", n)
	}
	if n := count[verify.NotEdgeOne]; n > 0 {
		say("Answers without EO-Cache-Status: %d. Check that their host is served by EdgeOne, and --resolve.", n)
	}
}

// note says what no other column does.
func (a *VerifyAnswer) note() string {
	switch verify.Outcome(a.Outcome) {
	case verify.NoAnswer:
		return a.Error
	case verify.Redirect:
		return "to " + a.Location
	case verify.NotCacheable, verify.NotEdgeOne:
		return strings.Join(a.Forbids, ", ")
	}
	return ""
}

func colorOfOutcome(outcome verify.Outcome) color {
	switch outcome {
	case verify.Hit, verify.RefreshHit:
		return colorGreen
	case verify.Miss, verify.Redirect:
		return colorYellow
	}
	return colorRed
}
