package targetlist

import (
	"fmt"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// targetsError is an error with a list that needs user action. Its text may appear in a
// status.
type targetsError struct {
	reason string // of the task's conditions
	fact   error
	advice string // what a user can do about it; "" if the fact says it
}

// Error returns the fact and the advice.
func (e *targetsError) Error() string {
	if e.advice == "" {
		return e.fact.Error()
	}
	return e.fact.Error() + "; " + e.advice
}

// Unwrap returns the fact.
func (e *targetsError) Unwrap() error { return e.fact }

// cause returns the error as a status reports it.
func (e *targetsError) cause() taskstate.Cause {
	return taskstate.Cause{Reason: e.reason, Message: taskstate.UpperFirst(e.fact.Error()), Advice: taskstate.UpperFirst(e.advice)}
}

// missingError reports that the list does not exist or may not be read.
func missingError(advice, format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsMissing, fmt.Errorf(format, args...), advice}
}

// invalidError reports a mistake in the content of the list.
func invalidError(from configMapKey, format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsInvalid, fmt.Errorf("key %q of ConfigMap %q: %w", from.key, from.name, fmt.Errorf(format, args...)), "correct the list"}
}

// changedError reports that the list has changed since the run started.
func changedError(from configMapKey) error {
	return &targetsError{
		v1alpha1.ReasonTargetsChanged, fmt.Errorf("key %q of ConfigMap %q has other URLs than when this run started, which cannot continue with them", from.key, from.name),
		"restore the list, or set spec.revision to a new value to submit the new one as a new run",
	}
}
