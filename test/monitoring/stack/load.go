package stack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The zones of the load. Two have enough quota. The quota of the third is soon exhausted.
const (
	shop  = "zone-2x9examplea"
	media = "zone-ajj243dwrew"
	small = "zone-3smallquota0"
)

var hosts = map[string]string{shop: "www.example.com", media: "www.qq.com", small: "small.example.net"}

func edgeOne() simulator.Config {
	c := simulator.Demo()
	c.SignatureValidity = signatureValidity
	c.JobDuration = 3 * time.Second
	for i := range c.Zones {
		switch c.Zones[i].ID {
		case shop:
			c.Zones[i].Daily = 20000
		case media:
			c.Zones[i].Daily = 10000
		case small:
			c.Zones[i].Daily = 60
		}
	}
	return c
}

// load creates tasks.
type load struct {
	*Stack
	random *rand.Rand
	made   int
}

// GenerateLoad simulates users, other programs and networks for the given duration. Tasks
// arrive steadily, followed by the many tasks of a release. Another program uses the
// account, and responses are lost. The load is the same in every run.
func (w *Stack) GenerateLoad(ctx context.Context, length time.Duration) error {
	l := &load{Stack: w, random: rand.New(rand.NewPCG(1, 2))}
	if err := l.begin(ctx); err != nil {
		return err
	}
	acts := []struct {
		at float64 // as a share of the duration
		do func(ctx context.Context) error
	}{
		{0.1, l.lose},
		{0.25, l.release},
		{0.5, func(context.Context) error { w.EdgeOne.SetRival("demo", 15); return nil }},
		{0.7, func(context.Context) error { w.EdgeOne.SetRival("demo", 0); return nil }},
		{0.8, l.lose},
	}
	start := time.Now()
	ticks := time.NewTicker(500 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks.C:
		}
		past := time.Since(start)
		if past >= length {
			return nil
		}
		if len(acts) > 0 && past.Seconds() >= acts[0].at*length.Seconds() {
			if err := acts[0].do(ctx); err != nil {
				return err
			}
			acts = acts[1:]
		}
		for i := range 1 + l.random.IntN(4) {
			zone := []string{shop, shop, media}[l.random.IntN(3)]
			if err := l.task(ctx, zone, 1+l.random.IntN(30), refreshing(i == 3)); err != nil {
				return err
			}
		}
	}
}

// begin creates what stays during the run: namespaces, tasks that wait for user action,
// and more tasks than a zone's quota allows.
func (l *load) begin(ctx context.Context) error {
	for _, name := range namespaces {
		if err := l.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	// An account that no task uses: the queries about accounts show something.
	account := &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "main"}}
	account.Spec.Credentials.SecretRef.Name = "edgeone-main"
	if err := l.Create(ctx, account); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	err := l.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaces[0], Name: "old-key"},
		StringData: map[string]string{"secretId": "AKIDdemo", "secretKey": "no-longer-the-key"},
	})
	if err != nil {
		return err
	}
	return errors.Join(
		l.task(ctx, shop, 5, func(task *v1alpha1.PrefetchTask) {
			task.Namespace, task.Spec.CredentialsSecretRef.Name = namespaces[0], "old-key"
		}),
		l.task(ctx, shop, 5, func(task *v1alpha1.PrefetchTask) { task.Spec.Suspend = ptr.To(true) }),
		l.task(ctx, small, 50, nil),
		l.task(ctx, small, 40, nil),
	)
}

var namespaces = []string{"shop", "media", "news"}

// release requires more calls than the rate limit allows in a few seconds, because tasks
// with different headers cannot share a call.
func (l *load) release(ctx context.Context) error {
	for i := range 200 {
		err := l.task(ctx, shop, 10, func(task *v1alpha1.PrefetchTask) {
			task.Spec.Headers = []v1alpha1.HTTPHeader{{Name: "X-Variant", Value: fmt.Sprint(i % 100)}}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// refreshing returns the change that makes a task purge its URLs first, or nil.
func refreshing(isRefresh bool) func(*v1alpha1.PrefetchTask) {
	if !isRefresh {
		return nil
	}
	return func(task *v1alpha1.PrefetchTask) { task.Spec.Purge.Type = v1alpha1.PurgeURL }
}

// lose suppresses the responses to two calls: one is executed, the other is not.
func (l *load) lose(context.Context) error {
	for zoneID, executed := range map[string]bool{shop: true, media: false} {
		l.EdgeOne.AddFault(simulator.Fault{
			Match:  simulator.Matcher{Action: "CreatePrefetchTask", ZoneID: zoneID, Count: 1},
			Effect: simulator.Effect{Answer: simulator.ConnectionClosed, Executed: executed},
		})
	}
	return nil
}

// task creates a task with the given number of URLs. Some of them fail.
func (l *load) task(ctx context.Context, zoneID string, urls int, change func(*v1alpha1.PrefetchTask)) error {
	l.made++
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespaces[l.random.IntN(len(namespaces))], Name: fmt.Sprintf("task-%d", l.made),
	}}
	task.Spec.ZoneID = zoneID
	for i := range urls {
		kind := "assets"
		if l.random.IntN(200) == 0 {
			kind = "broken"
		}
		task.Spec.Targets = append(task.Spec.Targets, v1alpha1.Target(fmt.Sprintf("https://%s/%s/%d/%d.js", hosts[zoneID], kind, l.made, i)))
	}
	if change != nil {
		change(task)
	}
	return l.Create(ctx, task)
}
