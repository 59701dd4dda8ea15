package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PrefetchMode says how deep into EdgeOne's caches a target goes.
// +kubebuilder:validation:Enum=Default;Edge
type PrefetchMode string

const (
	// ModeDefault fetches into the middle tier.
	ModeDefault PrefetchMode = "Default"
	// ModeEdge fetches into the edge nodes as well. EdgeOne enables it per
	// account, bills its traffic, and gives it a quota of its own.
	ModeEdge PrefetchMode = "Edge"
)

// MediaSegmentsPolicy says what happens to the segments an M3U8 manifest names.
// +kubebuilder:validation:Enum=Ignore;Prefetch
type MediaSegmentsPolicy string

const (
	// MediaSegmentsIgnore prefetches the manifest alone.
	MediaSegmentsIgnore MediaSegmentsPolicy = "Ignore"
	// MediaSegmentsPrefetch prefetches the TS segments as well, to a depth of 3.
	MediaSegmentsPrefetch MediaSegmentsPolicy = "Prefetch"
)

// Target is one URL to prefetch.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^([^%*\\]|%[0-9A-Fa-f]{2})*$`
type Target string

// HTTPHeader is a request header that EdgeOne sends to the origin.
type HTTPHeader struct {
	// name of the header, for example Accept-Encoding. A task cannot set Host,
	// Content-Length, Authorization or hop-by-hop headers (RFC 9110).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[!#$%&\\'*+.^_`|~0-9A-Za-z-]+$')",message="must be an HTTP header name: letters, digits and hyphens, with no spaces, colons or line breaks"
	// +kubebuilder:validation:XValidation:rule="!(self.lowerAscii() in ['host', 'content-length', 'connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade']) && !self.lowerAscii().startsWith('proxy-')",message="must not be Host, Content-Length or a header of a single connection such as Transfer-Encoding: EdgeOne sets them"
	// +kubebuilder:validation:XValidation:rule="self.lowerAscii() != 'authorization'",message="must not be Authorization: everybody who reads the task would see the credentials"
	Name string `json:"name,omitempty"`

	// value of the header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="!self.matches('[\\\\x00-\\\\x08\\\\x0a-\\\\x1f\\\\x7f-\\\\x9f\\\\p{Cf}\\\\x{2028}\\\\x{2029}]')",message="must not have line breaks, control characters or invisible ones such as U+200B and U+202E"
	Value string `json:"value,omitempty"`
}

// SecretReference names a Secret in the task's own namespace.
type SecretReference struct {
	// name of the Secret. Its keys are secretId, secretKey and, for temporary
	// credentials, token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower case letters, digits, hyphens and dots"
	Name string `json:"name,omitempty"`
}

// ConfigMapKeyReference names a key of a ConfigMap in the task's own namespace.
type ConfigMapKeyReference struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a ConfigMap: lower case letters, digits, hyphens and dots"
	Name string `json:"name,omitempty"`

	// key in the data of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a ConfigMap: letters, digits, hyphens, dots and underscores"
	Key string `json:"key,omitempty"`
}

// TargetsSource says where a list of targets is.
type TargetsSource struct {
	// configMapKeyRef names the key of a ConfigMap that lists one URL per line. The
	// rules of targets apply. Blank lines and lines that start with # are ignored.
	// +required
	ConfigMapKeyRef ConfigMapKeyReference `json:"configMapKeyRef,omitempty,omitzero"`
}

// PurgeTarget is a prefix, a host name or a cache tag to purge. It may be less long than a
// target, because the estimated costs of the rules are just within the API server's budget.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
type PurgeTarget string

// PurgeMethod says what a purge does to the copies in EdgeOne's caches.
// +kubebuilder:validation:Enum=Delete;Invalidate
type PurgeMethod string

const (
	// PurgeDelete removes the copies.
	PurgeDelete PurgeMethod = "Delete"
	// PurgeInvalidate marks the copies as expired. EdgeOne asks the origin at the next
	// request of a visitor whether they have changed. Whether a prefetch counts as such a
	// request is not known.
	PurgeInvalidate PurgeMethod = "Invalidate"
)

// Purge says what EdgeOne removes from its caches before the targets are prefetched.
//
// +kubebuilder:validation:XValidation:rule="self.type != 'URL' || !has(self.targets)",fieldPath=".targets",message="must have no targets with the type URL, which purges the targets of the task"
// +kubebuilder:validation:XValidation:rule="self.type == 'URL' || has(self.targets)",fieldPath=".targets",reason="FieldValueRequired",message="must have targets with the types Prefix, Host and CacheTag"
// +kubebuilder:validation:XValidation:rule="!has(self.method) || self.type in ['Prefix', 'Host']",fieldPath=".method",message="must have a method only with the types Prefix and Host: the others always delete"
// +kubebuilder:validation:XValidation:rule="!has(self.targets) || (self.type == 'Prefix' ? self.targets.all(t, t.matches(r'^https?://[^/?#@:*%\\\\[\\]\\pZ\\pC]+(:[1-9][0-9]{0,4})?/([^?#*%\\\\\\pZ\\pC]|%[0-9A-Fa-f]{2})*$') && t.endsWith('/') && !t.contains('&amp;') && isURL(t) && (url(t).getPort().size() == 0 || int(url(t).getPort()) <= 65535)) : self.type == 'Host' ? self.targets.all(t, t.size() <= 253 && t.matches(r'^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)+$')) : self.targets.all(t, t.matches(r'^[!-+.-~-]+$')))",fieldPath=".targets",message="must have targets of the form that the type asks for. With Prefix, each is a full URL that ends with a slash, such as https://www.example.com/images/, without a wildcard, a query, a fragment or spaces. With Host, each is a plain host name in lower case, such as www.example.com, without a scheme, a port, a path or a wildcard, and in its ASCII form (xn--…). With CacheTag, each is a single cache tag: printable ASCII characters, without spaces and commas",messageExpression="'\"' + (self.type == 'Prefix' ? self.targets.filter(t, !(t.matches(r'^https?://[^/?#@:*%\\\\[\\]\\pZ\\pC]+(:[1-9][0-9]{0,4})?/([^?#*%\\\\\\pZ\\pC]|%[0-9A-Fa-f]{2})*$') && t.endsWith('/') && !t.contains('&amp;') && isURL(t) && (url(t).getPort().size() == 0 || int(url(t).getPort()) <= 65535)))[0] + '\" must be a full URL that ends with a slash, such as https://www.example.com/images/, without a wildcard, a query, a fragment or spaces' : self.type == 'Host' ? self.targets.filter(t, !(t.size() <= 253 && t.matches(r'^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)+$')))[0] + '\" must be a plain host name in lower case, such as www.example.com, without a scheme, a port, a path or a wildcard, and in its ASCII form (xn--…)' : self.targets.filter(t, !(t.matches(r'^[!-+.-~-]+$')))[0] + '\" must be a single cache tag: printable ASCII characters, without spaces and commas')"
type Purge struct {
	// type says what is purged: URL (the targets of the task), Prefix, Host or CacheTag.
	// URL purges each batch of targets right before it is prefetched. The others are
	// purged once, before the first target is prefetched.
	// +required
	Type PurgeType `json:"type,omitempty"`

	// targets are what is purged: with Prefix, full URLs that end with a slash; with Host,
	// plain host names; with CacheTag, tags. With URL, they are absent.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	Targets []PurgeTarget `json:"targets,omitempty"`

	// method says what happens to the copies: Delete, the default, or Invalidate. It can be
	// set with Prefix and Host; the other types delete.
	// +optional
	Method PurgeMethod `json:"method,omitempty"`
}

// PrefetchTaskSpec says what EdgeOne should have in its caches.
//
// A change to zoneID, mode, headers, mediaSegments, encodeURL, purge, freshSince or revision
// starts a new run, which submits every target again. A change to targets or targetsFrom
// alone starts a new run that keeps what the task has prefetched since it had any other of
// these fields changed: it submits the new targets and those that failed. A change to suspend,
// accountRef, credentialsSecretRef or ttlSecondsAfterFinished submits nothing twice.
//
// +kubebuilder:validation:XValidation:rule="!has(self.accountRef) || !has(self.credentialsSecretRef)",message="must not have both accountRef and credentialsSecretRef: an account has credentials of its own"
// +kubebuilder:validation:XValidation:rule="has(self.targets) != has(self.targetsFrom)",message="must have either targets or targetsFrom"
// +kubebuilder:validation:XValidation:rule="!has(self.targets) || oldSelf.hasValue() && has(oldSelf.value().targets) && self.targets == oldSelf.value().targets && (!has(self.purge) || has(oldSelf.value().purge) && self.purge == oldSelf.value().purge) || self.targets.map(t, bytes(t).size() + 3).sum() + (has(self.purge) && has(self.purge.targets) ? self.purge.targets.map(t, 2 * bytes(t).size() + 20).sum() : 0) <= 1550000",optionalOldSelf=true,fieldPath=".targets",message="must not take more than 1,550,000 bytes in all, counting 3 more for each URL, and purge.targets twice: split the list into several tasks"
type PrefetchTaskSpec struct {
	// zoneID is the EdgeOne zone that serves the targets, for example
	// zone-ajj243dwrew. An asterisk allows targets of several zones in one task. It
	// needs permission for every zone of the account, and EdgeOne may refuse to report
	// the outcomes.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self == '*' || self.matches('^zone-[0-9a-z]+$')",message="must be an EdgeOne zone ID such as zone-ajj243dwrew, or * for targets of several zones"
	ZoneID string `json:"zoneID,omitempty"`

	// The rules of targets compare the list with the old one first: the API server
	// evaluates them at each write, those of the status included, and each comparison
	// costs about 2 % of a write of 5,000 URLs. What the pattern finds has rules that
	// say what to write instead; these compare the ends of the list only. The estimated
	// costs are just within the API server's budget: one pass over a text for each rule.
	// The API server's accounting of costs takes time with each use of a variable, the
	// longer the list the more: the first rule uses few where a URL has no port and has a
	// path, which halves the time of a creation of 10,000 URLs. It does not ask isURL first,
	// because 10,000 URLs with ports would then cost too much: url fails with what is wrong.
	// The size of the list is a rule of the spec, as the targets of a purge count too. They
	// count twice: metadata.managedFields has each item of a set.
	// internal/target has the same rules, for lists in a ConfigMap.

	// targets are the full http or https URLs to prefetch, without wildcards.
	// They are submitted in this order. A URL that is listed twice is submitted once. An
	// edit of the list alone submits only the URLs that are new, and those that failed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || !self.exists(t, !((t.startsWith('https://') || t.startsWith('http://')) && [url(t)].all(u, u.getHostname() != '' && (t.charAt(u.getScheme().size() + 3 + u.getHostname().size()) == '/' || (u.getPort() == '' ? u.getHost().size() == u.getHostname().size() : u.getHost().size() == u.getHostname().size() + 1 + u.getPort().size() && u.getPort().size() <= 5 && int(u.getPort()) >= 1 && int(u.getPort()) <= 65535) && (t.charAt(u.getScheme().size() + 3 + u.getHost().size()) == '/' || t.charAt(u.getScheme().size() + 3 + u.getHost().size()) == '?' || t.size() == u.getScheme().size() + 3 + u.getHost().size())))))",optionalOldSelf=true,message="must be a full URL that starts with http:// or https://, and must be a valid URL: a host name, which no user name and no @ precedes, a port from 1 to 65535 if any, then / or ?, and two hexadecimal digits after each %",messageExpression="self.exists(t, !t.startsWith('http://') && !t.startsWith('https://')) ? '\"' + self.filter(t, !t.startsWith('http://') && !t.startsWith('https://'))[0] + '\" must be a full URL that starts with http:// or https://' : '\"' + self.filter(t, !(isURL(t) && [url(t)].all(u, u.getHostname() != '' && (u.getPort() == '' ? u.getHost().size() == u.getHostname().size() : u.getHost().size() == u.getHostname().size() + 1 + u.getPort().size() && u.getPort().size() <= 5 && int(u.getPort()) >= 1 && int(u.getPort()) <= 65535) && (t.charAt(u.getScheme().size() + 3 + u.getHost().size()) == '/' || t.charAt(u.getScheme().size() + 3 + u.getHost().size()) == '?' || t.size() == u.getScheme().size() + 3 + u.getHost().size()))))[0] + '\" must be a valid URL: a host name, which no user name and no @ precedes, a port from 1 to 65535 if any, then / or ?, and two hexadecimal digits after each %'"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self.size() == oldSelf.value().size() && self[0] == oldSelf.value()[0] && self[self.size() - 1] == oldSelf.value()[self.size() - 1] || !self.exists(t, t.contains('*'))",optionalOldSelf=true,message="must not have a wildcard: EdgeOne prefetches single URLs (write a literal * as %2A)"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || !self.exists(t, t.matches(r'\\pZ'))",optionalOldSelf=true,message="must not have spaces, no-break or others: write a space as %20",messageExpression="'\"' + self.filter(t, t.matches(r'\\pZ'))[0] + '\" must not have spaces, no-break or others: write a space as %20'"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || !self.exists(t, t.matches(r'\\pC'))",optionalOldSelf=true,message="must not have control, zero-width or other invisible characters: remove them, or percent-encode those that belong to the URL",messageExpression="'\"' + self.filter(t, t.matches(r'\\pC'))[0] + '\" must not have control, zero-width or other invisible characters: remove them, or percent-encode those that belong to the URL'"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self.size() == oldSelf.value().size() && self[0] == oldSelf.value()[0] && self[self.size() - 1] == oldSelf.value()[self.size() - 1] || !self.exists(t, t.contains('\\\\'))",optionalOldSelf=true,message="must not have backslashes: write / in a path, and a literal backslash as %5C"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || !self.exists(t, t.contains('&amp;'))",optionalOldSelf=true,message="must not have &amp;, which is HTML for &: write &"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self.size() == oldSelf.value().size() && self[0] == oldSelf.value()[0] && self[self.size() - 1] == oldSelf.value()[self.size() - 1] || !self.exists(t, t.endsWith('%') || t.matches(r'%\\W'))",optionalOldSelf=true,message="must have two hexadecimal digits after each %: write a literal % as %25, and %u4e2d as the character itself"
	Targets []Target `json:"targets,omitempty"`

	// targetsFrom takes the targets, at most 10,000, from a ConfigMap, which several
	// tasks may share. The ConfigMap is read when a run starts. A change to the ConfigMap
	// does not start a run; a change to configMapKeyRef or to revision does. If only
	// configMapKeyRef changes, the new run submits the URLs that are new, and those that
	// failed. A new revision submits every URL.
	// +optional
	TargetsFrom TargetsSource `json:"targetsFrom,omitempty,omitzero"`

	// mode says how far the targets go: Default, the middle tier, or Edge, also the edge
	// nodes, which EdgeOne enables and bills separately. If absent, it is Default.
	// +optional
	Mode PrefetchMode `json:"mode,omitempty"`

	// headers are sent to the origin with each prefetch request.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || self.all(a, self.exists_one(b, a.name.lowerAscii() == b.name.lowerAscii()))",optionalOldSelf=true,message="must not have two names that differ by case only: header names have no case"
	// +kubebuilder:validation:XValidation:rule="oldSelf.hasValue() && self == oldSelf.value() || self.map(h, bytes(h.name).size() + bytes(h.value).size()).sum() <= 32768",optionalOldSelf=true,message="must not take more than 32,768 bytes in all"
	Headers []HTTPHeader `json:"headers,omitempty"`

	// mediaSegments says whether the TS segments that an M3U8 target names are also
	// prefetched: Prefetch, or Ignore, the default. Segments count against the daily
	// quota; beyond it EdgeOne skips them silently.
	// +optional
	MediaSegments MediaSegmentsPolicy `json:"mediaSegments,omitempty"`

	// encodeURL asks EdgeOne to percent-encode the targets (RFC 3986). The operator
	// encodes characters that a URL cannot contain in any case. It sends EdgeOne's
	// parameter, which is deprecated, only if this field is set.
	// +optional
	EncodeURL *bool `json:"encodeURL,omitempty"` //nolint:kubeapilinter // EdgeOne's own parameter, which has three states: absent, true, false

	// purge removes copies from EdgeOne's caches before the targets are prefetched. Without
	// it, a prefetch does not replace a copy that has not expired. No target is prefetched
	// before EdgeOne reports that its purge has succeeded.
	// +optional
	Purge Purge `json:"purge,omitempty,omitzero"`

	// freshSince is a time, for example of the last release: 2026-11-28T14:05:00Z (RFC 3339).
	// A copy that EdgeOne fetched at or after it is good enough: a target that EdgeOne's history shows as prefetched since
	// then, by whomever, is not submitted again. It cannot lie in the future. A change
	// starts a new run.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`
	FreshSince metav1.Time `json:"freshSince,omitempty,omitzero"` //nolint:kubeapilinter // a time, whose text has a pattern

	// revision is any text, for example a release version. A change starts a new run of
	// the same targets.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Revision string `json:"revision,omitempty"`

	// accountRef names the EdgeOneAccount whose credentials sign the calls for this task,
	// and whose rules apply. If this and credentialsSecretRef are absent, it is the
	// account named default. If there is none, the operator's own credentials are used,
	// if it has any.
	// +optional
	AccountRef AccountReference `json:"accountRef,omitempty,omitzero"`

	// credentialsSecretRef names the Secret with the key that signs the calls for this
	// task. It cannot be set together with accountRef.
	// +optional
	CredentialsSecretRef SecretReference `json:"credentialsSecretRef,omitempty,omitzero"`

	// suspend stops the task before its next call if it is true. Calls already made are
	// still followed. Resuming continues the run and submits nothing twice.
	// +optional
	Suspend *bool `json:"suspend,omitempty"` //nolint:kubeapilinter // the name and type that CronJob and Job have

	// ttlSecondsAfterFinished is how long a task is kept after its run is over, whatever
	// the outcome, at most ten years. If absent, the task is kept. The field is meant
	// for tasks that are created once, for example with generateName. A task that Argo
	// CD, Flux or Helm would recreate, and so submit again, is not deleted; their hooks
	// are.
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=315360000
	TTLSecondsAfterFinished int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// RetryAnnotation asks the operator to resubmit the failed targets of a finished run, each
// time its value changes. If a run is in progress, the retry starts when it ends. Removing
// the annotation has no effect.
const RetryAnnotation = "teo.prefetch-operator.io/retry"

// TargetCounts counts the targets of a run, each distinct URL once.
type TargetCounts struct {
	// total is the number of distinct targets.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total *int32 `json:"total,omitempty"`
	// submitted is how many were handed over to EdgeOne, including those it refused.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Submitted *int32 `json:"submitted,omitempty"`
	// succeeded is how many EdgeOne has prefetched.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded *int32 `json:"succeeded,omitempty"`
	// failed is how many EdgeOne refused or failed to prefetch.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed *int32 `json:"failed,omitempty"`
}

// JobKind says what a call or a job does with its targets. If absent, it prefetches them.
// +kubebuilder:validation:Enum=Purge
type JobKind string

const (
	// JobPrefetch fetches the targets into the caches. It is the default.
	JobPrefetch JobKind = ""
	// JobPurge removes copies from the caches.
	JobPurge JobKind = "Purge"
)

// PurgeCounts counts what a run purges: the targets of the task with the type URL, or the
// targets of spec.purge.
type PurgeCounts struct {
	// submitted is how many were handed over to EdgeOne, including those it refused.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Submitted *int32 `json:"submitted,omitempty"`
	// succeeded is how many EdgeOne has purged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded *int32 `json:"succeeded,omitempty"`
	// failed is how many EdgeOne refused or failed to purge.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed *int32 `json:"failed,omitempty"`
	// failedPositions are the positions of those that failed, as in jobs.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	FailedPositions string `json:"failedPositions,omitempty"`
}

// Job is this task's part of a CreatePrefetchTask or CreatePurgeTask call that EdgeOne
// accepted. Other tasks may share the job.
//
// +kubebuilder:validation:XValidation:rule="has(self.positions) || has(self.targets)",message="must have positions in each job"
type Job struct {
	// id is EdgeOne's JobId.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ID string `json:"id,omitempty"`
	// claimID is the claim under which the call was made, the same for all tasks
	// of the call.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ClaimID string `json:"claimID,omitempty"`
	// kind is Purge if the job purges. If absent, the job prefetches.
	// +optional
	Kind JobKind `json:"kind,omitempty"`
	// adopted says that this run did not submit the job: the job is in EdgeOne's history,
	// and its targets are as fresh as the run asks for.
	// +optional
	Adopted bool `json:"adopted,omitempty"` //nolint:kubeapilinter // a fact with two states, written by the operator alone
	// positions are the positions of this task's targets in the job, as ranges
	// over the distinct targets in list order, counted from 0: "0-1999,2004". For a purge
	// of another type than URL, they are positions in spec.purge.targets.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Positions string `json:"positions,omitempty"`
	// retriedPositions are the positions of targets that failed in this job and were
	// queued again by a retry. They count in their new job and no longer here. In a purge,
	// they are those that EdgeOne failed to purge.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	RetriedPositions string `json:"retriedPositions,omitempty"`
	// purgedPositions are the positions of a purge that EdgeOne has purged.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	PurgedPositions string `json:"purgedPositions,omitempty"`
	// sharedURLs is how many of these targets are also targets of other tasks in the job
	// that count them against the limits of the EdgeOneAccount. EdgeOne counts each URL
	// of a job once.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SharedURLs int32 `json:"sharedURLs,omitempty"`
	// submitTime is when the call was signed, by EdgeOne's clock.
	// +required
	SubmitTime metav1.Time `json:"submitTime,omitempty,omitzero"`
	// succeeded is how many of these targets EdgeOne has prefetched or, in a purge, purged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Succeeded int32 `json:"succeeded,omitempty"`
	// failed is how many of these targets EdgeOne failed to prefetch or, in a purge, to
	// purge.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed,omitempty"`

	// targets is the former name of positions. Only the operator reads it, and moves it
	// to positions when it next writes the status.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	FormerTargets string `json:"targets,omitempty"`
	// retried is the former name of retriedPositions. Only the operator reads it, and
	// moves it to retriedPositions when it next writes the status.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	FormerRetried string `json:"retried,omitempty"`
}

// FailedTarget is a target that EdgeOne refused or failed to prefetch.
type FailedTarget struct {
	// url is the target as it is in the spec.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
	// reason is for programs: Refused (by CreatePrefetchTask), PurgeFailed (so that the
	// target was not prefetched), NoOutcome (EdgeOne reported none in time), or EdgeOne's
	// status of the target: Failed, Timeout, Canceled or Invalid.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Reason string `json:"reason,omitempty"`
	// message is what EdgeOne said.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// Submission is the claim on a call whose response is not recorded yet. It is written before
// the call, and contains everything that is needed to look the call up later, even if the
// spec has changed since.
//
// +kubebuilder:validation:XValidation:rule="has(self.positions) || has(self.targets)",message="must have positions"
type Submission struct {
	// claimID names the claim; all tasks of one call share it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ClaimID string `json:"claimID,omitempty"`
	// kind is Purge if the call purges. If absent, the call prefetches.
	// +optional
	Kind JobKind `json:"kind,omitempty"`
	// zoneID is the zone the call is made for.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ZoneID string `json:"zoneID,omitempty"`
	// accountHash is a hash of who signs the call: of a SecretId, or of the ARN of a role,
	// whose SecretId changes with each refresh of its keys.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	AccountHash string `json:"accountHash,omitempty"`
	// signedAt is the time in the call's signature, by EdgeOne's clock. EdgeOne refuses
	// a call whose signature is too old.
	// +required
	SignedAt metav1.Time `json:"signedAt,omitempty,omitzero"`
	// positions are the positions of this task's targets in the call, as in jobs.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Positions string `json:"positions,omitempty"`
	// sharedURLs is how many of these targets other tasks of the call count; as in jobs.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SharedURLs int32 `json:"sharedURLs,omitempty"`
	// callHash is a hash of all URLs of the planned call. It only ranks the jobs that
	// could be this call's.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	CallHash string `json:"callHash,omitempty"`
	// semantics is a hash of the mode, headers and media segments of the call.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Semantics string `json:"semantics,omitempty"`
	// earlierJobs are jobs created just before the call: of the previous run, or of
	// other tasks with another mode or other headers. EdgeOne reports the time of a job
	// in seconds, so that one of them could be taken for this call's.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=256
	EarlierJobs []string `json:"earlierJobs,omitempty"`
	// answer is EdgeOne's response, if that left open whether the call was executed. It
	// is not set if there was no response.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Answer string `json:"answer,omitempty"`
	// expired says that EdgeOne can no longer execute the call. It is set if the spec
	// has changed in the meantime. The call is looked up only if the spec is changed
	// back.
	// +optional
	Expired bool `json:"expired,omitempty"` //nolint:kubeapilinter // a fact of the past with two states, written by the operator alone

	// targets is the former name of positions. Only the operator reads it, and moves it
	// to positions when it next writes the status.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	FormerTargets string `json:"targets,omitempty"`
}

// PrefetchTaskStatus says what became of the task's current run.
// +kubebuilder:validation:MinProperties=0
type PrefetchTaskStatus struct {
	// observedGeneration is the generation of the spec that this status is about; -1
	// until the operator has seen the task.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// run is a hash of what this run submits: zoneID, targets or targetsFrom, mode,
	// headers, mediaSegments, encodeURL, purge, freshSince and revision.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Run string `json:"run,omitempty"`
	// request is a hash of the same fields without targets and targetsFrom. A run with the
	// same request keeps what the jobs of the run before have prefetched.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Request string `json:"request,omitempty"`
	// lastHandledRetry is the last value of the annotation
	// teo.prefetch-operator.io/retry that was handled, or its hash if it is longer than
	// 256 bytes. A new run handles it too, as it submits everything.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	LastHandledRetry string `json:"lastHandledRetry,omitempty"`
	// targetsHash is a hash of the targets that this run took from a ConfigMap: its
	// distinct URLs in list order. The positions in this status refer to them.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TargetsHash string `json:"targetsHash,omitempty"`
	// conditions are Ready (every target is prefetched), Stalled (user action is
	// required), Submitted (every target was handed over), QuotaExceeded (EdgeOne's
	// quota or the budget of the account holds the task) and Finished (the run is over, whatever its outcome).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// targets counts the targets of this run.
	// +optional
	Targets TargetCounts `json:"targets,omitempty,omitzero"`
	// purge counts what this run purges, if spec.purge is set.
	// +optional
	Purge PurgeCounts `json:"purge,omitempty,omitzero"`
	// jobs are EdgeOne's jobs for this run, in the order of their creation.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=10000
	Jobs []Job `json:"jobs,omitempty"`
	// jobCount is the number of jobs, purges included.
	// +optional
	// +kubebuilder:validation:Minimum=0
	JobCount int32 `json:"jobCount,omitempty"`
	// failedTargets are the first 100 targets that failed, fewer if the status has no
	// room for them. targets.failed is the exact number.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	FailedTargets []FailedTarget `json:"failedTargets,omitempty"`
	// refusedPositions are the positions of targets that EdgeOne refused to accept, as
	// in jobs.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	RefusedPositions string `json:"refusedPositions,omitempty"`
	// submission is the claim on a call whose response is not recorded yet.
	// +optional
	Submission *Submission `json:"submission,omitempty"`
	// lostCalls counts the calls of this run that had an unknown outcome and turned out
	// not to have been executed. From the third on, a call of a single URL makes the
	// task Stalled, and that URL is retried less often.
	// +optional
	// +kubebuilder:validation:Minimum=0
	LostCalls int32 `json:"lostCalls,omitempty"`
	// nextAttemptTime is when a task that waits for quota is expected to get it. The
	// operator checks more often, and continues as soon as quota is back.
	// +optional
	NextAttemptTime metav1.Time `json:"nextAttemptTime,omitempty,omitzero"`
	// startTime is when the first call of this run was claimed.
	// +optional
	StartTime metav1.Time `json:"startTime,omitempty,omitzero"`
	// completionTime is when the run finished, whatever its outcome.
	// +optional
	CompletionTime metav1.Time `json:"completionTime,omitempty,omitzero"`

	// refusedTargets is the former name of refusedPositions. Only the operator reads it,
	// and moves it to refusedPositions when it next writes the status.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	FormerRefusedTargets string `json:"refusedTargets,omitempty"`
}

// PrefetchTask asks EdgeOne to fetch URLs into its caches before visitors do.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pft,categories=teo
// +kubebuilder:selectablefield:JSONPath=`.spec.zoneID`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.zoneID`
// +kubebuilder:printcolumn:name="Targets",type=integer,JSONPath=`.status.targets.total`
// +kubebuilder:printcolumn:name="Submitted",type=integer,JSONPath=`.status.targets.submitted`
// +kubebuilder:printcolumn:name="Succeeded",type=integer,JSONPath=`.status.targets.succeeded`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.targets.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.conditions[?(@.type=="Ready")].lastTransitionTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`,priority=1
// +kubebuilder:printcolumn:name="Purged",type=integer,JSONPath=`.status.purge.succeeded`,priority=1
// +kubebuilder:printcolumn:name="Jobs",type=integer,JSONPath=`.status.jobCount`,priority=1
// +kubebuilder:printcolumn:name="Next attempt",type=string,format=date-time,JSONPath=`.status.nextAttemptTime`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type PrefetchTask struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec says what EdgeOne should have in its caches.
	// +required
	Spec PrefetchTaskSpec `json:"spec,omitempty,omitzero"`
	// status says what became of it.
	// +optional
	// +default={"observedGeneration":-1}
	Status PrefetchTaskStatus `json:"status,omitempty,omitzero"`
}

// PrefetchTaskList is a list of PrefetchTasks.
//
// +kubebuilder:object:root=true
type PrefetchTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PrefetchTask `json:"items"`
}
