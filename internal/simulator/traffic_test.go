package simulator

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// window lists the records of the example zone in a time window.
func (c caller) window(start, end time.Time, more params) reply {
	in := params{"ZoneId": exampleZone, "Limit": 1000, "StartTime": start.UTC().Format(time.RFC3339), "EndTime": end.UTC().Format(time.RFC3339)}
	for name, value := range more {
		in[name] = value
	}
	return c.call("DescribePrefetchTasks", in)
}

func TestOthersSubmitAtARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.Traffic = []Traffic{{ZoneID: exampleZone, Every: 500 * time.Millisecond, URLs: 2, Duration: time.Minute}}
		s := New(config)
		defer s.Close()
		c, began := inMemory(t, s), time.Now()
		time.Sleep(10 * time.Second)
		r := c.window(began, time.Now(), nil)
		expect(t, "listed after 10 s", r.TotalCount, 40)
		expect(t, "the newest", r.Tasks[0].CreateTime, "2000-01-01T00:00:10Z")
		expect(t, "its state", r.Tasks[0].Status, "processing")
		expect(t, "quota", c.quota(exampleZone), 10000)
		expect(t, "in the ledger", len(s.Ledger()), 0)
		time.Sleep(time.Minute)
		expect(t, "the oldest ends", c.window(began, began.Add(time.Second), nil).Tasks[0].Status, "success")

		twice := example("中", "%E4%B8%AD")
		s.SetTraffic(Traffic{ZoneID: exampleZone, Every: time.Hour, Targets: twice})
		time.Sleep(time.Hour)
		r = c.window(time.Now(), time.Now(), nil)
		expect(t, "as they are", fmt.Sprint(r.Tasks[0].Target, r.Tasks[1].Target), fmt.Sprint(twice[0], twice[1]))
		s.SetTraffic()
		time.Sleep(time.Hour)
		expect(t, "after the end", c.window(time.Now().Add(-30*time.Minute), time.Now(), nil).TotalCount, 0)
	})
}

func TestAJobOfThePastIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := Demo()
		config.ClockOffset = time.Hour
		s := New(config)
		defer s.Close()
		c := inMemory(t, s)
		c.signedAt = s.Now
		created := s.Now().Add(-10 * time.Minute)
		s.AddJob(Job{ID: "old", ZoneID: exampleZone, URLs: example("a", "broken/"), Created: created})
		now := c.create("b").JobID
		s.AddJob(Job{ID: "older", ZoneID: exampleZone, URLs: example("c"), Created: created.Add(-time.Hour)})

		tasks := c.job("old").Tasks
		expect(t, "the job", fmt.Sprint(len(tasks), tasks[0].Status, tasks[1].Status), fmt.Sprint(2, "success", "failed"))
		all := c.window(created.Add(-2*time.Hour), s.Now(), nil)
		expect(t, "the newest first", fmt.Sprint(all.Tasks[0].JobId, all.Tasks[1].JobId, all.Tasks[3].JobId), fmt.Sprint(now, "old", "older"))
		expect(t, "CreateTime", all.Tasks[1].CreateTime, created.UTC().Format(time.RFC3339))
	})
}
