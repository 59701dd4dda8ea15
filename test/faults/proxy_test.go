package faults_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
	"github.com/prefetch-operator/teo-prefetch-operator/test/faults"
)

// proxied is a client with its own proxy, and a second client without a proxy.
type proxied struct {
	client.WithWatch
	direct client.Client
	proxy  *faults.Proxy
	t      *testing.T
}

func newProxied(t *testing.T, c *cluster.Cluster) *proxied {
	t.Helper()
	p := &proxied{direct: c.Client, t: t}
	var err error
	if p.proxy, err = faults.StartProxy(c); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, p.proxy.Config(c.Admin), "default"); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if p.WithWatch, err = client.NewWithWatch(cfg, client.Options{}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *proxied) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// configMap returns a new ConfigMap, named after the test and its data.
func (p *proxied) configMap(data string) *corev1.ConfigMap {
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, p.t.Name()))
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name[strings.LastIndexByte(name, '-')+1:] + "-" + data},
		Data:       map[string]string{"text": data},
	}
}

func (p *proxied) exists(obj client.Object) bool {
	p.t.Helper()
	err := p.direct.Get(p.t.Context(), client.ObjectKeyFromObject(obj), obj.DeepCopyObject().(client.Object))
	if client.IgnoreNotFound(err) != nil {
		p.t.Fatal(err)
	}
	return err == nil
}

// next returns the kind and name of the next event, or "end".
func next(w watch.Interface) string {
	event, ok := <-w.ResultChan()
	if !ok || event.Type == watch.Error {
		return "end"
	}
	return string(event.Type) + " " + event.Object.(client.Object).GetName()
}

func TestProxy(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Bare: true})
	for name, test := range map[string]func(*testing.T, *cluster.Cluster){
		"requests are told apart as the API server does":      testProxyMatches,
		"an error is answered with or without the execution":  testProxyAnswers,
		"of the requests that fit some are taken":             testProxyShares,
		"a held request arrives late":                         testProxyHold,
		"an answer is held, or lost":                          testProxyHoldAnswer,
		"held events come late, and in order":                 testProxyHoldEvents,
		"dropped events come again after the connection ends": testProxyDropEvents,
		"a watch that is told 410 has to list anew":           testProxyGone,
	} {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
	t.Run("it continues when the API server is back", func(t *testing.T) { testProxyRestart(t, c) }) // alone and last: it stops the API server
}

func testProxyMatches(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	taken := func(m faults.Match, do func() error) {
		t.Helper()
		id := p.proxy.AddFault(faults.Fault{m, faults.Effect{Delay: time.Nanosecond}})
		p.must(do())
		p.proxy.RemoveFault(id)
		if n := p.proxy.Taken(id); n != 1 {
			t.Errorf("%+v took %d requests, want 1", m, n)
		}
	}
	cm := p.configMap("a")
	taken(faults.Match{Verb: "create", Resource: "configmaps", Namespace: "default", Body: "text"}, func() error { return p.Create(t.Context(), cm) })
	taken(faults.Match{Verb: "get", Name: cm.Name}, func() error { return p.Get(t.Context(), client.ObjectKeyFromObject(cm), cm) })
	taken(faults.Match{Verb: "list", Resource: "configmaps"}, func() error { return p.List(t.Context(), &corev1.ConfigMapList{}) })
	taken(faults.Match{Verb: "update", Name: cm.Name}, func() error { return p.Update(t.Context(), cm) })
	taken(faults.Match{Verb: "patch", Name: cm.Name}, func() error {
		return p.Patch(t.Context(), cm, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"b":"c"}}`)))
	})
	taken(faults.Match{Verb: "delete", Name: cm.Name}, func() error { return p.Delete(t.Context(), cm) })
	taken(faults.Match{Verb: "create", Resource: "leases"}, func() error {
		return p.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "mine"}})
	})
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "spaced"}}
	p.must(p.Create(t.Context(), ns))
	taken(faults.Match{Verb: "update", Resource: "namespaces/status", Name: "spaced"}, func() error { return p.Status().Update(t.Context(), ns) })
	taken(faults.Match{Verb: "watch", Resource: "configmaps"}, func() error {
		w, err := p.Watch(t.Context(), &corev1.ConfigMapList{})
		if err == nil {
			w.Stop()
		}
		return err
	})
}

func testProxyAnswers(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	for _, tt := range []struct {
		name   string
		effect faults.Effect
		is     func(error) bool
		exists bool
	}{
		{"a", faults.Effect{Status: 503}, apierrors.IsServiceUnavailable, false},
		{"b", faults.Effect{Status: 500, Executed: true}, apierrors.IsInternalError, true},
		{"c", faults.Effect{Status: 504}, apierrors.IsTimeout, false},
		{"d", faults.Effect{Status: 504, Executed: true}, apierrors.IsTimeout, true},
		{"e", faults.Effect{Close: true}, isReset, false},
		{"f", faults.Effect{Close: true, Executed: true}, isReset, true},
		{"g", faults.Effect{Status: 429}, isNil, true}, // client-go waits for a second and retries
	} {
		cm := p.configMap(tt.name)
		id := p.proxy.AddFault(faults.Fault{faults.Match{Verb: "create", Count: 1}, tt.effect})
		err := p.Create(t.Context(), cm)
		if exists := p.exists(cm); !tt.is(err) || exists != tt.exists || p.proxy.Taken(id) != 1 {
			t.Errorf("%+v: error %v, exists %t, taken %d", tt.effect, err, exists, p.proxy.Taken(id))
		}
		p.proxy.RemoveFault(id)
	}
	cm := p.configMap("conflict")
	p.must(p.Create(t.Context(), cm))
	p.proxy.AddFault(faults.Fault{faults.Match{Verb: "update"}, faults.Effect{Status: 409}})
	if err := p.Update(t.Context(), cm); !apierrors.IsConflict(err) {
		t.Errorf("got %v, want a conflict", err)
	}
	p.proxy.ClearFaults()
	p.must(p.Update(t.Context(), cm))
}

func isNil(err error) bool   { return err == nil }
func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "stream error") }

func testProxyShares(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	for _, tt := range []struct {
		match faults.Match
		want  string
	}{
		{faults.Match{Nth: 2}, "2"},
		{faults.Match{Every: 3}, "3 6 9"},
		{faults.Match{Count: 2}, "1 2"},
		{faults.Match{Probability: 0.5, Seed: 7}, "3 4 5 6 7 8"},
	} {
		tt.match.Verb, tt.match.Resource = "get", "namespaces"
		p.proxy.AddFault(faults.Fault{tt.match, faults.Effect{Status: 503}})
		var got []string
		for i := 1; i < 10; i++ {
			if err := p.Get(t.Context(), client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err != nil {
				got = append(got, fmt.Sprint(i))
			}
		}
		p.proxy.ClearFaults()
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%+v took requests %s, want %s", tt.match, got, tt.want)
		}
	}
}

func testProxyHold(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	late, lost := p.configMap("late"), p.configMap("lost")
	for _, cm := range []*corev1.ConfigMap{late, lost} {
		held := p.proxy.Hold(faults.Match{Verb: "create"})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := p.Create(ctx, cm); !errors.Is(err, context.DeadlineExceeded) || p.exists(cm) || held.Waiting() != 1 {
			t.Errorf("held: error %v, exists %t, %d waiting", err, p.exists(cm), held.Waiting())
		}
		cancel()
		<-held.Arrived()
		if cm == late {
			held.Release()
		} else {
			held.Drop()
		}
		if held.Taken() != 1 {
			t.Errorf("%d taken, want 1", held.Taken())
		}
	}
	eventually(t, "the late request is executed", func() bool { return p.exists(late) })
	if p.exists(lost) {
		t.Error("the dropped request was executed")
	}
}

func testProxyHoldAnswer(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	cm := p.configMap("a")
	held := p.proxy.HoldAnswer(faults.Match{Verb: "create"})
	answered := make(chan error, 1)
	go func() { answered <- p.Create(t.Context(), cm) }()
	<-held.Arrived()
	if !p.exists(cm) {
		t.Error("not executed before its answer was held")
	}
	held.Release()
	p.must(<-answered)

	held = p.proxy.HoldAnswer(faults.Match{Verb: "update"})
	cm.Data["text"] = "changed"
	go func() { answered <- p.Update(t.Context(), cm) }()
	<-held.Arrived()
	held.Drop()
	if err := <-answered; !isReset(err) {
		t.Errorf("the lost answer came as %v", err)
	}
	p.must(p.Get(t.Context(), client.ObjectKeyFromObject(cm), cm))
	if cm.Data["text"] != "changed" {
		t.Error("not executed")
	}
}

// watch watches ConfigMaps, starting now.
func (p *proxied) watch() watch.Interface {
	p.t.Helper()
	var list corev1.ConfigMapList
	p.must(p.List(p.t.Context(), &list))
	return p.watchFrom(list.ResourceVersion)
}

func (p *proxied) watchFrom(version string) watch.Interface {
	p.t.Helper()
	w, err := p.Watch(p.t.Context(), &corev1.ConfigMapList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version}})
	p.must(err)
	p.t.Cleanup(w.Stop)
	return w
}

func testProxyHoldEvents(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	w := p.watch()
	held := p.proxy.Hold(faults.Match{Verb: "event", Resource: "configmaps"})
	a, b := p.configMap("a"), p.configMap("b")
	p.must(p.Create(t.Context(), a))
	p.must(p.Create(t.Context(), b))
	<-held.Arrived()
	select {
	case event := <-w.ResultChan():
		t.Errorf("got %v while events are held", event)
	case <-time.After(200 * time.Millisecond): // no event must arrive
	}
	held.Release()
	for _, want := range []string{"ADDED " + a.Name, "ADDED " + b.Name} {
		if got := next(w); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	large := p.configMap("large")
	large.Data["more"] = strings.Repeat("more ", 100_000) // large enough for the API server to compress it on request
	p.must(p.Create(t.Context(), large))
	if got, want := next(w), "ADDED "+large.Name; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := p.proxy.CutWatches(faults.Match{Verb: "watch"}); n != 1 {
		t.Errorf("%d watches cut, want 1", n)
	}
	if got := next(w); got != "end" {
		t.Errorf("got %s after the cut", got)
	}
}

func testProxyDropEvents(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	w := p.watch()
	before, lost, after := p.configMap("before"), p.configMap("lost"), p.configMap("after")
	p.must(p.Create(t.Context(), before))
	if got, want := next(w), "ADDED "+before.Name; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	id := p.proxy.AddFault(faults.Fault{faults.Match{Verb: "event", Body: lost.Name}, faults.Effect{Drop: true}})
	p.must(p.Create(t.Context(), lost))
	eventually(t, "the event is dropped", func() bool { return p.proxy.Taken(id) == 1 })
	p.must(p.Create(t.Context(), after))
	p.proxy.RemoveFault(id)
	if got := next(w); got != "end" {
		t.Errorf("got %s, want the end", got)
	}
	w = p.watchFrom(before.ResourceVersion)
	for _, want := range []string{"ADDED " + lost.Name, "ADDED " + after.Name} {
		if got := next(w); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func testProxyGone(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	p.proxy.AddFault(faults.Fault{faults.Match{Verb: "watch"}, faults.Effect{Status: 410}})
	if _, err := p.Watch(t.Context(), &corev1.ConfigMapList{}); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("got %v", err)
	}
}

func testProxyRestart(t *testing.T, c *cluster.Cluster) {
	p := newProxied(t, c)
	w := p.watch()
	c.APIServer.Kill()
	if got := next(w); got != "end" {
		t.Errorf("got %s when the API server died", got)
	}
	if err := p.Get(t.Context(), client.ObjectKey{Name: "default"}, &corev1.Namespace{}); err == nil {
		t.Error("got an answer from a dead API server")
	}
	p.must(c.APIServer.Start(t.Context()))
	p.must(p.Get(t.Context(), client.ObjectKey{Name: "default"}, &corev1.Namespace{}))
	p.watch()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 30 s: %s", what)
		}
	}
}
