package simulator

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// events returns the events of a URL, such as "2.000 filled 1".
func events(j Journal, path string) string {
	var out []string
	for _, e := range j.Events {
		if e.URL == example(path)[0] {
			text := fmt.Sprintf("%s %s %s", e.Time.UTC().Format("4:05"), e.Kind, e.Tier)
			out = append(out, strings.TrimSpace(text)+fmt.Sprintf(" %d", e.Version))
		}
	}
	return strings.Join(out, ", ")
}

func TestTheJournalHasTheTimesAtWhichThingsHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.ClockOffset = time.Minute
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		c.signedAt = s.Now
		s.Warm(urls("a"))
		s.Publish(Publication{Selection: urls("a")})
		purge := c.purge("purge_url", example("a")...)
		time.Sleep(5 * time.Second)
		prefetch := c.create("a")
		again := c.create("a")
		time.Sleep(time.Second)
		s.SetClockOffset(time.Hour) // after the calls: the times of their jobs stay
		time.Sleep(time.Minute)
		j := s.Journal() // nobody has looked before
		expect(t, "events", events(j, "a"),
			"1:00 filled 1, 1:02 purged 1, 1:05 handed-over 0, 1:05 handed-over 0, 1:07 filled middle 2, 1:07 kept middle 2")
		var by []string
		for _, e := range j.Events {
			by = append(by, e.By)
		}
		expect(t, "by", fmt.Sprint(by), fmt.Sprint([]string{"warm", purge.JobID, prefetch.JobID, again.JobID, prefetch.JobID, again.JobID}))
		expect(t, "read at", j.ReadAt.Equal(s.Now()), true)
		expect(t, "once more", events(s.Journal(), "a"), events(j, "a"))
	})
}

func TestVisitsThatSawOldContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, unchanged) // version 2 is there since second 1
		run := s.Now()
		time.Sleep(time.Second)
		s.Visit(example("a")...) // before the end of the run
		c.purge("purge_url", example("a")...)
		time.Sleep(3 * time.Second)
		c.create("a", "b") // nobody has purged b
		time.Sleep(3 * time.Second)
		ready := s.Now()
		time.Sleep(time.Second)
		seen := s.Visit(example("a", "b")...)
		expect(t, "the new version is old", seen[0].IsOlderThan(run), false)
		expect(t, "the old version is old", seen[1].IsOlderThan(run), true)
		expect(t, "it was old before", seen[1].IsOlderThan(run.Add(-time.Nanosecond)), false)
		expect(t, "since", seen[1].Superseded.Equal(run), true)
		expect(t, "published", seen[0].Published.Equal(run), true)
		expect(t, "the first version", seen[1].Published.IsZero(), true)
		s.Publish(Publication{Selection: urls("a")})
		s.Visit(example("a")...) // newer than the run, and yet not the newest

		old := s.Journal().SeenOlder(ready, run)
		expect(t, "visits that saw old content", len(old), 1)
		expect(t, "of", old[0].URL, example("b")[0])
		expect(t, "all visits", len(s.Journal().SeenOlder(time.Time{}, run)), 2)
	})
}

func TestColdURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := warmedUp(t, func(config *Config) {
			config.JobDuration, config.PurgeDuration = 10*time.Second, time.Second
			config.Rules = []Rule{{URL: "/broken", Status: "failed"}}
		})
		cold := func() string {
			p := s.Journal().Peaks()
			return fmt.Sprintf("%d, %d", p.NotHandedOver, p.NotFilled)
		}
		expect(t, "at first", cold(), "0, 0")
		c.purge("purge_url", example("a", "broken")...) // broken was never cached
		time.Sleep(time.Second - time.Nanosecond)
		expect(t, "before the end of the purge", cold(), "0, 0")
		time.Sleep(time.Nanosecond)
		expect(t, "purged", cold(), "2, 2")
		c.create("a", "broken")
		c.purge("purge_url", example("b")...)
		time.Sleep(time.Second)
		expect(t, "handed over, and one more purged", cold(), "2, 3")
		s.Visit(example("b")...)
		time.Sleep(time.Second)
		c.purge("purge_url", example("broken")...) // once more
		time.Sleep(time.Minute)

		var spans []string
		j := s.Journal()
		for _, span := range j.Cold() {
			spans = append(spans, fmt.Sprintf("%s for %s, handed over: %v, filled by a visitor: %v, ended: %v",
				strings.TrimPrefix(span.URL, example("")[0]), span.Duration(j.ReadAt), !span.HandedOver.IsZero(), span.FilledBy == ByVisitor, !span.Filled.IsZero()))
		}
		expect(t, "times", strings.Join(spans, "; "), "a for 10s, handed over: true, filled by a visitor: false, ended: true; "+
			"broken for 1m2s, handed over: false, filled by a visitor: false, ended: false; "+
			"b for 0s, handed over: false, filled by a visitor: true, ended: true")
		expect(t, "longer than 10 s", len(j.ColdLonger(10*time.Second)), 1)
		expect(t, "longer than 9 s", len(j.ColdLonger(9*time.Second)), 2)
		expect(t, "the peaks", cold(), "2, 3")
		s.Expire(urls("a"))
		expect(t, "natural expiry is no purge", len(s.Journal().Cold()), 3)
	})
}

func TestTheJournalIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.JournalSize = 100
		s := New(config)
		defer s.Close()
		for range 1000 {
			s.Visit(example("a")...)
		}
		j := s.Journal()
		if n := len(j.Events); n < 100 || n > 126 {
			t.Errorf("the journal has %d events", n)
		}
		expect(t, "all events", len(j.Events)+j.Dropped, 1001)
		expect(t, "the newest one", j.Events[len(j.Events)-1].Kind, Visited)
	})
}
