package main

import (
	"context"
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// limitMemory sets what the environment does not. Most of the memory is the cache's, and
// it makes little garbage. Near the container's limit garbage is collected more eagerly:
// what is left of the limit is for what Go does not count, such as the program itself, and
// for garbage that is made while it is collected.
func limitMemory(root fs.FS) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if limit := containerLimit(root); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

const (
	// idleCheck is how often memory is given back that is no longer used.
	idleCheck = 30 * time.Second
	// idleHeap is how many bytes may be free and not given back.
	idleHeap = 32 << 20
)

// releaseMemory gives memory back to the system that a burst of work has left. The Go
// runtime collects garbage when the heap grows, and a manager with nothing to do does not
// make it grow for minutes: it would keep what the tasks took that are deleted.
func releaseMemory(ctx context.Context) {
	var collected uint64
	wait.UntilWithContext(ctx, func(context.Context) {
		cycles, free := heapState()
		if cycles == collected || free > idleHeap {
			debug.FreeOSMemory()
			cycles, _ = heapState()
		}
		collected = cycles
	}, idleCheck)
}

// heapState returns how often garbage was collected, and how many bytes of the heap are
// free and not given back.
func heapState() (cycles, free uint64) {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// containerLimit is the memory limit of the container in bytes, by the files of its
// cgroup: version 2, or version 1. It is 0 if there is none.
func containerLimit(root fs.FS) int64 {
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit > math.MaxInt64/2 { // "max", or what version 1 has for it
			return 0
		}
		return limit
	}
	return 0
}
