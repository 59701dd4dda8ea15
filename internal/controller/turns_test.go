package controller

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

func TestUrgentWritesGoFirstAndPatientOnesAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &turns{free: 1}
		if err := turns.take(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		var order []string
		wait := func(name string, patient bool) {
			go func() {
				if err := turns.take(t.Context(), patient); err != nil {
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
		for range patientShare + 2 {
			turns.give()
			synctest.Wait()
		}
		want := append(slices.Repeat([]string{"urgent"}, patientShare-1), "patient 1", "urgent", "patient 2")
		if !slices.Equal(order, want) {
			t.Errorf("got %q, want %q", order, want)
		}
		turns.give()
		if turns.free != 1 {
			t.Errorf("%d turns are free, want the only one", turns.free)
		}
	})
}

func TestWhoGivesUpWaitingTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &turns{free: 1}
		if err := turns.take(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() { given <- turns.take(ctx, false) }()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		turns.give()
		if err := turns.take(t.Context(), true); err != nil || turns.free != 0 {
			t.Errorf("the turn is lost: %v", err)
		}
	})
}
