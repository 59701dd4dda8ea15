package main

const urls = "./internal/target"

// spellings are the safeguards that define which URLs are equal, which are accepted, and
// how they are sent.
var spellings = []mutation{
	{
		name: "spellings of a URL are told apart in a call", file: "internal/queue/call.go",
		old:    `func (s urlSet) contains(u string) bool { return s.seen[s.normalize(u)] }`,
		new:    `func (s urlSet) contains(u string) bool { return s.seen[u] }`,
		suites: []string{controller},
	},
	{
		name: "an international host is another one in ASCII", file: "internal/target/identity.go",
		old:    `lower(toASCII(authority[at:]))`,
		new:    `lower(authority[at:])`,
		suites: []string{urls},
	},
	{
		name: "a full-width colon becomes one that counts", file: "internal/target/url.go",
		old:    `if err != nil || !isHostName(ascii) {`,
		new:    `if err != nil {`,
		suites: []string{urls},
	},
	{
		name: "the fragment is sent", file: "internal/target/url.go",
		old:    `rawURL = withoutFragment(rawURL)`,
		new:    ``,
		suites: []string{urls},
	},
	{
		name: "what EdgeOne is to encode is encoded before", file: "internal/controller/submit/attempt.go",
		old:    `req.Targets[i] = target.Literal(u)`,
		new:    `req.Targets[i] = target.Encode(u)`,
		suites: []string{controller},
	},
	{
		name: "a user name in a URL is taken", file: "internal/target/check.go",
		old:    `if !ok || rest != "" && rest[0] != '/' && rest[0] != '?' {`,
		new:    `if ok && rest != "" && rest[0] != '/' && rest[0] != '?' {`,
		suites: []string{urls},
	},
	{
		name: "a stray % in a URL is taken", file: "internal/target/check.go",
		old:    `case !hasValidEscapes(rawURL):`,
		new:    `case rawURL == "" && !hasValidEscapes(rawURL):`,
		suites: []string{urls},
	},
	{
		name: "headers whose names differ by case have two lanes", file: "internal/queue/batch_key.go",
		old:    `headers[i].Name = textproto.CanonicalMIMEHeaderKey(headers[i].Name)`,
		new:    `_ = textproto.CanonicalMIMEHeaderKey(headers[i].Name)`,
		suites: []string{line},
	},
}

func init() { mutations = append(mutations, spellings...) }
