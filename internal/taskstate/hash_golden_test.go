package taskstate_test

import (
	"testing"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// TestHashesInStatusesNeverChange pins the hashes in statuses. The operator compares a
// status with the spec only by these hashes. If one of them changes, an upgrade submits
// every finished task of every cluster again. Never edit a hash in this table.
func TestHashesInStatusesNeverChange(t *testing.T) {
	type spec = v1alpha1.PrefetchTaskSpec
	type targets = []v1alpha1.Target
	type headers = []v1alpha1.HTTPHeader
	list := v1alpha1.TargetsSource{ConfigMapKeyRef: v1alpha1.ConfigMapKeyReference{Name: "release", Key: "urls.txt"}}
	for _, c := range []struct {
		name                    string
		spec                    spec
		run, targets, semantics string
	}{
		{"one target",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}}, "f89b94e71e7e94c39faa", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"the order of targets counts",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1", "https://a.example/2"}}, "06c7ea3c4e1f9dfeed4e", "40723c166e4024d7b9bb", "0775f9bf4b9faa288219"},
		{"the same in another order",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/2", "https://a.example/1"}}, "5854501d5e8a556b0894", "d4a7bb96224c90d15e11", "0775f9bf4b9faa288219"},
		{"a target listed twice counts once",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1", "https://a.example/2", "https://a.example/1"}}, "06c7ea3c4e1f9dfeed4e", "40723c166e4024d7b9bb", "0775f9bf4b9faa288219"},
		{"two spellings of a target are both in the hash",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/中", "https://a.example/%E4%B8%AD", "HTTPS://A.example:443/%e4%b8%ad#x"}}, "22ca4ffb404dcda83735", "0c0948b862a6a4f1a93d", "0775f9bf4b9faa288219"},
		{"characters that JSON escapes",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/?a=1&b=<2>\u2028'\""}}, "38b401d2ae97945d84bc", "df8a95b1884b7ef43449", "0775f9bf4b9faa288219"},
		{"the wildcard zone",
			spec{ZoneID: "*", Targets: targets{"https://a.example/1"}}, "c522d1dad0897ec19e49", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"mode Default spelled out is the default",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Mode: v1alpha1.ModeDefault}, "f89b94e71e7e94c39faa", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"mode Edge",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Mode: v1alpha1.ModeEdge}, "ea8b2ebcb14f8340cab6", "ed6834063b383a16eb68", "06d8a96aea464335be2f"},
		{"segments ignored spelled out is the default",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, MediaSegments: v1alpha1.MediaSegmentsIgnore}, "f89b94e71e7e94c39faa", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"segments prefetched",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, MediaSegments: v1alpha1.MediaSegmentsPrefetch}, "8bdf956e715170d62ae9", "ed6834063b383a16eb68", "148494e0a64724e6ee78"},
		{"encodeURL true",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, EncodeURL: ptr.To(true)}, "44895337ad72e59293fe", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"encodeURL false is not the same as none",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, EncodeURL: ptr.To(false)}, "9871fd09f46cb044fb01", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"a revision",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Revision: "v1.2.3"}, "58bba99770e6f14cc161", "ed6834063b383a16eb68", "0775f9bf4b9faa288219"},
		{"a header",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Headers: headers{{Name: "X-Lane", Value: "1"}}}, "27355f8441422bf3810f", "ed6834063b383a16eb68", "a5782d8e724260da7dbd"},
		{"headers in one order",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Headers: headers{{Name: "B", Value: "1"}, {Name: "a", Value: "2"}, {Name: "C", Value: "3"}}}, "fe1d659f63e53a21c318", "ed6834063b383a16eb68", "aa264d21ba9e7b0bc25c"},
		{"headers in another order",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Headers: headers{{Name: "C", Value: "3"}, {Name: "B", Value: "1"}, {Name: "a", Value: "2"}}}, "fe1d659f63e53a21c318", "ed6834063b383a16eb68", "aa264d21ba9e7b0bc25c"},
		{"headers whose names differ by case only",
			spec{ZoneID: "zone-1", Targets: targets{"https://a.example/1"}, Headers: headers{{Name: "x-a", Value: "1"}, {Name: "X-A", Value: "1"}}}, "34fbc9f55db0a1bcfb73", "ed6834063b383a16eb68", "93f5371d6d3625f10745"},
		{"targets in a ConfigMap that are not known",
			spec{ZoneID: "zone-1", TargetsFrom: list}, "e6d53ffd4b6d9130de85", "cf1cbb66a638b4860a51", "0775f9bf4b9faa288219"},
		{"targets in a ConfigMap, once they are known",
			spec{ZoneID: "zone-1", TargetsFrom: list, Targets: targets{"https://a.example/1", "https://a.example/2"}}, "e6d53ffd4b6d9130de85", "40723c166e4024d7b9bb", "0775f9bf4b9faa288219"},
		{"all fields",
			spec{
				ZoneID: "zone-1", Targets: targets{"https://a.example/1", "https://b.example/2"}, Mode: v1alpha1.ModeEdge,
				Headers: headers{{Name: "X-Lane", Value: "1"}}, MediaSegments: v1alpha1.MediaSegmentsPrefetch, EncodeURL: ptr.To(true),
				Revision: "v1", CredentialsSecretRef: v1alpha1.SecretReference{Name: "edgeone"}, Suspend: ptr.To(true), TTLSecondsAfterFinished: 60,
			}, "a089356bfd2de1fdfd4d", "c9fd5d62aff0c71214bb", "25f886e6c6c40fbc4400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := &v1alpha1.PrefetchTask{Spec: c.spec}
			if run, targets, semantics := taskstate.RunHash(task), taskstate.HashTargets(task), taskstate.HashSemantics(task); run != c.run || targets != c.targets || semantics != c.semantics {
				t.Errorf("the hashes of run, targets and semantics are\n\t%q, %q, %q, want\n\t%q, %q, %q", run, targets, semantics, c.run, c.targets, c.semantics)
			}
		})
	}
}

func TestTheHashOfACallNeverChanges(t *testing.T) {
	for _, c := range []struct {
		name, hash string
		urls       []string
	}{
		{"no URL", "1d8fc6ceb1f94c6326d6", nil},
		{"one URL", "ed6834063b383a16eb68", []string{"https://a.example/1"}},
		{"several URLs", "1543380f1932737c063c", []string{"https://a.example/2", "https://a.example/1", "https://a.example/10"}},
		{"their order does not count", "1543380f1932737c063c", []string{"https://a.example/10", "https://a.example/1", "https://a.example/2"}},
		{"nor does one that is there twice", "1543380f1932737c063c", []string{"https://a.example/1", "https://a.example/2", "https://a.example/10", "https://a.example/2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := taskstate.HashURLs(c.urls); got != c.hash {
				t.Errorf("the hash is %q, want %q", got, c.hash)
			}
		})
	}
}
