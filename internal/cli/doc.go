// Package cli has the commands of kubectl teo-prefetch. They talk to the Kubernetes API
// only: no key of EdgeOne and no server of the operator's.
//
//   - root.go: the command line as a whole, the exit codes. environment.go: what commands
//     share: streams, the client, the namespace.
//   - errors.go: what an error of the API server means and what to do about it.
//   - Each command has a file of its name.
package cli
