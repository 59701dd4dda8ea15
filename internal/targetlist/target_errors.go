package targetlist

import (
	"fmt"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// targetsError is what a person has to mend. Its text is fit for a status.
type targetsError struct {
	reason string
	error
}

func missingError(format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsMissing, fmt.Errorf(format, args...)}
}

func invalidError(from configMapKey, format string, args ...any) error {
	return &targetsError{v1alpha1.ReasonTargetsInvalid, fmt.Errorf("key %q of ConfigMap %q: %w", from.key, from.name, fmt.Errorf(format, args...))}
}

func changedError(from configMapKey) error {
	return &targetsError{v1alpha1.ReasonTargetsChanged, fmt.Errorf("key %q of ConfigMap %q has other URLs than when this run started, which cannot continue with them. "+
		"Restore the list, or set spec.revision to a new value to submit the new one as a new run", from.key, from.name)}
}
