// Package targetlist loads the target lists that the cache does not keep: lists in
// ConfigMaps, and long lists in a spec. It keeps them in memory while tasks need them.
//
//   - resolver.go: the Resolver: which tasks need a list from a ConfigMap, and which lists
//     stay in memory
//   - config_maps.go: how a ConfigMap is read, and how long its content counts as fresh
//   - delivery.go: tasks get their targets, or their status reports why not
//   - parse_targets.go, target_errors.go: the text of a list, and its errors
//   - loader.go: the Loader: which task gets its long list next
//   - loaded_lists.go: the long lists in memory
//
// The Resolver and the Loader pass the lists to the kube.TaskStore. The store asks them
// for the targets of each new version of a task. Both limit the number of bytes in
// memory. Namespaces take turns to load lists. If the memory is full, the list of the
// task without progress for the longest time is dropped first.
//
// The package does not know EdgeOne, and does not decide which task is submitted next.
package targetlist
