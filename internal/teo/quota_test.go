package teo

import (
	"errors"
	"maps"
	"testing"
	"testing/synctest"
)

func TestQuota(t *testing.T) {
	for _, tt := range []struct {
		name, response string
		want           Quota
		err            error
	}{
		{"one that is used up today", `"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":0}]`,
			Quota{2000, 10000, 0}, nil},
		{"one that is overdrawn", `"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":-7}]`,
			Quota{2000, 10000, 0}, nil},
		{"none a day", `"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":0,"DailyAvailable":0}]`, Quota{}, ErrZeroQuota},
		{"none in a call", `"PrefetchQuota":[{"Type":"prefetch_url","Batch":0,"Daily":10000,"DailyAvailable":9}]`, Quota{}, ErrZeroQuota},
		{"the one for URLs",
			`"PrefetchQuota":[{"Type":"other","Batch":1},{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":9}]`,
			Quota{2000, 10000, 9}, nil},
		{"none", `"PrefetchQuota":null`, Quota{}, ErrNoPrefetchQuota},
		{"only others", `"PurgeQuota":[{"Type":"prefetch_url","Batch":1}],"PrefetchQuota":[{"Type":"other"}]`, Quota{}, ErrNoPrefetchQuota},
		{"one of purges by that name", `"PurgeQuota":[{"Type":"prefetch_url","Batch":1,"Daily":2,"DailyAvailable":3}]`, Quota{}, ErrNoPrefetchQuota},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clientOf(t, Options{Transport: answering(200, `{"Response":{`+tt.response+`,"RequestId":"r"}}`)})
				got, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
				if got.Prefetch != tt.want || !errors.Is(err, tt.err) || (err != nil && KindOf(err) != Rejected) {
					t.Errorf("%+v, %v", got, err)
				}
				if errors.Is(err, ErrZeroQuota) != errors.Is(tt.err, ErrZeroQuota) {
					t.Errorf("%v says that the quota is 0, or does not", err)
				}
			})
		})
	}
	for _, quota := range []string{`"Batch":2000`, `"Batch":2000,"Daily":10000`, `"Daily":10000,"DailyAvailable":9`,
		`"Batch":2000,"Daily":null,"DailyAvailable":9`, `"Batch":"2000","Daily":10000,"DailyAvailable":9`} {
		t.Run("one without all of its numbers says nothing: "+quota, func(t *testing.T) {
			c := unhurried(t, answering(200, `{"Response":{"PrefetchQuota":[{"Type":"prefetch_url",`+quota+`}],"RequestId":"r"}}`))
			if got, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1"); KindOf(err) != Unavailable || errors.Is(err, ErrNoPrefetchQuota) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestQuotasOfPurges(t *testing.T) {
	const (
		prefetch = `"PrefetchQuota":[{"Type":"prefetch_url","Batch":2000,"Daily":10000,"DailyAvailable":9}]`
		url      = `{"Type":"purge_url","Batch":5000,"Daily":10000,"DailyAvailable":8}`
	)
	for _, tt := range []struct {
		name, response string
		want           map[string]Quota
		zero           []string // the types that the plan lacks
		err            error
	}{
		{"every type", prefetch + `,"PurgeQuota":[` + url + `,{"Type":"purge_prefix","Batch":1000,"Daily":1000,"DailyAvailable":-1},` +
			`{"Type":"purge_host","Batch":0,"Daily":0,"DailyAvailable":0},{"Type":"purge_all","Batch":1,"Daily":2,"DailyAvailable":3},` +
			`{"Type":"purge_cache_tag","Batch":100,"Daily":0,"DailyAvailable":0}]`, map[string]Quota{
			TypePurgeURL: {5000, 10000, 8}, TypePurgePrefix: {1000, 1000, 0}, TypePurgeHost: {}, TypePurgeCacheTag: {100, 0, 0},
		}, []string{TypePurgeHost, TypePurgeCacheTag}, nil},
		{"a type that is missing is unknown", prefetch + `,"PurgeQuota":[` + url + `]`, map[string]Quota{TypePurgeURL: {5000, 10000, 8}}, nil, nil},
		{"a type without its numbers is unknown", prefetch + `,"PurgeQuota":[` + url + `,{"Type":"purge_host","Batch":7}]`,
			map[string]Quota{TypePurgeURL: {5000, 10000, 8}}, nil, nil},
		{"none", prefetch + `,"PurgeQuota":null`, map[string]Quota{}, nil, nil},
		{"without one of prefetch", `"PurgeQuota":[` + url + `]`, map[string]Quota{TypePurgeURL: {5000, 10000, 8}}, nil, ErrNoPrefetchQuota},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := unhurried(t, answering(200, `{"Response":{`+tt.response+`,"RequestId":"r"}}`))
			got, err := c.DescribeContentQuota(t.Context(), testCreds, "zone-1")
			if !maps.Equal(got.Purge, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%+v, %v", got, err)
			}
			for _, text := range tt.zero {
				if quota, ok := got.Purge[text]; !ok || !quota.IsZero() {
					t.Errorf("the plan has %s: %+v, %v", text, quota, ok)
				}
			}
			if got.Purge[TypePurgeURL].IsZero() && len(tt.want) > 0 {
				t.Error("the plan lacks purges of URLs")
			}
		})
	}
}
