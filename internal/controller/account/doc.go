// Package account writes the statuses of EdgeOneAccounts: whether EdgeOne accepts the
// credentials, and what is used today.
//
//   - reconciler.go: when an account is checked and its status written.
//   - check.go: reads the credentials, and the quota of zones, which proves them.
//   - verdict.go: what all answers of EdgeOne and STS say about the credentials.
//   - status.go: the status, its conditions and its Events.
//   - stats.go: the same for the metrics.
//   - flush.go: writes what is used when the process stops.
//
// The budgets of an account survive the deletion of its tasks only in its status. The
// package decides nothing about tasks: package internal/account does, from the same
// accounts.
package account
