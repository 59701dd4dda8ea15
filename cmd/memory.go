package main

import (
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory sets what the environment does not. Most of the memory is the cache's, and
// it makes little garbage. Near the container's limit garbage is collected more eagerly:
// what is left of the limit is for what Go does not count, and for garbage that is made
// while it is collected.
func limitMemory(root fs.FS) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if limit := containerLimit(root); limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
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
