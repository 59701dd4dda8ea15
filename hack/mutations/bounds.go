package main

const endpoints = "./internal/endpoint"

// bounds are the safeguards of what strangers and tenants can make the manager hold or do.
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
}

func init() { mutations = append(mutations, bounds...) }
