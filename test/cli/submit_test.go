package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const zoneFlag = "--zone=" + zoneID

// has checks the exit code of a command and parts of its output.
func (r result) has(t *testing.T, code int, out, err string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.err, err) || out == "" && r.out != "" {
		t.Errorf("exit code %d, standard output:\n%s\nstandard error:\n%s\nwant exit code %d, %q and %q", r.code, r.out, r.err, code, out, err)
	}
}

// count returns how many tasks the namespace has.
func (w *world) count() int {
	var list v1alpha1.PrefetchTaskList
	w.must(w.List(w.t.Context(), &list, client.InNamespace(w.namespace)))
	return len(list.Items)
}

func TestSubmitCreatesATaskAndUpdatesIt(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "warm-home.txt")
	w.must(os.WriteFile(path, []byte("# pages\n\n"+good+"a\n"+good+"b\r\n"+good+"a\n"), 0o600))
	w.run("submit", path, zoneFlag, "--dry-run=server").has(t, 0, "prefetchtask.teo.prefetch-operator.io/warm-home created (server dry run)", "2 URLs (1 duplicate left out)")
	if n := w.count(); n != 0 {
		t.Errorf("a dry run has created %d tasks", n)
	}
	w.run("submit", path, zoneFlag, "--revision=1", "--purge=URL", "--ttl=2h", "-l", "release=1").has(t, 0, "warm-home created\n", "")
	task := w.get("warm-home")
	if len(task.Spec.Targets) != 2 || task.Spec.Purge.Type != v1alpha1.PurgeURL || task.Spec.TTLSecondsAfterFinished != 7200 || task.Labels["release"] != "1" {
		t.Errorf("%+v", task)
	}
	w.run("submit", path, zoneFlag, "--revision=1", "--purge=URL", "--ttl=2h", "-l", "release=1").has(t, 0, "warm-home unchanged\n", "a new --revision submits every URL again")
	w.run("submit", path, zoneFlag, "--revision=1", "--purge=URL").has(t, 0, "warm-home configured\n", "\nwarm-home: this starts no new run, so nothing more is submitted\n")
	w.run("submit", path, zoneFlag, "--revision=2", "-o", "name").is(t, 0, "prefetchtask.teo.prefetch-operator.io/warm-home\n",
		"2 URLs (1 duplicate left out)\nwarm-home: a new run, because spec.revision is changed and spec.purge is removed: submits 2 URLs\n"+
			"This takes 2 URLs from the daily quota of zone zone-2x9examplea\n")
	if task := w.get("warm-home"); task.Spec.Revision != "2" || task.Spec.Purge.Type != "" || task.Generation != 3 {
		t.Errorf("after another submit, it is %+v", task)
	}
	w.run("rerun", "warm-home", "--revision=3", "--yes").has(t, 0, "rerun requested", "")
	w.run("submit", path, zoneFlag, "--revision=4").has(t, 0, "warm-home configured\n", "")
	w.must(w.Create(t.Context(), w.task("others", good+"x")))
	list := w.runWith(good+"y\n", "submit", "-", zoneFlag, "--name=others")
	list.has(t, 1, "", "another program or list keeps the task of this name: give another --name, or --force-conflicts")
}

func TestSubmitCreatesNothingOfABadList(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name, input string
		args        []string
		want        string
	}{
		{"a space", good + "a\n" + good + "b c\n", []string{"-", zoneFlag}, `standard input:2:26: "https://www.example.com/b c" must not have spaces`},
		{"no URL", "www.example.com/a\n", []string{"-", zoneFlag}, "standard input:1:1: "},
		{"nothing", "# nothing\n", []string{"-", zoneFlag}, "the list has no URLs"},
		{"no file", "", []string{"missing.txt", zoneFlag}, "the list cannot be read: open missing.txt"},
		{"no zone", good, []string{"-"}, "no zone is given: give --zone"},
		{"no zone ID", good, []string{"-", "--zone=my-zone"}, "must be an EdgeOne zone ID"},
		{"no account", good, []string{"-", zoneFlag, "--account=missing"}, `there is no EdgeOneAccount "missing"`},
		{"a prefix without its slash", good, []string{"-", zoneFlag, "--purge=Prefix=https://www.example.com/a"}, "must be a full URL that ends with a slash"},
		{"two types of purges", good, []string{"-", zoneFlag, "--purge=URL", "--purge=Host=www.example.com"}, "a task purges by one"},
		{"the future", good, []string{"-", zoneFlag, "--fresh-since=2199-01-01T00:00:00Z"}, "give a time in whole seconds that is not in the future"},
		{"a part of a second", good, []string{"-", zoneFlag, "--fresh-since=2026-11-28T14:05:00.5Z"}, "give a time in whole seconds"},
		{"the label of the list", good, []string{"-", zoneFlag, "-l", "teo.prefetch-operator.io/list=x"}, "submit sets it to the name of the list"},
		{"a short time to live", good, []string{"-", zoneFlag, "--ttl=1s"}, "--ttl must be at least 1m"},
		{"a long file name", "", []string{"/dev/null/" + strings.Repeat("x", 60) + ".txt", zoneFlag}, "gives no name for the task (at most 59 lower case letters, digits, hyphens and dots): give --name"},
		{"another file name", "", []string{"Warm_Home.txt", zoneFlag}, `the file name "Warm_Home.txt" gives no name for the task`},
		{"no file name", "", []string{".txt", zoneFlag}, `the file name ".txt" gives no name for the task`},
		{"a URL", "", []string{good, zoneFlag, "--name=a"}, `"https://www.example.com/" is a URL, and a list is a file: give --sitemap`},
		{"a time for nothing", good, []string{"-", zoneFlag, "--timeout=5m"}, "without --wait: give --wait as well"},
		{"a grace for nothing", good, []string{"-", zoneFlag, "--stalled-grace=1m"}, "without --wait: give --wait as well"},
		{"no mode", good, []string{"-", zoneFlag, "--mode=edge"}, `unknown value "edge" of --mode: use Default or Edge`},
		{"days", good, []string{"-", zoneFlag, "--ttl=1d"}, `--ttl is "1d": give a duration in h, m or s, such as 24h`},
		{"no expression", good, []string{"-", zoneFlag, "--include=("}, "--include is not a regular expression"},
		{"nothing is left", good, []string{"-", zoneFlag, "--exclude=."}, "no URL is left after --since, --include and --exclude"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.runWith(tt.input, append([]string{"submit"}, tt.args...)...).has(t, 1, "", tt.want)
		})
	}
	if n := w.count(); n != 0 {
		t.Errorf("%d tasks are created", n)
	}
}

func TestALongListBecomesSeveralTasks(t *testing.T) {
	w := newWorld(t)
	var text strings.Builder
	for i := range 10_000 {
		_, _ = fmt.Fprintf(&text, "%s%d\n", good, i)
	}
	w.runWith(text.String(), "submit", "-", zoneFlag, "--name=all").has(t, 0, "all created\n", "10000 URLs")
	// A list that grows keeps the task that has submitted its URLs.
	w.runWith(text.String()+good+"more\n", "submit", "-", zoneFlag, "--name=all").has(t, 0, "all-2 created\n", "all is unchanged")
	if a, b := len(w.get("all").Spec.Targets), len(w.get("all-2").Spec.Targets); a != 10_000 || b != 1 {
		t.Errorf("they have %d and %d targets", a, b)
	}
	// A bad URL at the end of the second part creates nothing of the first.
	w.runWith(text.String()+good+"*\n", "submit", "-", zoneFlag, "--name=bad").has(t, 1, "", "standard input:10001:25: ")
	w.runWith(good+"1\n", "submit", "-", zoneFlag, "--name=all").has(t, 0, "all configured\n", "Warning: an earlier list of this name made all-2 too")
	// The name of a part may be that of another list.
	w.runWith(good+"1\n", "submit", "-", zoneFlag, "--name=two-2").has(t, 0, "two-2 created\n", "")
	w.runWith(text.String()+good+"more\n", "submit", "-", zoneFlag, "--name=two").has(t, 1, "", "nothing is created or changed: task two-2: another program or list keeps")
	if n := w.count(); n != 3 {
		t.Errorf("there are %d tasks", n)
	}
}

func TestSubmitReadsSitemaps(t *testing.T) {
	w := newWorld(t)
	pages := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write([]byte(strings.ReplaceAll(pages[r.URL.Path], "HOST", r.Host)))
	}))
	t.Cleanup(server.Close)
	pages["/index.xml"] = `<?xml version="1.0"?><sitemapindex><sitemap><loc>http://HOST/old.xml</loc><lastmod>2020-01-01</lastmod></sitemap><sitemap><loc>http://HOST/new.xml</loc></sitemap></sitemapindex>`
	pages["/old.xml"] = `<urlset><url><loc>http://HOST/old</loc></url></urlset>`
	pages["/new.xml"] = `<urlset><url><loc>http://HOST/a?x=1&amp;y=2</loc><lastmod>2026-11-29T10:00:00Z</lastmod></url><url><loc>http://HOST/gone</loc><lastmod>2020-01-01</lastmod></url><url><loc>http://HOST/b.pdf</loc></url></urlset>`
	pages["/page.html"] = "<!DOCTYPE html><html><body>Hello</body></html>"
	pages["/entity.xml"] = `<!DOCTYPE x [<!ENTITY a "b">]><urlset><url><loc>&a;</loc></url></urlset>`
	w.run("submit", "--sitemap="+server.URL+"/index.xml", "--since=2026-01-01", `--exclude=\.pdf$`, zoneFlag, "--name=map").has(t, 0, "map created\n", "1 URL")
	if targets := w.get("map").Spec.Targets; len(targets) != 1 || !strings.HasSuffix(string(targets[0]), "/a?x=1&y=2") {
		t.Errorf("%v", targets)
	}
	// A sitemap without news is no error: a nightly job must not fail for it.
	old := []string{"submit", "--sitemap=" + server.URL + "/index.xml", "--since=2026-11-30", `--exclude=\.pdf$`, zoneFlag, "--name=news"}
	const nothing = "Nothing was modified since the time of --since"
	w.run(old...).has(t, 0, "", nothing)
	w.run(append(old, "--wait", "-o", "json")...).has(t, 0, `"tasks": []`, nothing)
	w.run(append(old, "-o", "json")...).has(t, 0, `"items": []`, nothing)
	for path, want := range map[string]string{"/page.html": "HTML", "/entity.xml": "DOCTYPE", "/missing.xml": "sitemap"} {
		w.run("submit", "--sitemap="+server.URL+path, zoneFlag, "--name=bad").has(t, 1, "", want)
	}
	if n := w.count(); n != 1 {
		t.Errorf("there are %d tasks", n)
	}
}

// The pipeline of docs/cli/submit.md fails rightly.
func TestAPipelineFailsAsItsReleaseDoes(t *testing.T) {
	w := newWorld(t)
	w.operate(func(c *simulator.Config) {
		c.Rules = append(c.Rules, simulator.Rule{URL: "/slow/", Status: simulator.Never})
	})
	submit := func(name string, input string, args ...string) result {
		return w.runWith(input, append([]string{"submit", "-", "--name=" + name, "--revision=1", "--wait", "--stalled-grace=2s", "--timeout=1m"}, args...)...)
	}
	submit("fine", good+"a\n"+good+"b\n", zoneFlag, "--purge=URL").has(t, 0, "fine: Succeeded: All 2 targets are prefetched\n", "")
	submit("one-bad", good+"c\n"+good+"missing/d\n", zoneFlag).has(t, 2, "one-bad: Failed: 1 of 2 targets failed", good+"missing/d")
	held := strings.Repeat("https://small.example.net/N\n", 5)
	for i := range 5 {
		held = strings.Replace(held, "N", fmt.Sprint(i), 1)
	}
	w.runWith(held, "submit", "-", "--name=held", "--zone="+smallZone, "--wait", "--timeout=5s").has(t, 4, "held: Running: ", "")
	if reason := taskstate.ReadyReason(w.get("held")); reason != v1alpha1.ReasonDailyQuota {
		t.Errorf("it is held by %s", reason)
	}
	submit("slow", good+"slow/x\n", zoneFlag, "--timeout=2s").has(t, 4, "slow: Running: ", "")
	w.edgeOne.AddFault(simulator.Fault{Effect: simulator.Effect{Code: "AuthFailure.SignatureFailure", Message: "wrong key"}})
	submit("refused", good+"e\n", zoneFlag).has(t, 3, "refused: Stalled: ", "")
}
