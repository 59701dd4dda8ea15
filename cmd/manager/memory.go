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

// limitMemory sets GOGC and GOMEMLIMIT unless the environment sets them. Most of the
// memory is the cache, which makes little garbage. Near the limit of the container, the
// runtime collects garbage more often. Go's limit is three quarters of the container's.
// The rest is for memory that Go does not count, such as the program itself, and for
// garbage that is made during a collection.
func limitMemory(root fs.FS) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if limit := containerLimit(root); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

const (
	// idleCheck is how often releaseMemory runs.
	idleCheck = 30 * time.Second
	// idleHeap is how many bytes of the heap may be free without being returned to the
	// system.
	idleHeap = 32 << 20
)

// releaseMemory returns memory that is no longer in use to the system, until ctx ends.
// The Go runtime collects garbage when the heap grows. The heap of an idle manager does
// not grow for minutes, so the memory of deleted tasks would stay in use. releaseMemory
// therefore forces a collection if none happened since its last run, or if more than
// idleHeap is free.
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

// heapState returns the number of garbage collections so far, and how many bytes of the
// heap are free and not returned to the system.
func heapState() (cycles, free uint64) {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64()
}

// containerLimit returns the memory limit of the container in bytes, or 0 if there is
// none. It reads the files of cgroup version 2 or version 1.
func containerLimit(root fs.FS) int64 {
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit > math.MaxInt64/2 { // no limit: "max" in version 2, a huge number in version 1
			return 0
		}
		return limit
	}
	return 0
}
