package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// largeURLs is the number of URLs in the task. Each has 100 bytes.
const largeURLs = 10_000

// large is scenario (c). It is the same at every scale.
func (b *bench) large(ctx context.Context) (*result, error) {
	r := &result{}
	err := b.inWorld(ctx, "c", options{roundTrip: idleRoundTrip}, func(ctx context.Context, w *world) error {
		if err := w.create(ctx, task(namespace, "large", largeURLs)); err != nil {
			return err
		}
		applied, err := w.size(ctx, "large")
		if err != nil {
			return err
		}
		p, err := w.start(ctx, "manager")
		if err != nil {
			return err
		}
		if err := w.wait(ctx, p.Process, finished(1)); err != nil {
			return err
		}
		end, err := w.size(ctx, "large")
		if err != nil {
			return err
		}
		out := w.outcome("", 1)
		l := w.tasks.lives()["large"]
		t := r.table("", "URLs", "calls", "look-ups", "start → first JobId", "start → finished", "object as applied", "object at the end", "without managedFields")
		t.row(number(largeURLs), number(out.calls), number(out.lookups), seconds(l.submitted.Sub(p.started)), seconds(l.finished.Sub(p.started)),
			number(applied.whole)+" bytes", number(end.whole)+" bytes", fmt.Sprintf("%s → %s bytes", number(applied.bare), number(end.bare)))
		want := (largeURLs + batch - 1) / batch
		r.figure(fmt.Sprintf("calls, with %s URLs to a call", number(batch)), number(want), number(out.calls), out.calls == want)
		ratio := float64(end.whole) / float64(applied.whole)
		bare := float64(end.bare) / float64(applied.bare)
		r.figure("size of the object at the end, to that as applied", "below 1.5", fmt.Sprintf("%.3f", ratio), ratio < 1.5)
		r.figure("the same without managedFields", "below 1.5", fmt.Sprintf("%.3f", bare), bare < 1.5)
		r.figure("URLs executed twice", "0", number(out.duplicates), out.duplicates == 0)
		return nil
	})
	return r, err
}

// size is the size of an object as JSON, with and without managedFields.
type size struct{ whole, bare int }

func (w *world) size(ctx context.Context, name string) (s size, err error) {
	raw, err := w.raw(ctx, "/apis/teo.prefetch-operator.io/v1alpha1/namespaces/"+namespace+"/prefetchtasks/"+name)
	if err != nil {
		return s, err
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(raw), &object); err != nil {
		return s, err
	}
	delete(object["metadata"].(map[string]any), "managedFields")
	bare, err := json.Marshal(object)
	return size{len(raw), len(bare)}, err
}
