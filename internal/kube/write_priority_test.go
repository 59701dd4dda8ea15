package kube

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

func TestUrgentWritesGoFirstAndPatientOnesAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &writePriority{free: 1, patientFree: patientWriters}
		if err := turns.acquireSlot(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		turns.given = 0
		var order []string
		wait := func(name string, patient bool) {
			go func() {
				if err := turns.acquireSlot(t.Context(), patient); err != nil {
					t.Error(err)
				}
				order = append(order, name)
			}()
			synctest.Wait()
		}
		wait("patient 1", true)
		wait("patient 2", true)
		for range patientShare {
			wait("urgent", false)
		}
		for i := range patientShare + 2 {
			turns.releaseSlot(i > 0 && strings.HasPrefix(order[i-1], "patient"))
			synctest.Wait()
		}
		want := append(slices.Repeat([]string{"urgent"}, patientShare-1), "patient 1", "urgent", "patient 2")
		if !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
		turns.releaseSlot(true)
		if turns.free != 1 || turns.patientFree != patientWriters {
			t.Errorf("%d and %d turns are free, want all", turns.free, turns.patientFree)
		}
	})
}

func TestPatientWritesGoAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &writePriority{free: MaxStatusWriters, patientFree: patientWriters}
		going := 0
		for range 3 * patientWriters {
			go func() {
				if err := turns.acquireSlot(t.Context(), true); err != nil {
					t.Error(err)
				}
				going++
			}()
			synctest.Wait()
		}
		if going != patientWriters {
			t.Errorf("%d patient writes go on at once, want %d", going, patientWriters)
		}
		if err := turns.acquireSlot(t.Context(), false); err != nil {
			t.Errorf("an urgent one waits for them: %v", err)
		}
		for range 3 * patientWriters {
			turns.releaseSlot(true)
			synctest.Wait()
		}
		if going != 3*patientWriters {
			t.Errorf("%d patient writes came to their end, want %d", going, 3*patientWriters)
		}
	})
}

func TestWhoGivesUpWaitingTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &writePriority{free: 1, patientFree: 1}
		if err := turns.acquireSlot(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() { given <- turns.acquireSlot(ctx, false) }()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		turns.releaseSlot(false)
		if err := turns.acquireSlot(t.Context(), true); err != nil || turns.free != 0 {
			t.Errorf("the turn is lost: %v", err)
		}
	})
}
