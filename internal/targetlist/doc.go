// Package targetlist has the target lists that the cache does not keep, while they are needed:
// those in ConfigMaps, and long lists in a spec.
//
//   - resolver.go: which tasks need a list from a ConfigMap, and which lists are kept.
//   - config_maps.go: how a ConfigMap is read, and how long its content counts as fresh.
//   - delivery.go: tasks get their targets, or their status says why not.
//   - parse_targets.go: the text of a list. target_errors.go: what may be wrong with it.
//   - loader.go: which tasks with a long list in their spec get it next.
//   - loaded_lists.go: the long lists that are in memory.
//
// Both hand what they read to the kube.TaskStore, which asks them for the targets of each new
// version. They keep a bounded number of bytes. Namespaces take turns, and a list goes first
// whose task has made no progress for longest.
//
// The package knows nothing of EdgeOne, and does not decide who is submitted next.
package targetlist
