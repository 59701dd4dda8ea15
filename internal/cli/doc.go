// Package cli has the commands of kubectl teo-prefetch. They talk to the Kubernetes API
// only: no key of EdgeOne and no server of the operator's.
//
//   - root.go: the command line as a whole, the exit codes. environment.go: what commands
//     share: streams, the client, the namespace.
//   - output.go, table.go, terminal.go: what commands print, and where. selection.go, lists.go: the tasks
//     that a command is about. confirm.go: questions. complete.go: completions of shells.
//   - errors.go: what an error of the API server means and what to do about it.
//   - suggest.go: commands that a user can run next.
//   - Each command has a file of its name.
package cli
