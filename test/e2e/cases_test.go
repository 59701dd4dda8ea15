package e2e

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// onceInAnySpelling fails unless EdgeOne executed n URLs, each once.
func (w *world) onceInAnySpelling(n int) {
	w.t.Helper()
	if duplicates := w.edgeOne.Duplicates(); len(duplicates) > 0 {
		w.t.Errorf("EdgeOne executed %d URLs more than once, such as %.300v", len(duplicates), duplicates)
	}
	if executed := w.edgeOne.Stats().Targets; executed != n {
		w.t.Errorf("EdgeOne executed %d URLs, want %d", executed, n)
	}
}

// A list is longer than a page of EdgeOne's history. Its last URL is its first URL, but
// percent-encoded.
func TestAListWithOneURLInTwoSpellingsIsFollowed(t *testing.T) {
	w := newWorld(t, config())
	lines := []string{"https://www.qq.com/产品"}
	for i := range 999 {
		lines = append(lines, fmt.Sprint("https://www.qq.com/", i))
	}
	w.putList("torn", append(lines, "https://www.qq.com/%E4%BA%A7%E5%93%81")...)
	task := w.targetsFrom("torn", "torn")
	task.Spec.ZoneID = "zone-ajj243dwrew"
	w.create(task)
	w.manager()
	w.untilFinished("torn", v1alpha1.ReasonSucceeded)
	w.onceInAnySpelling(1000)
}

// Another program's job has one URL twice, on two pages of the history.
func TestATornLookingJobOfAnotherProgramStopsNobody(t *testing.T) {
	w := newWorld(t, config())
	foreign := []string{good + "foreign/中"}
	for i := range 1200 {
		foreign = append(foreign, fmt.Sprint(good, "foreign/", i))
	}
	foreign = append(foreign, good+"foreign/%E4%B8%AD", good+"foreign/中")
	w.edgeOne.SetTraffic(simulator.Traffic{ZoneID: zoneID, Every: patience / 2000, Targets: foreign})
	w.manager()
	w.create(w.task("ours", good+"ours"))
	w.untilFinished("ours", v1alpha1.ReasonSucceeded)
	w.once(good + "ours")
}

func TestTwoNamespacesMayWriteTheSameURLsInTwoWays(t *testing.T) {
	w, other := newWorldPair(t)
	var raw, encoded []string
	for i := range 600 {
		raw = append(raw, fmt.Sprintf("%s双/%04d", good, i))
		encoded = append(encoded, fmt.Sprintf("%s%%E5%%8F%%8C/%04d", good, i))
	}
	w.create(w.task("raw", raw...))
	other.create(other.task("encoded", encoded...))
	w.manager("--watch-namespaces=" + w.namespace + "," + other.namespace)
	w.untilFinished("raw", v1alpha1.ReasonSucceeded)
	other.untilFinished("encoded", v1alpha1.ReasonSucceeded)
	w.onceInAnySpelling(600)
}

// One of twenty URLs that share calls makes EdgeOne answer with a code that does not show
// whether the call was executed.
func TestACodeOfUnknownOutcomeHoldsTheURLThatCausesItAlone(t *testing.T) {
	w := newWorld(t, config())
	w.edgeOne.AddFault(simulator.Fault{
		Match:  simulator.Matcher{Action: "CreatePrefetchTask", URL: "badcfg"},
		Effect: simulator.Effect{Code: "InternalError.DomainConfig", Message: "origin config unavailable"},
	})
	var urls []string
	for i := range 19 {
		urls = append(urls, fmt.Sprint(good, "cfg/", i))
		w.create(w.task(fmt.Sprint("cfg-", i), urls[i]))
	}
	w.create(w.task("cfg-bad", good+"badcfg"))
	w.manager()
	for i := range urls {
		w.untilFinished(fmt.Sprint("cfg-", i), v1alpha1.ReasonSucceeded)
	}
	w.once(urls...)
	w.until("cfg-bad", "names EdgeOne's code", func(s v1alpha1.PrefetchTaskStatus) bool {
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return ready != nil && strings.Contains(ready.Message, "InternalError.DomainConfig")
	})
	if executed := w.edgeOne.Executed(good + "badcfg"); executed != 0 {
		t.Errorf("the bad URL was executed %d times", executed)
	}
}

func TestSpellingsOfAURLCostQuotaOnce(t *testing.T) {
	for name, c := range map[string]struct {
		zone    string
		targets []string
		sent    int
	}{
		"raw, encoded and by host": {zoneID, []string{
			"https://www.example.com/产品/列表.html", "https://www.example.com/%E4%BA%A7%E5%93%81/%E5%88%97%E8%A1%A8.html",
			"https://www.example.com/%e4%ba%a7%e5%93%81/%e5%88%97%e8%a1%a8.html", "https://WWW.example.com/产品/列表.html",
			"https://www.example.com:443/产品/列表.html",
		}, 1},
		"by fragment": {zoneID, []string{
			good + "articles/animating", good + "articles/animating#top", good + "articles/animating#caf%C3%A9", good + "articles/animating#library",
		}, 1},
		"with little quota left": {"zone-3smallquota0", []string{
			"https://small.example.net/首页", "https://small.example.net/%E9%A6%96%E9%A1%B5", "https://small.example.net/%e9%a6%96%e9%a1%b5", "https://small.example.net/other",
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config())
			task := w.task("spellings", c.targets...)
			task.Spec.ZoneID = c.zone
			w.create(task)
			w.manager()
			w.untilFinished("spellings", v1alpha1.ReasonSucceeded)
			w.onceInAnySpelling(c.sent)
		})
	}
}
