package admission

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// BenchmarkStatusWrites measures how many statuses per second the API server writes, with
// the CRD and with a copy that has no rules on targets. It also reports the ratio of the
// two costs per write. The two alternate, so that a busy machine affects both equally. The
// ratio is the median of the rounds.
//
//	go test -run=^$ -bench=StatusWrites -benchtime=20x ./test/admission
func BenchmarkStatusWrites(b *testing.B) {
	kube := cluster.ForTest(b, cluster.Options{Bare: true})
	apply(b, kube.Client, crd(b, nil))
	without := crd(b, func(spec map[string]any) {
		targets := spec["targets"].(map[string]any)
		targets["items"] = map[string]any{"type": "string"}
		for _, rule := range []string{"x-kubernetes-validations", "minItems", "maxItems"} {
			delete(targets, rule)
		}
	})
	// A rule of the spec limits the size of targets.
	versions, _, _ := unstructured.NestedSlice(without.Object, "spec", "versions")
	unstructured.RemoveNestedField(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec", "x-kubernetes-validations")
	if err := unstructured.SetNestedSlice(without.Object, versions, "spec", "versions"); err != nil {
		b.Fatal(err)
	}
	apply(b, kube.Client, inGroup("without.example.com", without))
	for _, n := range []int{1, 500, 5000} {
		b.Run(fmt.Sprint("urls=", n), func(b *testing.B) {
			with := newWriters(b, kube.Admin, "teo.prefetch-operator.io", n)
			without := newWriters(b, kube.Admin, "without.example.com", n)
			writes := max(2, 400/(n+19)) // about the same duration for each round
			with.write(b, 1)
			without.write(b, 1)
			var times, cpu [2]time.Duration
			var ratios []float64
			b.ResetTimer()
			for i := range b.N {
				var round [2]time.Duration
				for j := range 2 { // the second one benefits from a warm server, so the order alternates
					which := (i + j) % 2
					start := cpuTime(kube.APIServer.PID())
					times[which] += []*writers{with, without}[which].write(b, writes)
					round[which] = cpuTime(kube.APIServer.PID()) - start
					cpu[which] += round[which]
				}
				ratios = append(ratios, float64(round[0])/float64(max(round[1], 1)))
			}
			slices.Sort(ratios)
			all := float64(b.N * writes * len(with.tasks))
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(all/times[0].Seconds(), "writes/s")
			b.ReportMetric(all/times[1].Seconds(), "writes/s-without-rules")
			if cpu[1] > 0 {
				b.ReportMetric(ratios[len(ratios)/2], "times-the-cost")
				b.ReportMetric(cpu[0].Seconds()*1000/all, "CPU-ms/write")
			}
		})
	}
}

// cpuTime returns the CPU time that a process has used so far, or 0 if it is unknown.
func cpuTime(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64 // user and system time, in hundredths of a second
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// inGroup moves a CRD to another API group.
func inGroup(group string, obj *unstructured.Unstructured) *unstructured.Unstructured {
	obj.SetName("prefetchtasks." + group)
	spec := obj.Object["spec"].(map[string]any)
	spec["group"] = group
	delete(spec["names"].(map[string]any), "shortNames")
	delete(spec["names"].(map[string]any), "categories")
	return obj
}

// writers write the statuses of a few tasks concurrently. Like the operator, they send the
// whole object as it was read. They do not parse responses: on a small machine, parsing
// costs as much as the API server's work.
type writers struct {
	http  *http.Client
	tasks []*written
}

type written struct {
	url            string
	before, behind []byte // of the resource version
	version        []byte
	n              int
}

func newWriters(b *testing.B, cfg *rest.Config, group string, urls int) *writers {
	b.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		b.Fatal(err)
	}
	w := &writers{http: client}
	targets := make([]string, urls)
	for i := range targets {
		u := fmt.Sprintf("https://www.example.com/assets/%05d/", i)
		targets[i] = u + strings.Repeat("x", 60-len(u))
	}
	for range 4 {
		collection := cfg.Host + "/apis/" + group + "/v1alpha1/namespaces/default/prefetchtasks"
		body, err := json.Marshal(map[string]any{
			"apiVersion": group + "/v1alpha1", "kind": "PrefetchTask", "metadata": map[string]any{"generateName": "bench-"},
			"spec": map[string]any{"zoneID": "zone-1", "targets": targets},
		})
		if err != nil {
			b.Fatal(err)
		}
		deadline := time.Now().Add(time.Minute)
		answer, status := w.do(b, http.MethodPost, collection, body)
		for ; status == http.StatusNotFound && time.Now().Before(deadline); answer, status = w.do(b, http.MethodPost, collection, body) {
			time.Sleep(100 * time.Millisecond) // the CRD is not served yet
		}
		if status != http.StatusCreated {
			b.Fatalf("%d: %.300s", status, answer)
		}
		var object map[string]any
		if err := json.Unmarshal(answer, &object); err != nil {
			b.Fatal(err)
		}
		metadata := object["metadata"].(map[string]any)
		task := &written{url: fmt.Sprint(collection, "/", metadata["name"], "/status"), version: resourceVersion(answer)}
		metadata["resourceVersion"] = "VERSION"
		object["status"] = map[string]any{"observedGeneration": 1, "run": "RUN"}
		if body, err = json.Marshal(object); err != nil {
			b.Fatal(err)
		}
		task.before, task.behind, _ = bytes.Cut(body, []byte("VERSION"))
		w.tasks = append(w.tasks, task)
	}
	return w
}

func resourceVersion(object []byte) []byte {
	_, rest, _ := bytes.Cut(object, []byte(`"resourceVersion":"`))
	version, _, _ := bytes.Cut(rest, []byte(`"`))
	return bytes.Clone(version)
}

// write writes each status n times and returns the duration.
func (w *writers) write(b *testing.B, n int) time.Duration {
	start := time.Now()
	var all sync.WaitGroup
	for _, task := range w.tasks {
		all.Go(func() {
			for range n {
				task.n++
				behind := bytes.Replace(task.behind, []byte("RUN"), fmt.Append(nil, task.n), 1)
				answer, status := w.do(b, http.MethodPut, task.url, slices.Concat(task.before, task.version, behind))
				if status != http.StatusOK {
					b.Errorf("%d: %.300s", status, answer)
					return
				}
				task.version = resourceVersion(answer)
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

func (w *writers) do(b *testing.B, method, url string, body []byte) ([]byte, int) {
	request, err := http.NewRequestWithContext(b.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		b.Error(err)
		return nil, 0
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := w.http.Do(request)
	if err != nil {
		b.Error(err)
		return nil, 0
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		b.Error(err)
	}
	return answer, response.StatusCode
}
