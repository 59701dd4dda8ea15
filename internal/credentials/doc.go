// Package credentials reads the keys that sign calls to EdgeOne.
//
// A Reader gets the keys of an account from its Secret (reader.go). It reads Secrets when
// they are needed and keeps them for a while; it does not watch them. The operator's own
// keys come from a mounted Secret or from the environment (own.go).
//
// The package knows nothing of queues, calls or statuses. The text of each of its errors is
// fit for a status: it names the Secret and the missing key, and no value.
package credentials
