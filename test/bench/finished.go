package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

const (
	// archiveZone and archive are the zone and namespace of the finished tasks, so that
	// their costs can be distinguished from those of other tasks.
	archiveZone = "zone-archive"
	archive     = "archive"
	// sharedBy is how many finished tasks name the same job.
	sharedBy = 500
)

// finished is scenario (e).
func (b *bench) finished(ctx context.Context) (*result, error) {
	n, few := b.scaled(100_000, 1000), b.scaled(300, 30)
	r := &result{}
	err := b.inWorld(ctx, "e", options{roundTrip: idleRoundTrip}, func(ctx context.Context, w *world) error {
		p, err := w.start(ctx, "manager")
		if err != nil {
			return err
		}
		before, err := w.trickle(ctx, p, "before", few)
		if err != nil {
			return err
		}
		small, err := p.usage()
		if err != nil {
			return err
		}
		original, err := w.finishOriginal(ctx, p)
		if err != nil {
			return err
		}
		if err := p.Stop(ctx, time.Minute); err != nil {
			return err
		}
		if err := w.fillArchive(ctx, original, n); err != nil {
			return err
		}
		again, err := w.restart(ctx)
		if err != nil {
			return err
		}
		after, err := w.trickle(ctx, again.program, "after", few)
		if err != nil {
			return err
		}
		again.report(r, small, n)
		r.latency(row{"before", before}, row{"with " + number(n) + " finished tasks", after})
		ratio := times(after.percentile(.99), before.percentile(.99))
		r.figure("(d)'s p99 with the finished tasks, to that before", "at most 1.2", fmt.Sprintf("%.2f", ratio), ratio <= 1.2)
		return nil
	})
	return r, err
}

// restarted is a manager that was started when finished tasks existed.
type restarted struct {
	program       *program
	first         time.Duration // from the start of the process to the JobId of a waiting task
	usage         usage
	calls, writes int // for the finished tasks
	requests      int
}

// restart starts the manager while a task is waiting.
func (w *world) restart(ctx context.Context) (*restarted, error) {
	w.tasks.reset()
	if err := w.create(ctx, task(namespace, "waits", 1)); err != nil {
		return nil, err
	}
	writes, err := w.statusWrites(ctx)
	if err != nil {
		return nil, err
	}
	calls := len(w.edgeOne.Calls())
	p, err := w.start(ctx, "manager")
	if err != nil {
		return nil, err
	}
	if err := w.wait(ctx, p.Process, finished(1)); err != nil {
		return nil, err
	}
	waited := w.tasks.lives()["waits"]
	// This leaves time for the manager to look at the finished tasks, if it does that.
	if err := pause(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	s := &restarted{program: p, first: waited.submitted.Sub(p.started)}
	for _, call := range w.edgeOne.Calls()[calls:] {
		if call.ZoneID == archiveZone {
			s.calls++
		}
	}
	if s.writes, err = w.statusWrites(ctx); err != nil {
		return nil, err
	}
	s.writes -= writes + waited.changes - 1 // the creation of the waiting task is not a status write
	if s.requests, err = p.requests(ctx); err != nil {
		return nil, err
	}
	s.usage, err = p.usage()
	return s, err
}

func (s *restarted) report(r *result, small usage, n int) {
	t := r.table("", "manager", "memory 10 s after its first task was over", "peak memory", "CPU", "API-server requests", "start → first JobId")
	t.row("without finished tasks", fmt.Sprintf("%d MiB", small.rss), fmt.Sprintf("%d MiB", small.peak), "", "", "")
	t.row("started beside "+number(n)+" of them", fmt.Sprintf("%d MiB", s.usage.rss), fmt.Sprintf("%d MiB", s.usage.peak), seconds(s.usage.cpu),
		number(s.requests), seconds(s.first))
	r.figure("calls of EdgeOne for the finished ones", "0", number(s.calls), s.calls == 0)
	r.figure("status writes for the finished ones", "0", number(s.writes), s.writes == 0)
	r.figure("memory after the start", "at most 150 MiB", fmt.Sprintf("%d MiB", s.usage.rss), s.usage.rss <= 150)
	r.figure("peak memory", "at most 450 MiB", fmt.Sprintf("%d MiB", s.usage.peak), s.usage.peak <= 450)
	r.figure("start of the process → first JobId", "at most 20 s", seconds(s.first), s.first <= 20*time.Second)
}

// archivePrefix is the key prefix of the finished tasks in etcd.
const archivePrefix = "/registry/teo.prefetch-operator.io/prefetchtasks/" + archive + "/"

// finishOriginal lets the manager finish a task, and returns the task as stored in etcd.
func (w *world) finishOriginal(ctx context.Context, p *program) ([]byte, error) {
	if err := w.createNamespace(ctx, archive); err != nil {
		return nil, err
	}
	w.tasks.reset()
	original := task(archive, "original", 1)
	original.Spec.ZoneID = archiveZone
	original.Spec.Targets = []v1alpha1.Target{archiveURL("original")}
	if err := w.create(ctx, original); err != nil {
		return nil, err
	}
	if err := w.wait(ctx, p.Process, finished(1)); err != nil {
		return nil, err
	}
	var found struct {
		KVs []struct{ Value []byte }
	}
	if err := w.etcd(ctx, "range", map[string]any{"key": []byte(archivePrefix + "original")}, &found); err != nil {
		return nil, err
	}
	if len(found.KVs) != 1 {
		return nil, errors.New("etcd does not have the task where it was looked for")
	}
	return found.KVs[0].Value, nil
}

// fillArchive writes n copies of a finished task to etcd. Each copy looks as if the
// manager had finished it. The API server is stopped in the meantime, because it is not
// made for the events of so many writes.
func (w *world) fillArchive(ctx context.Context, original []byte, n int) error {
	w.tasks.endLast()
	w.cluster.APIServer.Kill()
	if err := w.putCopies(ctx, original, n); err != nil {
		return err
	}
	if err := w.cluster.APIServer.Start(ctx); err != nil {
		return err
	}
	if err := w.cacheFilled(ctx); err != nil {
		return err
	}
	if err := w.track(ctx, prefetchTasks); err != nil {
		return err
	}
	return pause(ctx, calm)
}

// cacheFilled waits until the API server answers from its watch cache, as it does after
// running for a while.
func (w *world) cacheFilled(ctx context.Context) error {
	start := time.Now()
	for {
		err := w.client.List(ctx, &v1alpha1.PrefetchTaskList{}, client.InNamespace(namespace), &client.ListOptions{
			Raw: &metav1.ListOptions{ResourceVersion: "0"},
		})
		if !apierrors.IsTooManyRequests(err) || time.Since(start) > patience {
			return err
		}
		say("%-24s %4.0fs  the API server fills its cache", w.name, time.Since(w.started).Seconds())
		if err := pause(ctx, progressEvery); err != nil {
			return err
		}
	}
}

func (w *world) putCopies(ctx context.Context, original []byte, n int) error {
	var put atomic.Int64
	done := make(chan struct{})
	w.group.Go(func() { w.tellCopies(&put, n, done) })
	defer close(done)
	return parallel(ctx, creators, (n+txnSize-1)/txnSize, func(i int) error {
		var ops []any
		for j := i * txnSize; j < min(n, (i+1)*txnSize); j++ {
			name, value, err := copyOf(original, j)
			if err != nil {
				return err
			}
			ops = append(ops, map[string]any{"requestPut": map[string]any{"key": []byte(archivePrefix + name), "value": value}})
		}
		defer put.Add(int64(len(ops)))
		return w.etcd(ctx, "txn", map[string]any{"success": ops}, nil)
	})
}

// txnSize is the number of writes in one etcd transaction.
const txnSize = 100

func archiveURL(name string) v1alpha1.Target {
	return v1alpha1.Target(strings.Replace(targetURL(name, 0), "example.com", "example.org", 1))
}

// copyOf returns a copy of a finished task with another name and other targets.
func copyOf(original []byte, i int) (name string, value []byte, err error) {
	var t v1alpha1.PrefetchTask
	if err := json.Unmarshal(original, &t); err != nil {
		return "", nil, err
	}
	if len(t.Status.Jobs) != 1 || t.Status.Run != taskstate.RunHash(&t) {
		return "", nil, errors.New("the task to copy is not what a finished one looks like")
	}
	t.Name, t.UID = fmt.Sprintf("finished-%06d", i), types.UID(uuid.NewUUID())
	t.Spec.Targets = []v1alpha1.Target{archiveURL(t.Name)}
	t.Status.Run = taskstate.RunHash(&t)
	t.Status.Jobs[0].ID = fmt.Sprintf("job-%06d", i/sharedBy)
	t.Status.Jobs[0].ClaimID = fmt.Sprintf("claim-%06d", i/sharedBy)
	value, err = json.Marshal(t)
	return t.Name, value, err
}

func (w *world) tellCopies(put *atomic.Int64, n int, done <-chan struct{}) {
	for ticker := time.NewTicker(progressEvery); ; {
		select {
		case <-ticker.C:
			say("%-24s %4.0fs  %d of %d finished tasks put into etcd", w.name, time.Since(w.started).Seconds(), put.Load(), n)
		case <-done:
			ticker.Stop()
			return
		}
	}
}

// etcd makes a request to etcd's JSON gateway, which encodes keys and values in base64.
func (w *world) etcd(ctx context.Context, method string, request, response any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	url := strings.TrimSuffix(w.cluster.Etcd.ReadyURL, "/readyz") + "/v3/kv/" + method
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answered %s", resp.Status)
	}
	if response == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(response)
}

// parallel calls do n times with several workers, and stops at the first failure.
func parallel(ctx context.Context, workers, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}
