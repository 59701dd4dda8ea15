package verify

import (
	"math/rand/v2"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// Distinct returns the first spelling of each URL, in their order. Asking for a second one would make the
// first answer count as a hit.
func Distinct(urls []string) (distinct []string) {
	seen := make(map[string]bool, len(urls))
	for _, rawURL := range urls {
		if identity := target.Identity(rawURL); !seen[identity] {
			seen[identity] = true
			distinct = append(distinct, rawURL)
		}
	}
	return distinct
}

// Sample returns at most size of the URLs, in their order and spread over the list: it takes one from
// each of size parts of the list. The same seed selects the same URLs. Size 0 selects all.
func Sample(urls []string, size int, seed uint64) []string {
	if size <= 0 || size >= len(urls) {
		return urls
	}
	random := rand.New(rand.NewPCG(seed, 0))
	sample := make([]string, size)
	for i := range sample {
		start, end := i*len(urls)/size, (i+1)*len(urls)/size
		sample[i] = urls[start+random.IntN(end-start)]
	}
	return sample
}
