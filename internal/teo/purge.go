package teo

import "github.com/prefetch-operator/teo-prefetch-operator/internal/target"

// The types of jobs, and of quotas. There is no constant for purge_all, which purges a
// whole zone: the client does not send it.
const (
	TypePrefetchURL   = "prefetch_url"
	TypePurgeURL      = "purge_url"       // URLs
	TypePurgePrefix   = "purge_prefix"    // all URLs that begin with a URL that ends in /
	TypePurgeHost     = "purge_host"      // all URLs of a host name
	TypePurgeCacheTag = "purge_cache_tag" // all URLs that the origin answered with a tag
)

// The methods of purges by prefix and by host. Purges by URL and by tag delete.
const (
	// MethodInvalidate marks copies as expired. It is what EdgeOne does without a method.
	MethodInvalidate = "invalidate"
	// MethodDelete deletes copies.
	MethodDelete = "delete"
)

// CreatePurgeTaskRequest purges what EdgeOne has in its caches.
// https://www.tencentcloud.com/document/product/1145/50536
type CreatePurgeTaskRequest struct {
	// ZoneID is zone-…, or * for targets of several zones.
	ZoneID string `json:"ZoneId"`
	// Type is TypePurgeURL, TypePurgePrefix, TypePurgeHost or TypePurgeCacheTag.
	Type string
	// Method is MethodInvalidate or MethodDelete, for prefixes and hosts only.
	Method string `json:",omitempty"`
	// Targets are what Type says, at most Quota.Batch of them.
	Targets []string
	// EncodeURL asks EdgeOne to percent-encode the targets. EdgeOne has deprecated it.
	EncodeURL *bool `json:"EncodeUrl,omitempty"`
	// CacheTag says which domains a purge by tag is about. EdgeOne's page says that it is
	// required, and its example omits it.
	CacheTag *CacheTagScope `json:",omitempty"`
}

// CacheTagScope are the domains of a purge by tag.
type CacheTagScope struct {
	Domains []string
}

// Identity implements CreateRequest.
func (r CreatePurgeTaskRequest) Identity(text string) string { return identityOf(r.Type, text) }

func (CreatePurgeTaskRequest) action() string          { return ActionCreatePurgeTask }
func (r CreatePurgeTaskRequest) sentTargets() []string { return r.Targets }

// problem refuses every type that is not known, because EdgeOne has one that purges a
// whole zone, whatever the targets are.
func (r CreatePurgeTaskRequest) problem() string {
	if !isPurgeType(r.Type) {
		return "a purge of an unknown type"
	}
	return ""
}

// isPurgeType says whether the client may send a purge of a type.
func isPurgeType(text string) bool {
	switch text {
	case TypePurgeURL, TypePurgePrefix, TypePurgeHost, TypePurgeCacheTag:
		return true
	}
	return false
}

// identityOf returns a key that is the same for all spellings of a target of a job of
// that type. A prefix is a URL. A host name is no URL, and neither is a tag: only the same
// text is the same tag.
func identityOf(jobType, text string) string {
	switch jobType {
	case TypePurgeHost:
		return target.NormalizeHost(text)
	case TypePurgeCacheTag:
		return text
	}
	return target.Identity(text)
}
