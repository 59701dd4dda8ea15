// Package credentials reads the keys that sign calls to EdgeOne.
//
// A Reader reads the keys of an account from its Secret (reader.go). It reads a Secret
// when a call needs it, and caches the keys for a limited time. It does not watch
// Secrets. The operator's own keys come from a mounted Secret or from the environment
// (own.go), or they are the keys of a role (role.go). The keys of an EdgeOneAccount come
// from a Secret in the operator's namespace, or from a provider of the keys of its role
// (accounts.go). Nothing falls back to other keys.
//
// The package does not know the queue, calls or statuses. The texts of its errors may
// appear in a status: they name the step that failed and what to check, but contain no
// values (explain.go).
package credentials
