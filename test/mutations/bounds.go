package main

const endpoints = "./internal/endpoint"

// bounds are the safeguards that limit what strangers and tenants can make the manager
// store or do.
var bounds = []mutation{
	{
		name: "connections that send nothing are kept without a bound", file: "internal/endpoint/server.go",
		old:    `if len(l.open) > maxConnections {`,
		new:    `if len(l.open) > 1<<20 {`,
		suites: []string{endpoints},
	},
	{
		name: "headers are as long as net/http allows", file: "internal/endpoint/server.go",
		old:    `MaxHeaderBytes:    maxHeaderBytes,`,
		new:    `MaxHeaderBytes:    1 << 20,`,
		suites: []string{endpoints},
	},
	{
		name: "a client that keeps a connection open delays the release of the lease", file: "internal/endpoint/server.go",
		old:    `ShutdownTimeout: ptr.To(shutdownTimeout),`,
		new:    `ShutdownTimeout: ptr.To(time.Hour),`,
		suites: []string{endpoints},
	},
	{
		name: "the API server is asked about every forged token", file: "internal/endpoint/access.go",
		old:    `return a.limiterOf(address).Allow() && a.reviews.Allow()`,
		new:    `return a.limiterOf(address) != nil`,
		suites: []string{endpoints},
	},
	{
		name: "one address uses up the reviews of all", file: "internal/endpoint/access.go",
		old:    `a.limiterOf(address).Allow() && a.reviews.Allow()`,
		new:    `a.limiterOf(address) != nil && a.reviews.Allow()`,
		suites: []string{endpoints},
	},
	{
		name: "the token of a reader is logged", file: "internal/endpoint/access.go",
		old:    `ctx = logr.NewContext(ctx, logr.Discard()) // or client-go logs the token at level 8`,
		new:    ``,
		suites: []string{endpoints},
	},
	{
		name: "a Secret is logged", file: "internal/credentials/reader.go",
		old:    `c.Live.Get(logr.NewContext(ctx, logr.Discard()), types.`,
		new:    `c.Live.Get(logr.NewContext(ctx, logr.FromContextOrDiscard(ctx)), types.`,
		suites: []string{controller},
	},
	{
		name: "files of a mounted Secret are read from two versions", file: "internal/credentials/own.go",
		old: `files, err = readFiles(filepath.Join(dir, version))
		if now, _ := os.Readlink(filepath.Join(dir, "..data")); now == version {`,
		new: `files, err = readFiles(dir)
		if version == version {`,
		suites: []string{controller},
	},
	{
		name: "credentials stay when their tasks are gone", file: "internal/credentials/reader.go",
		old:    `if c.known[a].at.Equal(at) {`,
		new:    `if c.known[a].at.Before(at) {`,
		suites: []string{controller},
	},
	{
		name: "every zone that a tenant invents is a label", file: "internal/metrics/collector.go",
		old:    `if len(all) <= MaxZones {`,
		new:    `if len(all) >= 0 {`,
		suites: []string{controller},
	},
	{
		name: "expiring tasks stay when they are gone", file: "internal/controller/ttl/ttl.go",
		old:    `delete(r.tasks, before.GetUID()) // which`,
		new:    `_ = before.GetUID() // which`,
		suites: []string{controller},
	},
	{
		name: "each watched namespace keeps a page", file: "internal/kube/readahead.go",
		old:    `full := len(r.next) >= maxAhead`,
		new:    `full := false`,
		suites: []string{controller},
	},
	{
		name: "each call costs a write of every queued task", file: "internal/taskstate/waiting.go",
		old:    `n.Ahead = earlier`,
		new:    `_ = earlier`,
		suites: []string{line},
	},
}

func init() { mutations = append(mutations, bounds...) }
