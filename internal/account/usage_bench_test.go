package account

import (
	"fmt"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// The watch shows a finished task while the calls of many others have an unknown outcome.
func BenchmarkAFinishedTask(b *testing.B) {
	for _, claims := range []int{100, 100_000} {
		b.Run(fmt.Sprint(claims), func(b *testing.B) {
			usage := NewUsage(0)
			for i := range claims {
				usage.OnTaskChange(nil, version(fmt.Sprint("a", i), step{claim: "a"}))
			}
			over := version("over", step{jobs: []v1alpha1.Job{job("b", "0-3", 0)}})
			for b.Loop() {
				usage.observe(over, true)
			}
		})
	}
}
