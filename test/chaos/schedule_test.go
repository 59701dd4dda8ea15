package main

import (
	"testing"
	"time"
)

func TestASeedGivesTheSameScheduleAgain(t *testing.T) {
	const length = 10 * time.Minute
	first, again, other := draw(7, length, groups), draw(7, length, groups), draw(8, length, groups)
	same := func(a, b []event) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			if a[i].String() != b[i].String() {
				return false
			}
		}
		return true
	}
	if !same(first, again) {
		t.Error("seed 7 gave two schedules")
	}
	if same(first, other) {
		t.Error("seeds 7 and 8 gave the same schedule")
	}
	met := map[*fault]bool{}
	busy := map[*group]time.Duration{}
	for _, e := range first {
		met[e.fault] = true
		if e.at < busy[e.group] {
			t.Errorf("%s starts before the one before it is over", e)
		}
		if !e.group.overlap {
			busy[e.group] = e.at + e.lasts
		}
		if e.at < 0 || e.at >= length {
			t.Errorf("%s is out of time", e)
		}
	}
	for _, g := range groups {
		for i := range g.faults {
			if !met[&g.faults[i]] {
				t.Errorf("10 minutes do not have %s: %s", g.name, g.faults[i].name)
			}
		}
	}
}
