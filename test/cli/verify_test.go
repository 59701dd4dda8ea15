package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// startEdge starts a server that answers as an EdgeOne node, and returns the URL of a host that
// --resolve sends to it, and that flag.
func startEdge(t *testing.T) (url, resolve string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("EO-Cache-Status", "HIT")
		switch r.URL.Path {
		case "/miss":
			header.Set("EO-Cache-Status", "MISS")
		case "/private":
			header.Set("EO-Cache-Status", "MISS")
			header.Set("Cache-Control", "private")
		case "/moved":
			header.Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
		case "/other":
			header.Del("EO-Cache-Status")
		default:
			header.Set("Age", "7")
			header.Set("ETag", "\"\u009b31m\"")
		}
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "http://www.example.com:" + port, "--resolve=www.example.com:" + port + ":127.0.0.1"
}

// notStarted is what is first on standard error for a task that no operator has seen.
func notStarted(name string, total int) string {
	return fmt.Sprintf("%s is Running (NotObserved): 0 of %d targets prefetched.\n", name, total) + notOver
}

const notOver = "The run is not over: what is not in the cache may still be prefetched, and EdgeOne fetches what it is asked for.\n"

// asking is the line on standard error before the answers.
func asking(t *testing.T, numbers string) string {
	t.Helper()
	from, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return "Asking " + numbers + " URLs from " + from + ". Only the EdgeOne node nearest to it answers.\n"
}

func TestVerifyReportsTheFirstAnswers(t *testing.T) {
	w := newWorld(t)
	url, resolve := startEdge(t)
	w.create(w.task("home", url+"/warm/", url+"/miss", url+"/private", url+"/moved", url+"/other"))
	pad := strings.Repeat(" ", len(url))
	w.run("verify", "home", resolve).is(t, 2, "URL"+pad+"        OUTCOME        STATUS   CACHE    AGE      ETAG     NOTE\n"+
		url+"/warm/     Hit            200      HIT      7        \"?31m\"   <none>\n"+
		url+"/miss      Miss           200      MISS     <none>   <none>   <none>\n"+
		url+"/private   NotCacheable   200      MISS     <none>   <none>   Cache-Control: private\n"+
		url+"/moved     Redirect       302      HIT      <none>   <none>   to /elsewhere\n"+
		url+"/other     NotEdgeOne     200      <none>   <none>   <none>   <none>\n",
		notStarted("home", 5)+asking(t, "5 of 5")+"1 of 5 asked URLs were in the cache.\n"+
			"Answers that forbid caches to keep them or to use them again: 1. Unless a cache rule of EdgeOne keeps them all the same, each prefetch of them takes quota for nothing. Change the answer of the origin or the cache rules of EdgeOne, or remove them from the list.\n"+
			"Answers without EO-Cache-Status: 1. Check that their host is served by EdgeOne, and --resolve.\n")
	r := w.run("verify", "home", resolve, "-o", "json")
	var got cli.VerifyResult
	w.must(json.Unmarshal([]byte(r.out), &got))
	if r.code != 2 || r.err != notStarted("home", 5)+asking(t, "5 of 5") || got.Name != "home" || got.Phase != "Running" || got.Reason != "NotObserved" || len(got.Notes) != 1 || got.Total != 5 || got.Hits != 1 || len(got.Answers) != 5 ||
		got.Answers[3].Location != "/elsewhere" || got.Answers[2].Forbids[0] != "Cache-Control: private" {
		t.Errorf("%+v: %+v", r, got)
	}
}

func TestVerifyReadsListsInConfigMapsAndFiles(t *testing.T) {
	w := newWorld(t)
	url, resolve := startEdge(t)
	list := url + "/1\n# comment\n" + url + "/2\n" + url + "/miss\n"
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "list"}, Data: map[string]string{"urls": list}})
	task := w.task("from-list")
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "list", Key: "urls"}
	w.create(task)
	file := filepath.Join(t.TempDir(), "urls.txt")
	w.must(os.WriteFile(file, []byte(list), 0o600))
	for source, first := range map[string]string{"from-list": notStarted("from-list", 3), "-f " + file: "", "-f -": ""} {
		args := append([]string{"verify", resolve}, strings.Fields(source)...)
		r := w.runWith(list, args...)
		if r.code != 2 || r.err != first+asking(t, "3 of 3")+"2 of 3 asked URLs were in the cache.\n" || strings.Count(r.out, "\n") != 4 {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if r := w.runWith(url+"/1\n"+url+"/2\n", "verify", "-f", "-", "--sample=1", resolve); r.code != 0 || r.err != asking(t, "1 of 2")+"1 of 1 asked URLs were in the cache.\n" {
		t.Errorf("%+v", r)
	}
}

func TestVerifyAsksEachURLOnce(t *testing.T) {
	w := newWorld(t)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("EO-Cache-Status", "MISS")
	}))
	t.Cleanup(server.Close)
	resolve := "--resolve=" + strings.TrimPrefix(server.URL, "http://") + ":127.0.0.1"
	w.create(w.task("home", server.URL+"/a", server.URL+"/a", server.URL+"/b#x", server.URL+"/b#y"))
	r := w.run("verify", "home", resolve)
	if r.code != 2 || requests.Load() != 2 || !strings.Contains(r.err, "Asking 2 of 2 URLs") || !strings.Contains(r.out, server.URL+"/b#x ") {
		t.Errorf("%d requests: %+v", requests.Load(), r)
	}
	var list strings.Builder
	for i := range 20_001 { // more than a task may have
		fmt.Fprintf(&list, "%s/%d\n", server.URL, i%10_001)
	}
	if r := w.runWith(list.String(), "verify", "-f", "-", "--sample=3", resolve); r.code != 2 || !strings.Contains(r.err, "Asking 3 of 10001 URLs") {
		t.Errorf("%+v", r)
	}
}

func TestVerifyDoesNotAskWhatOnlyThisMachineReaches(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	w.create(w.task("home", server.URL+"/admin"))
	r := w.run("verify", "home")
	if note := "NoAnswer   <none>   <none>   <none>   <none>   dial tcp " + host + ": this is not a public address; --resolve=" + host + ":127.0.0.1 allows it\n"; r.code != 2 || !strings.HasSuffix(r.out, note) {
		t.Errorf("%+v, want %s", r, note)
	}
}

func TestVerifySaysHowFarTheRunIs(t *testing.T) {
	w := newWorld(t)
	w.operate(nil)
	url, resolve := startEdge(t)
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "list"}, Data: map[string]string{"urls": url + "/1\n" + url + "/2\n"}}
	warm := w.task("warm")
	warm.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: "list", Key: "urls"}
	held := w.task("held", url+"/3")
	held.Spec.Suspend = ptr.To(true)
	w.create(list, warm, held)
	for name, reason := range map[string]string{"warm": v1alpha1.ReasonSucceeded, "held": v1alpha1.ReasonSuspended} {
		w.until(name, reason, func(task *v1alpha1.PrefetchTask) bool { return taskstate.ReadyReason(task) == reason })
	}
	check := func(name, first string, n string) {
		t.Helper()
		if r := w.run("verify", name, resolve); r.code != 0 || r.err != first+asking(t, n+" of "+n)+n+" of "+n+" asked URLs were in the cache.\n" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	check("held", "held is Suspended: 0 of 1 targets prefetched.\n"+notOver, "1")
	check("warm", "warm is Succeeded: 2 of 2 targets prefetched.\n", "2")
	list.Data["urls"] += url + "/4\n"
	w.must(w.Update(t.Context(), list))
	check("warm", "warm is Succeeded: 2 of 2 targets prefetched.\n"+
		"The ConfigMap has another list than the run: the run does not prefetch the URLs that are new in it.\n", "3")
}

func TestVerifyRefusesWhatItCannotDo(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ args, err string }{
		{"", "no task is named: give its name, or --filename with a list of URLs"},
		{"home -f x", "give the name of a task or --filename, not both"},
		{"-f - --sample=-1", "--sample must not be negative: 0 asks all URLs"},
		{"-f - --concurrency=0", "--concurrency must be between 1 and 64"},
		{"-f - --timeout=0s", "--timeout must be positive, for example 10s"},
		{"-f - -o wide", `unknown output format "wide": use one of json, yaml`},
		{"-f - --resolve=a:443", `--resolve a:443 has no IP address at its end: "" is none`},
		{"-f -", "the list has no URLs, so there is nothing to ask"},
		{"-f /no/such/file", "the list cannot be read: open /no/such/file: no such file or directory"},
	} {
		w.run(append([]string{"verify"}, strings.Fields(c.args)...)...).is(t, 1, "", "Error: "+c.err+"\n")
	}
	w.runWith("# shop\nwww.example.com/\n", "verify", "-f", "-").is(t, 1, "",
		"Error: standard input:2:1: \"www.example.com/\" must be a full URL that starts with http:// or https://\n")
	if r := w.run("verify", "none"); r.code != 1 || r.out != "" || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%+v", r)
	}
}

func TestCtrlCEndsVerify(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	c := w.start(server.URL+"/\n", "verify", "-f", "-", "--timeout=1h", "--resolve="+host+":127.0.0.1")
	<-asked
	c.interrupt()
	c.wait().is(t, 130, "", asking(t, "1 of 1")+"Error: interrupted\n")
}
