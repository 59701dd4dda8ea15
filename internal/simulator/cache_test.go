package simulator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// see returns what a visitor of a URL of the example zone sees, such as "HIT 2".
func see(seen []Seen) string {
	var out []string
	for _, s := range seen {
		out = append(out, fmt.Sprintf("%s %d", s.Status, s.Version))
	}
	return strings.Join(out, ", ")
}

// urls returns a Selection of URLs of the example zone.
func urls(paths ...string) Selection { return Selection{URLs: example(paths...)} }

// tiers returns the copies of a URL, such as "middle 2, edge 1 (expired)".
func tiers(s *Simulator, path string) string {
	seen := s.Peek(example(path)...)[0]
	text := func(name string, c Copy) string {
		switch {
		case c.Version == 0:
			return name + " none"
		case c.IsFresh:
			return fmt.Sprintf("%s %d", name, c.Version)
		default:
			return fmt.Sprintf("%s %d (expired)", name, c.Version)
		}
	}
	return text("middle", seen.Middle) + ", " + text("edge", seen.Edge)
}

// warmedUp returns a simulator whose cache has version 1 of a, b and img/c, and whose
// origin has version 2 of them.
func warmedUp(t *testing.T, change func(*Config)) (*Simulator, caller) {
	config := Demo()
	change(&config)
	s := New(config)
	t.Cleanup(s.Close)
	s.Warm(urls("a", "b", "img/c"))
	time.Sleep(time.Second)
	s.Publish(Publication{Selection: urls("a", "b", "img/c")})
	return s, inMemory(t, s)
}

func unchanged(*Config) {}

func TestAPrefetchFillsTheTiersOfItsModeWhenItsRowSucceeds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mode    string
		prepare func(*Simulator)
		want    string
	}{
		{"nothing is cached", "default", func(*Simulator) {}, "middle 2, edge none"},
		{"nothing is cached, edge mode", "edge", func(*Simulator) {}, "middle 2, edge 2"},
		{"fresh copies", "default", func(s *Simulator) { s.Warm(urls("a")) }, "middle 1, edge 1"},
		{"fresh copies, edge mode", "edge", func(s *Simulator) { s.Warm(urls("a")) }, "middle 1, edge 1"},
		{"expired copies", "default", func(s *Simulator) { s.Warm(urls("a")); s.Expire(urls("a")) }, "middle 2, edge 1 (expired)"},
		{"expired copies, edge mode", "edge", func(s *Simulator) { s.Warm(urls("a")); s.Expire(urls("a")) }, "middle 2, edge 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				tt.prepare(s)
				before := tiers(s, "a")
				c := inMemory(t, s)
				r := c.call(createPrefetch, params{"ZoneId": exampleZone, "Mode": tt.mode, "Targets": example("a")})
				expect(t, "code", r.code, "")
				time.Sleep(time.Second)
				s.Publish(Publication{Selection: Selection{All: true}}) // between the acceptance and the fetch
				time.Sleep(time.Second - time.Nanosecond)
				expect(t, "before the end of the row", tiers(s, "a"), before)
				time.Sleep(time.Nanosecond)
				expect(t, "when the row succeeds", tiers(s, "a"), tt.want)
				s.Publish(Publication{Selection: urls("a")})
				time.Sleep(time.Hour)
				expect(t, "later", tiers(s, "a"), tt.want)
			})
		})
	}
}

func TestAnEdgePrefetchTakesTheFreshCopyOfTheMiddleTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		c.create("a")
		time.Sleep(time.Minute)
		s.Publish(Publication{Selection: urls("a")})
		c.call(createPrefetch, params{"ZoneId": exampleZone, "Mode": "edge", "Targets": example("a")})
		time.Sleep(time.Minute)
		expect(t, "tiers", tiers(s, "a"), "middle 1, edge 1")
	})
}

func TestAPrefetchThatDoesNotSucceedFillsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.SetRules(Rule{URL: "/refused", Refuse: "no"}, Rule{URL: "/never", Status: Never}, Rule{URL: "/failed", Status: "failed"},
			Rule{URL: "/in-spite", Status: "timeout", Executed: true})
		inMemory(t, s).create("refused", "never", "failed", "in-spite")
		time.Sleep(time.Hour)
		for _, path := range []string{"refused", "never", "failed"} {
			expect(t, path, tiers(s, path), "middle none, edge none")
		}
		expect(t, "an effect without success", tiers(s, "in-spite"), "middle 1, edge none")
		s.Finish("/never", "success", "", "")
		expect(t, "finished by hand", tiers(s, "never"), "middle 1, edge none")
	})
}

func TestWhatAPurgeRemoves(t *testing.T) {
	for _, tt := range []struct {
		in      params
		a, b, c string // of /a, of /dir/b with tag t, and of another host
	}{
		{params{"Type": "purge_url", "Targets": example("a")}, "none", "fresh", "fresh"},
		{params{"Type": "purge_url", "Targets": []string{"HTTPS://WWW.example.com:443/a#x"}}, "none", "fresh", "fresh"},
		{params{"Type": "purge_prefix", "Targets": example("dir/")}, "fresh", "expired", "fresh"},
		{params{"Type": "purge_prefix", "Targets": example("dir/"), "Method": "delete"}, "fresh", "none", "fresh"},
		{params{"Type": "purge_host", "Targets": []string{"WWW.example.com"}}, "expired", "expired", "fresh"},
		{params{"Type": "purge_host", "Targets": []string{"www.example.com"}, "Method": "delete"}, "none", "none", "fresh"},
		{params{"Type": "purge_all"}, "expired", "expired", "expired"},
		{params{"Type": "purge_all", "Method": "delete"}, "none", "none", "none"},
		{params{"Type": "purge_cache_tag", "Targets": []string{"t"}}, "fresh", "none", "fresh"},
		{params{"Type": "purge_cache_tag", "Targets": []string{"t"}, "CacheTag": params{"Domains": []string{"img.example.com"}}}, "fresh", "fresh", "fresh"},
	} {
		t.Run(fmt.Sprint(tt.in), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				all := append(example("a", "dir/b"), "http://img.example.com/c", "http://www.qq.com/d")
				s.Publish(Publication{Selection: urls("dir/b"), Tags: []string{"s", "t"}})
				s.Warm(Selection{URLs: all})
				state := func(url string) string {
					seen := s.Peek(url)[0]
					expect(t, "the tiers are alike", seen.Middle, seen.Edge)
					switch {
					case seen.Edge.IsFresh:
						return "fresh"
					case seen.Edge.Version > 0:
						return "expired"
					}
					return "none"
				}
				tt.in["ZoneId"] = exampleZone
				r := inMemory(t, s).call(createPurge, tt.in)
				expect(t, "code of "+r.body, r.code, "")
				time.Sleep(2*time.Second - time.Nanosecond)
				for _, url := range all {
					expect(t, "before the end "+url, state(url), "fresh")
				}
				time.Sleep(time.Nanosecond)
				for i, want := range []string{tt.a, tt.b, tt.c, "fresh"} {
					expect(t, all[i], state(all[i]), want)
				}
			})
		})
	}
}

func TestAPurgeThatDoesNotSucceedRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, unchanged)
		s.SetRules(Rule{Action: createPurge, URL: "/a", Status: "failed"}, Rule{Action: createPurge, URL: "/b", Refuse: "no"},
			Rule{Action: createPurge, URL: "/c", Status: Never})
		c.purge("purge_url", example("a", "b", "img/c")...)
		time.Sleep(time.Hour)
		expect(t, "visitors", see(s.Visit(example("a", "b", "img/c")...)), "HIT 1, HIT 1, HIT 1")
		s.SetRules(Rule{Action: createPurge, Status: "timeout", Duration: time.Hour, CacheDelay: -time.Minute})
		c.purge("purge_url", example("a")...)
		time.Sleep(time.Hour - time.Second)
		expect(t, "before a failure", see(s.Visit(example("a")...)), "HIT 1")
		expect(t, "finished by hand", s.FinishPurges("/c", "success", "", ""), 1)
		expect(t, "visitors", see(s.Visit(example("a", "b", "img/c")...)), "HIT 1, HIT 1, MISS 2")
	})
}

func TestATargetChangesTheCacheOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, unchanged)
		s.SetRules(Rule{Action: createPurge, URL: "/b", Duration: time.Hour}, Rule{URL: "/broken", Status: "failed"})
		c.purge("purge_url", example("a", "b")...)
		c.create("broken", "c")
		for range 3 {
			time.Sleep(time.Minute)
			s.Visit(example("a")...)
		}
		expect(t, "visited again", see(s.Visit(example("a")...)), "HIT 2")
		expect(t, "purges of a", strings.Count(events(s.Journal(), "a"), "purged"), 1)
		expect(t, "jobs with more to do", len(s.cache.unsettled), 1)
		time.Sleep(time.Hour)
		expect(t, "the slow target", see(s.Visit(example("b")...)), "MISS 2")
		expect(t, "jobs with more to do", len(s.cache.unsettled), 0)
	})
}

// The result does not depend on who looks when.
func TestAPrefetchFetchesTheVersionOfItsEnd(t *testing.T) {
	for _, looks := range []bool{false, true} {
		t.Run(fmt.Sprintf("somebody looks: %v", looks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Demo())
				defer s.Close()
				inMemory(t, s).create("a")
				time.Sleep(2 * time.Second)
				if looks {
					s.Peek(example("a")...)
				}
				s.Publish(Publication{Selection: urls("a", "b")}) // in the same moment
				expect(t, "ended before", see(s.Peek(example("a")...)), "HIT 1")
				s.AddJob(Job{ZoneID: exampleZone, URLs: example("b"), Created: s.Now().Add(-3 * time.Second)})
				expect(t, "a job of the past", see(s.Peek(example("b")...)), "HIT 1")
			})
		})
	}
}

// The history says success before or after the cache has changed.
func TestThePurgeAndItsRowMayEndAtDifferentTimes(t *testing.T) {
	for _, tt := range []struct {
		delay time.Duration
		at    time.Duration // of the effect, after the call
	}{{0, time.Minute}, {30 * time.Second, 90 * time.Second}, {-30 * time.Second, 30 * time.Second}, {-time.Hour, 0}} {
		t.Run(tt.delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := warmedUp(t, func(config *Config) {
					config.Rules = []Rule{{Action: createPurge, Duration: time.Minute, CacheDelay: tt.delay}}
				})
				began := time.Now()
				c.purge("purge_url", example("a")...)
				if tt.at > 0 {
					time.Sleep(tt.at - time.Nanosecond)
					expect(t, "just before", see(s.Peek(example("a")...)), "HIT 1")
					time.Sleep(time.Nanosecond)
				}
				expect(t, "then", see(s.Peek(example("a")...)), "MISS 2")
				expect(t, "in the journal", s.Journal().Cold()[0].Purged.Sub(began), tt.at)
			})
		})
	}
}

func TestAPurgeThatExecutesLateRemovesWhatWasPrefetchedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, unchanged)
		s.AddFault(Fault{Matcher{Action: createPurge, Count: 1}, Effect{Delay: 5*time.Minute - time.Second}})
		late := make(chan reply)
		go func() { late <- c.purge("purge_url", example("a")...) }() // its caller has given up, and tries again
		synctest.Wait()
		c.purge("purge_url", example("a")...)
		time.Sleep(3 * time.Second)
		c.create("a")
		time.Sleep(3 * time.Second)
		expect(t, "after the prefetch", see(s.Peek(example("a")...)), "HIT 2")
		expect(t, "the late purge", (<-late).code, "")
		time.Sleep(3 * time.Second)
		expect(t, "after the late purge", see(s.Peek(example("a")...)), "MISS 2")
	})
}

func TestWhatVisitorsSee(t *testing.T) {
	remove := func(method string) func(*Simulator, caller) {
		return func(_ *Simulator, c caller) {
			c.call(createPurge, params{"ZoneId": exampleZone, "Type": "purge_host", "Method": method, "Targets": []string{"www.example.com"}})
			time.Sleep(time.Minute)
		}
	}
	for _, tt := range []struct {
		name                string
		prepare             func(*Simulator, caller)
		first, then, copies string
	}{
		{"an old fresh copy", func(*Simulator, caller) {}, "HIT 1", "HIT 1", "middle 1, edge 1"},
		{"an expired copy that the origin replaces", remove("invalidate"), "MISS 2", "HIT 2", "middle 2, edge 2"},
		{"an expired copy that the origin confirms", func(s *Simulator, _ caller) { s.Warm(urls("a")); s.Expire(urls("a")) }, "RefreshHit 2", "HIT 2", "middle 2, edge 2"},
		{"nothing", remove("delete"), "MISS 2", "HIT 2", "middle 2, edge 2"},
		{"a copy in the middle tier", func(s *Simulator, c caller) {
			remove("delete")(s, c)
			c.create("a")
			time.Sleep(time.Minute)
			expect(t, "prefetched", tiers(s, "a"), "middle 2, edge none")
		}, "HIT 2", "HIT 2", "middle 2, edge 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := warmedUp(t, unchanged)
				tt.prepare(s, c)
				url := example("a")
				events := len(s.Journal().Events)
				expect(t, "a look", see(s.Peek(url...)), tt.first)
				expect(t, "another look", see(s.Peek(url...)), tt.first)
				expect(t, "events of looks", len(s.Journal().Events), events)
				if strings.HasPrefix(tt.first, "HIT") != true {
					expect(t, "a visit that fills nothing", see(s.VisitWith(Visit{URLs: url, NoFill: true})), tt.first)
				}
				expect(t, "a visit", see(s.Visit(url...)), tt.first)
				expect(t, "the next visit", see(s.Visit(url...)), tt.then)
				expect(t, "the copies", tiers(s, "a"), tt.copies)
			})
		})
	}
}

func TestPrefetchesMayKeepExpiredCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, func(config *Config) { config.PrefetchKeepsExpired = true })
		s.Expire(urls("a"))
		c.create("a", "new")
		time.Sleep(time.Minute)
		expect(t, "an expired copy", tiers(s, "a"), "middle 1 (expired), edge 1 (expired)")
		expect(t, "no copy", tiers(s, "new"), "middle 1, edge none")
	})
}

func TestSelections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		s.Warm(urls("a", "dir/b", "dir/c"))
		s.Publish(Publication{Selection: Selection{Prefix: "HTTPS://www.example.com/dir/"}})
		s.Publish(Publication{Selection: urls("dir/c")})
		s.Publish(Publication{Selection: Selection{All: true}})
		s.Expire(Selection{All: true})
		expect(t, "versions", see(s.VisitWith(Visit{URLs: example("a", "dir/b", "dir/c", "unseen"), NoFill: true})), "MISS 2, MISS 3, MISS 4, MISS 2")
		s.Warm(Selection{Prefix: "https://www.example.com/dir/"})
		expect(t, "a prefix is warm", see(s.Peek(example("a", "dir/b", "dir/c")...)), "MISS 2, HIT 3, HIT 4")
		s.Warm(Selection{All: true})
		expect(t, "everything is warm", see(s.Peek(example("a", "dir/b", "dir/c", "unseen", "new")...)), "HIT 2, HIT 3, HIT 4, HIT 2, MISS 2")
		for _, bad := range []Selection{{}, {All: true, Prefix: "x"}, {URLs: []string{"x"}, All: true}} {
			if bad.validate() == nil {
				t.Errorf("%+v is accepted", bad)
			}
		}
	})
}

func TestTheURLThatEdgeOneEncodesIsTheOneThatIsCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		sent, fetched := "https://www.example.com/%41", "https://www.example.com/%2541"
		c.call(createPrefetch, params{"ZoneId": exampleZone, "Targets": []string{sent}, "EncodeUrl": true})
		time.Sleep(time.Minute)
		expect(t, "as sent, and as encoded", see(s.Peek(sent, fetched)), "MISS 1, HIT 1")
		c.purge("purge_url", sent)
		time.Sleep(time.Minute)
		expect(t, "purged as sent", see(s.Peek(fetched)), "HIT 1")
		c.call(createPurge, params{"ZoneId": exampleZone, "Type": "purge_url", "Targets": []string{sent}, "EncodeUrl": true})
		time.Sleep(time.Minute)
		expect(t, "purged encoded", see(s.Peek(fetched)), "MISS 1")
	})
}

func TestJobsOfOtherProgramsChangeTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := warmedUp(t, unchanged)
		s.AddJob(Job{ZoneID: exampleZone, Type: "purge_url", URLs: example("a")})
		time.Sleep(2 * time.Second)
		expect(t, "a purge", see(s.Peek(example("a")...)), "MISS 2")
		s.SetTraffic(Traffic{ZoneID: exampleZone, Every: time.Minute, Targets: example("a")})
		time.Sleep(time.Minute + 2*time.Second)
		expect(t, "a prefetch", see(s.Peek(example("a")...)), "HIT 2")
		s.SetTraffic(Traffic{ZoneID: exampleZone, Every: time.Minute, Type: purgeHost, Method: methodDelete, Targets: []string{"www.example.com"}})
		time.Sleep(time.Minute + 2*time.Second)
		expect(t, "a purge at regular intervals", see(s.Peek(example("a", "b")...)), "MISS 2, MISS 2")
		expect(t, "executed here", len(s.Ledger()), 0)
	})
}
