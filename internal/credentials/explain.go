package credentials

import (
	"errors"
	"fmt"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// ErrMissing is in the chain of an error if a user must provide credentials.
var ErrMissing = errors.New("credentials missing")

// missingError reports which credentials are missing, and what a user can do about it.
type missingError struct{ fact, advice string }

// Error returns the fact and the advice.
func (e *missingError) Error() string {
	if e.advice == "" {
		return ErrMissing.Error() + ": " + e.fact
	}
	return ErrMissing.Error() + ": " + e.fact + "; " + e.advice
}

// Unwrap returns ErrMissing.
func (e *missingError) Unwrap() error { return ErrMissing }

// ErrNoOwnCredentials reports that the operator has no credentials of its own.
var ErrNoOwnCredentials error = &missingError{
	"the operator has no credentials of its own", "name a Secret in spec.credentialsSecretRef, or give the operator credentials",
}

// Explain splits the text of an error of this package: what is wrong, and what a user can
// do about it.
func Explain(err error) (fact, advice string) {
	var missing *missingError
	switch {
	case errors.As(err, &missing) && errors.Is(err, ErrNoAccount):
		return missing.fact, missing.advice
	case errors.As(err, &missing):
		return ErrMissing.Error() + ": " + missing.fact, missing.advice
	case errors.As(err, new(*teo.Error)):
		return sts.Explain(err)
	}
	return err.Error(), ""
}

// ReasonOf returns the reason of an account's condition for an error of GetCredentials, or
// of EdgeOne: CredentialsMissing if a user must provide something, RoleRefused if STS
// refuses a role, CredentialsRefused if STS or EdgeOne refuses the keys, and "" if a later
// attempt may succeed although nobody changes anything.
func ReasonOf(err error) string {
	switch {
	case errors.Is(err, ErrMissing):
		return v1alpha1.ReasonCredentialsMissing
	case !teo.DeniedAccount(err):
		return ""
	case errors.Is(err, sts.ErrRole) && !errors.Is(err, sts.ErrKey):
		return v1alpha1.ReasonRoleRefused
	}
	return v1alpha1.ReasonCredentialsRefused
}

// explainForAccount returns an error whose text names the account and, if a step with a role
// failed, the role.
func explainForAccount(account, role string, err error) error {
	subject := fmt.Sprintf("EdgeOneAccount %q", account)
	var missing *missingError
	var answer *teo.Error
	fact, advice := "", ""
	if err != nil {
		fact, advice = sts.Explain(err)
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing):
		return &missingError{subject + ": " + missing.fact, missing.advice}
	case errors.Is(err, sts.ErrToken):
		return &missingError{subject + ": the operator has " + fact, advice}
	case errors.Is(err, sts.ErrNoCVMRole):
		return &missingError{subject + ": " + fact, advice}
	case errors.Is(err, sts.ErrRole) && role != "":
		return sts.WithSubject(subject+", "+role, err)
	case errors.As(err, &answer):
		return sts.WithSubject(subject, err)
	}
	return fmt.Errorf("%s: %w", subject, err)
}
