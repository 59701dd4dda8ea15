package teo

import "errors"

// IsTorn says whether a listing could not be read as a whole because it changed during
// every read.
func IsTorn(err error) bool { return errors.Is(err, errTorn) }
