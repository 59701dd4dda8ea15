package main

import (
	"io/fs"
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestTheMemoryLimitFollowsTheContainers(t *testing.T) {
	v2, v1 := "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	for _, tt := range []struct {
		name, file, text, env string
		want                  int64
	}{
		{"of cgroups version 2", v2, "536870912\n", "", 536870912 / 4 * 3},
		{"of cgroups version 1", v1, "536870912\n", "", 536870912 / 4 * 3},
		{"the environment has one", v2, "536870912\n", "100MiB", math.MaxInt64},
		{"no limit in version 2", v2, "max\n", "", math.MaxInt64},
		{"no limit in version 1", v1, "9223372036854771712\n", "", math.MaxInt64},
		{"no container", "etc/hostname", "laptop", "", math.MaxInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", tt.env) // the runtime read the variable at startup
			t.Setenv("GOGC", "100")
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
			limitMemory(fs.FS(fstest.MapFS{tt.file: {Data: []byte(tt.text)}}))
			if got := debug.SetMemoryLimit(-1); got != tt.want {
				t.Errorf("the limit is %d, want %d", got, tt.want)
			}
		})
	}
}
