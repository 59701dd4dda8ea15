package tenancy

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// BenchmarkSharingAcrossNamespaces compares 1,000 tasks of one URL in 50 namespaces, which
// share an account, with the same in one namespace: the time from the start of the
// operator until EdgeOne has executed all. The ratio should be at most 1.1. Each
// namespace gets Events of its own, which the API server writes at the same time: on two cores
// that it shares with the operator, they make the difference.
func BenchmarkSharingAcrossNamespaces(b *testing.B) {
	var one, many time.Duration
	for b.Loop() {
		one += submitShared(b, 1)
		many += submitShared(b, 50)
	}
	b.ReportMetric(one.Seconds()/float64(b.N), "s/one-namespace")
	b.ReportMetric(many.Seconds()/float64(b.N), "s/50-namespaces")
	b.ReportMetric(float64(many)/float64(one), "ratio")
}

// submitShared returns how long 1,000 tasks in n namespaces take.
func submitShared(b *testing.B, n int) time.Duration {
	b.Helper()
	const tasks = 1000
	s := newSceneIn(b, cluster.ForTest(b, cluster.Options{})) // no other operator
	namespaces := []string{s.team}
	for i := range n - 1 {
		name := fmt.Sprintf("%s-%d", s.name, i)
		s.must(s.kube.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		namespaces = append(namespaces, name)
	}
	for _, name := range namespaces {
		s.label(name, "bench", s.name)
	}
	a := s.account("", "{namespaces: {selector: {matchLabels: {bench: "+s.name+"}}}}")
	for i := range tasks {
		s.createTasks(a.newTask(namespaces[i%n], fmt.Sprint("task-", i), fmt.Sprint("https://a.example/", i)))
	}
	begin := time.Now()
	// Of all namespaces, because a watch for each one would count too.
	s.must(s.start(b.Context(), nil, "--zap-log-level=error", "--signature-validity=5m"))
	s.eventually("all are executed", func() bool { return s.edgeOne.Ledger().Targets() == tasks })
	took := time.Since(begin)
	s.manager.Kill()
	return took
}
