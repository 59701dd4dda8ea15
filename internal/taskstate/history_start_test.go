package taskstate

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// A prefetch by anybody counts as fresh only if EdgeOne has purged its URL since freshSince, as the
// task asks for, and began the prefetch afterwards. Then the purge is kept as well: another one would
// delete what is fresh.
func TestWhatIsFreshAfterAPurge(t *testing.T) {
	const url, prefix, other = "https://www.example.com/a/1", "https://www.example.com/a/", "https://www.example.com/b/"
	since := time.Date(2026, 11, 28, 14, 0, 0, 0, time.UTC)
	at := func(minute int) time.Time { return since.Add(time.Duration(minute) * time.Minute) }
	record := func(job, kind, text, status string, minute int) teo.Record {
		return teo.Record{JobID: job, Type: kind, Target: text, Status: status, Method: teo.MethodDelete, CreateTime: at(minute), UpdateTime: at(minute + 1)}
	}
	success, processing := teo.StatusSuccess, teo.StatusProcessing
	invalidated := record("p", teo.TypePurgePrefix, prefix, success, 1)
	invalidated.Method = teo.MethodInvalidate
	byURL, byPrefix := v1alpha1.Purge{Type: v1alpha1.PurgeURL}, v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{prefix}}
	twoPrefixes := v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{prefix, other}}
	invalidate := v1alpha1.Purge{Type: v1alpha1.PurgePrefix, Targets: []v1alpha1.PurgeTarget{prefix}, Method: v1alpha1.PurgeInvalidate}
	urlPurge := func(minute int) teo.Record { return record("p", teo.TypePurgeURL, url, success, minute) }
	prefixPurge := func(text string, minute int) teo.Record {
		return record("p", teo.TypePurgePrefix, text, success, minute)
	}

	tests := []struct {
		name       string
		purge      v1alpha1.Purge
		purges     []teo.Record
		prefetched int // the minute in which the prefetch began
		want       string
	}{
		{"purged and prefetched", byURL, []teo.Record{urlPurge(1)}, 3, "f:[0]"},
		{"no purge", byURL, nil, 3, ""},
		{"purged before freshSince", byURL, []teo.Record{urlPurge(-5)}, 3, ""},
		{"prefetched before freshSince", byURL, []teo.Record{urlPurge(-5)}, -2, ""},
		{"prefetched before the purge", byURL, []teo.Record{urlPurge(5)}, 3, ""},
		{"prefetched before the purge ended", byURL, []teo.Record{urlPurge(1)}, 1, ""},
		{"purged again since", byURL, []teo.Record{urlPurge(1), urlPurge(5)}, 3, ""},
		{"purged again since, listed first", byURL, []teo.Record{urlPurge(5), urlPurge(1)}, 3, ""},
		{"another purge is under way", byURL, []teo.Record{record("q", teo.TypePurgeURL, url, processing, 5), urlPurge(1)}, 3, ""},
		{"the purge failed", byURL, []teo.Record{record("p", teo.TypePurgeURL, url, teo.StatusFailed, 1)}, 3, ""},
		{"a purge of another type", byURL, []teo.Record{prefixPurge(prefix, 1)}, 3, ""},
		{"the prefix is purged", byPrefix, []teo.Record{prefixPurge(prefix, 1)}, 3, "Purge p:[0] f:[0]"},
		{"only a URL of the prefix is purged", byPrefix, []teo.Record{urlPurge(1)}, 3, ""},
		{"one of two prefixes is purged", twoPrefixes, []teo.Record{prefixPurge(prefix, 1)}, 3, ""},
		{"both prefixes are purged", twoPrefixes, []teo.Record{prefixPurge(prefix, 1), prefixPurge(other, 1)}, 3, "Purge p:[0 1] f:[0]"},
		{"the prefix is only invalidated", byPrefix, []teo.Record{invalidated}, 3, ""},
		{"the prefix is invalidated, as the task asks for", invalidate, []teo.Record{invalidated}, 3, "Purge p:[0] f:[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			task := &v1alpha1.PrefetchTask{Spec: v1alpha1.PrefetchTaskSpec{
				ZoneID: "zone-1", Targets: []v1alpha1.Target{url, other + "new"}, Purge: tt.purge, FreshSince: metav1.NewTime(since),
			}}
			fresh, purged := FreshURLs{}, LastPurges{}
			fresh.AddRecords([]teo.Record{record("f", teo.TypePrefetchURL, url, success, tt.prefetched)})
			types := map[v1alpha1.PurgeType]string{v1alpha1.PurgeURL: teo.TypePurgeURL, v1alpha1.PurgePrefix: teo.TypePurgePrefix}
			purged.AddRecords(tt.purges, types[tt.purge.Type])
			got := ""
			for _, job := range KeepFromHistory(task, NewHistoryRead(at(10)), fresh, purged) {
				if job.Kind == v1alpha1.JobPurge {
					got += "Purge "
				}
				got += fmt.Sprint(job.JobID, ":", []int(job.Positions), " ")
			}
			if want := tt.want; want != "" && got != want+" " || want == "" && got != "" {
				t.Errorf("it keeps %q, want %q", got, want)
			}
		})
	}
}
