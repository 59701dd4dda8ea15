package tenancy

import (
	"strings"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// purging returns a change that adds a purge to a task.
func purging(kind v1alpha1.PurgeType, targets ...v1alpha1.PurgeTarget) func(*v1alpha1.PrefetchTask) {
	return func(task *v1alpha1.PrefetchTask) {
		task.Spec.Purge = v1alpha1.Purge{Type: kind, Targets: targets}
	}
}

// Each attack is a task that its account does not allow. It waits with the rule, and EdgeOne
// never hears of it. Once the account allows it, it goes out without a touch.
func TestATaskThatAnAccountDoesNotAllowReachesEdgeOneOnlyAfterItDoes(t *testing.T) {
	s := newScene(t)
	s.label(s.rival, "edgeone", "main")
	for _, tt := range []struct {
		name, spec string
		attack     func(*v1alpha1.PrefetchTask)
		rule       string
		heal       string
	}{
		{"an account that lists nobody", "{}", nil, `does not allow namespace "$team"`, "namespaces: {names: [$team]}"},
		{"another namespace's account, by names", "namespaces: {names: [$rival]}", nil, `does not allow namespace "$team"`, "namespaces: {names: [$rival, $team]}"},
		{"another namespace's account, by a label", "namespaces: {selector: {matchLabels: {edgeone: main}}}", nil,
			`does not allow namespace "$team"`, "namespaces: {selector: {matchExpressions: [{key: edgeone, operator: DoesNotExist}]}}"},
		{"a name that only begins like an allowed one", "namespaces: {names: [$team-prod, pre-$team]}", nil,
			`does not allow namespace "$team"`, "namespaces: {selector: {matchLabels: {kubernetes.io/metadata.name: $team}}}"},
		{"another namespace's zone, by names", "{namespaces: {names: [$team, $rival]}, zones: [{id: $zone, namespaces: {names: [$rival]}}]}", nil,
			`does not allow namespace "$team" to use zone "$zone"`, "{namespaces: {names: [$team, $rival]}, zones: [{id: $zone}]}"},
		{"another namespace's zone, by a label", "{namespaces: {names: [$team, $rival]}, zones: [{id: $zone, namespaces: {selector: {matchLabels: {edgeone: main}}}}]}", nil,
			`does not allow namespace "$team" to use zone "$zone"`, "{namespaces: {names: [$team]}, zones: [{id: $zone, namespaces: {names: [$team]}}]}"},
		{"a namespace of the zone that the account does not have", "{namespaces: {names: [$rival]}, zones: [{id: $zone, namespaces: {names: [$team]}}]}", nil,
			`does not allow namespace "$team"`, "{namespaces: {names: [$rival, $team]}, zones: [{id: $zone, namespaces: {names: [$team]}}]}"},
		{"another zone", "{namespaces: {names: [$team]}, zones: [{id: $other}]}", nil, `does not allow zone "$zone"`, "{namespaces: {names: [$team]}}"},
		{"all zones at once", "{namespaces: {names: [$team]}, zones: [{id: $zone}, {id: $other}]}", func(task *v1alpha1.PrefetchTask) { task.Spec.ZoneID = "*" },
			`does not allow zone "*"`, "{namespaces: {names: [$team]}, zones: [{id: '*'}]}"},
		{"the mode Edge, which is billed", "namespaces: {names: [$team]}", func(task *v1alpha1.PrefetchTask) { task.Spec.Mode = v1alpha1.ModeEdge },
			"does not allow mode Edge", "{namespaces: {names: [$team]}, allow: {modes: [Edge]}}"},
		{"the mode Default where only Edge is allowed", "{namespaces: {names: [$team]}, allow: {modes: [Edge]}}", nil,
			"does not allow mode Default", "{namespaces: {names: [$team]}, allow: {modes: [Default, Edge]}}"},
		{"media segments", "namespaces: {names: [$team]}", func(task *v1alpha1.PrefetchTask) { task.Spec.MediaSegments = v1alpha1.MediaSegmentsPrefetch },
			"does not allow media segments", "{namespaces: {names: [$team]}, allow: {mediaSegments: true}}"},
		{"a purge of its own URLs", "namespaces: {names: [$team]}", purging(v1alpha1.PurgeURL), "does not allow purge URL", ""},
		{"a purge of a host where URLs are allowed", "{namespaces: {names: [$team]}, allow: {purge: [URL]}}", purging(v1alpha1.PurgeHost, "secret.example.com"), "does not allow purge Host", ""},
		{"a purge of a foreign host", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [secret.example.com]}], allow: {purge: [Host]}}",
			purging(v1alpha1.PurgeHost, "www.example.com"), `does not allow host "www.example.com" in zone "$zone": purge of www.example.com`, ""},
		{"a purge of a foreign host's prefix", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [secret.example.com]}], allow: {purge: [Prefix]}}",
			purging(v1alpha1.PurgePrefix, "https://secret.example.com/a/", "https://www.example.com/secret.example.com/"),
			`does not allow host "www.example.com" in zone "$zone": purge of https://www.example.com/secret.example.com/`, ""},
		{"a purge by a tag of all hosts", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [secret.example.com]}], allow: {purge: [CacheTag]}}",
			purging(v1alpha1.PurgeCacheTag, "all"), `does not allow purge CacheTag in zone "$zone"`, ""},
		{"a host of another zone's rule", "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [www.example.com]}, {id: $other, hosts: [secret.example.com]}]}", nil,
			`does not allow host "secret.example.com" in zone "$zone": https://secret.example.com/a`,
			"{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: ['*.example.com']}]}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := *s
			s.TB = t
			name := strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(strings.ToLower(tt.name))
			a := s.account("-"+name, tt.spec)
			const url = "https://secret.example.com/a"
			task := a.newTask(s.team, name, url)
			if tt.attack != nil {
				tt.attack(task)
			}
			s.createTasks(task)
			s.until(v1alpha1.ReasonNotAllowed, task)
			if want := s.expand("EdgeOneAccount \"" + a.name + "\" " + tt.rule); !strings.Contains(ready(task).Message, want) || !isStalled(task) {
				t.Errorf("the task reports %q, stalled %v; want %q, stalled", ready(task).Message, isStalled(task), want)
			}
			s.settle()
			a.onlyAsked()
			if tt.heal == "" {
				return
			}
			generation := task.Generation
			a.edit(tt.heal)
			s.until(v1alpha1.ReasonSucceeded, task)
			a.onlyAsked(url)
			if isStalled(task) || task.Generation != generation || counts(task) != "1 submitted, 1 succeeded, 0 failed of 1" {
				t.Errorf("the task reports %s: %+v", counts(task), task.Status.Conditions)
			}
			s.hasOneEvent(task, v1alpha1.ReasonNotAllowed)
		})
	}
}
