package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AccountReference names an EdgeOneAccount.
type AccountReference struct {
	// name of the EdgeOneAccount.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of an EdgeOneAccount: lower case letters, digits, hyphens and dots"
	Name string `json:"name,omitempty"`
}

// AccountSecretReference names a Secret in the operator's own namespace.
type AccountSecretReference struct {
	// name of the Secret. Its keys are secretId, secretKey and, for temporary
	// credentials, token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret in the operator's namespace: lower case letters, digits, hyphens and dots"
	Name string `json:"name,omitempty"`
}

// WebIdentity is a role that the operator assumes with the token of its ServiceAccount.
type WebIdentity struct {
	// roleARN is the ARN of the role, for example
	// qcs::cam::uin/100000000001:roleName/prefetch.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=300
	// +kubebuilder:validation:XValidation:rule="self.matches('^qcs::cam::uin/[0-9]{1,20}:(roleName|role)/[A-Za-z0-9_+=,.@/-]{1,256}$')",message="must be the ARN of a role, for example qcs::cam::uin/100000000001:roleName/prefetch"
	RoleARN string `json:"roleARN,omitempty"`
	// providerID is the name of the cluster's identity provider in CAM, for example
	// cls-0abc. If absent, it is the operator's --role-provider-id.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_+=,.@-]+$')",message="must be the name of an identity provider in CAM: letters, digits and _+=,.@-"
	ProviderID string `json:"providerID,omitempty"`
}

// CVMRole is the role of the node on which the operator runs.
type CVMRole struct {
	// name of the role.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_+=,.@-]+$')",message="must be the name of a role: letters, digits and _+=,.@-"
	Name string `json:"name,omitempty"`
}

// AssumeRole is a role that the operator assumes with the credentials of the source.
type AssumeRole struct {
	// roleARN is the ARN of the role, for example
	// qcs::cam::uin/100000000002:roleName/prefetch.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=300
	// +kubebuilder:validation:XValidation:rule="self.matches('^qcs::cam::uin/[0-9]{1,20}:(roleName|role)/[A-Za-z0-9_+=,.@/-]{1,256}$')",message="must be the ARN of a role, for example qcs::cam::uin/100000000002:roleName/prefetch"
	RoleARN string `json:"roleARN,omitempty"`
	// externalID is the external ID that the trust policy of the role requires.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_+=,.@:/-]+$')",message="must have letters, digits and _+=,.@:/- only"
	ExternalID string `json:"externalID,omitempty"`
	// durationSeconds is the lifetime of the role's keys, at most the role's maximum
	// session duration. If absent, it is 7200.
	// +optional
	// +kubebuilder:validation:Minimum=900
	// +kubebuilder:validation:Maximum=43200
	DurationSeconds int32 `json:"durationSeconds,omitempty"`
}

// AccountCredentials says who signs the calls of an account: exactly one source, and
// optionally a role that the operator assumes with it.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="(has(self.secretRef) ? 1 : 0) + (has(self.webIdentity) ? 1 : 0) + (has(self.cvmRole) ? 1 : 0) == 1",message="must have exactly one of secretRef, webIdentity and cvmRole"
type AccountCredentials struct {
	// secretRef names a Secret in the operator's own namespace with a long-lived key.
	// +optional
	SecretRef AccountSecretReference `json:"secretRef,omitempty,omitzero"`
	// webIdentity is a role that the operator assumes with the token of its
	// ServiceAccount, so that no long-lived key exists.
	// +optional
	WebIdentity WebIdentity `json:"webIdentity,omitempty,omitzero"`
	// cvmRole is the role of the node on which the operator runs. The operator uses it
	// only with --allow-cvm-role, because every pod of the node has this identity.
	// +optional
	CVMRole CVMRole `json:"cvmRole,omitempty,omitzero"`
	// assumeRole is a role that the operator assumes with the keys of the source. The
	// role's keys sign the calls.
	// +optional
	AssumeRole AssumeRole `json:"assumeRole,omitempty,omitzero"`
}

// LabelSelector selects namespaces by their labels. A namespace must match everything.
// +kubebuilder:validation:MinProperties=1
type LabelSelector struct {
	// matchLabels are labels that a namespace must have.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.qualifiedName().validate(k).hasValue())",message="must have valid names of labels"
	MatchLabels map[string]LabelText `json:"matchLabels,omitempty"`
	// matchExpressions are conditions that the labels of a namespace must meet.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	MatchExpressions []LabelRequirement `json:"matchExpressions,omitempty"`
}

// LabelText is the value of a label.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelText string

// LabelRequirement is a condition on one label of a namespace.
//
// +kubebuilder:validation:XValidation:rule="self.operator in ['In', 'NotIn'] ? has(self.values) : !has(self.values)",message="must have values with the operators In and NotIn, and none with Exists and DoesNotExist"
type LabelRequirement struct {
	// key is the name of the label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="!format.qualifiedName().validate(self).hasValue()",message="must be the name of a label"
	Key string `json:"key,omitempty"`
	// operator is In, NotIn, Exists or DoesNotExist.
	// +required
	Operator LabelOperator `json:"operator,omitempty"`
	// values are the values for In and NotIn.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Values []LabelText `json:"values,omitempty"`
}

// LabelOperator relates a label to values.
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type LabelOperator string

// NamespaceName is the name of a namespace.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type NamespaceName string

// NamespaceSet is a set of namespaces: by name, or by their labels.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.names) != has(self.selector)",message="must have either names or selector"
type NamespaceSet struct {
	// names are the names of the namespaces.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Names []NamespaceName `json:"names,omitempty"`
	// selector selects namespaces by their labels. Whoever may label a namespace decides
	// whether it matches.
	// +optional
	Selector *LabelSelector `json:"selector,omitempty"` //nolint:kubeapilinter // a pointer, as in other APIs: nil selects nothing
}

// HostPattern is a host name, or *. and a host name for all names below it.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="!self.contains('/') && !self.contains(':')",message="must be a host name without a scheme, port or path, for example www.example.com or *.example.com"
// +kubebuilder:validation:Pattern=`^(\*\.)?[^\s*@?#%\\.\[\]]+(\.[^\s*@?#%\\.\[\]]+)*\.?$`
type HostPattern string

// AccountZone is a zone that the tasks of an account may use.
type AccountZone struct {
	// id is the ID of the zone, or * for calls with targets of several zones.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self == '*' || self.matches('^zone-[0-9a-z]+$')",message="must be an EdgeOne zone ID such as zone-ajj243dwrew, or *"
	ID string `json:"id,omitempty"`
	// hosts are the hosts that targets may have. If absent, any. They are compared in
	// lower case and in their ASCII form (xn--…), and without a port or a dot at the end.
	// A wildcard such as *.example.com stands for one or more labels.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Hosts []HostPattern `json:"hosts,omitempty"`
	// namespaces narrows the account's namespaces for this zone. If absent, they are the
	// account's.
	// +optional
	Namespaces NamespaceSet `json:"namespaces,omitempty,omitzero"`
}

// PurgeType is a way to purge.
// +kubebuilder:validation:Enum=URL;Prefix;Host;CacheTag
type PurgeType string

const (
	// PurgeURL purges single URLs.
	PurgeURL PurgeType = "URL"
	// PurgePrefix purges all URLs that begin with a prefix.
	PurgePrefix PurgeType = "Prefix"
	// PurgeHost purges all URLs of a host.
	PurgeHost PurgeType = "Host"
	// PurgeCacheTag purges all URLs that the origin has given a cache tag.
	PurgeCacheTag PurgeType = "CacheTag"
)

// AccountAllow says what the tasks of an account may use beyond the default.
// +kubebuilder:validation:MinProperties=1
type AccountAllow struct {
	// modes are the modes that tasks may have. If absent, Default only: EdgeOne bills
	// the traffic of Edge.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Modes []PrefetchMode `json:"modes,omitempty"`
	// mediaSegments allows tasks to prefetch media segments, which use up the zone's
	// quota without being counted here. If absent, they may not.
	// +optional
	MediaSegments *bool `json:"mediaSegments,omitempty"` //nolint:kubeapilinter // a permission, which is given or not
	// purge are the types of purges that tasks may use. If absent, none. Prefixes and hosts
	// must be of the hosts that the zone lists. A zone that lists hosts has no CacheTag.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Purge []PurgeType `json:"purge,omitempty"`
}

// AccountLimits are budgets of an account. The day of the budgets begins at the operator's
// --quota-reset.
// +kubebuilder:validation:MinProperties=1
type AccountLimits struct {
	// callsPerSecond is how many CreatePrefetchTask calls the account's tasks may make
	// per second, at most the operator's --teo-qps. If absent, it is that.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	CallsPerSecond int32 `json:"callsPerSecond,omitempty"`
	// dailyURLs is how many URLs EdgeOne may accept per day from the account's tasks. If
	// absent, only EdgeOne's quota limits them. 0 allows none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000000
	DailyURLs *int32 `json:"dailyURLs,omitempty"`
	// dailyURLsPerNamespace is the same for the tasks of each namespace.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000000
	DailyURLsPerNamespace *int32 `json:"dailyURLsPerNamespace,omitempty"`
}

// EdgeOneAccountSpec says which credentials an account has, who may use it, and for what.
type EdgeOneAccountSpec struct {
	// credentials says who signs the calls.
	// +required
	Credentials AccountCredentials `json:"credentials,omitempty,omitzero"`
	// namespaces are the namespaces whose tasks may use the account. If absent, none.
	// +optional
	Namespaces NamespaceSet `json:"namespaces,omitempty,omitzero"`
	// zones are the zones that tasks may use. If absent, every zone that the credentials
	// may use.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Zones []AccountZone `json:"zones,omitempty"`
	// allow says what tasks may use beyond the default.
	// +optional
	Allow AccountAllow `json:"allow,omitempty,omitzero"`
	// limits are budgets.
	// +optional
	Limits AccountLimits `json:"limits,omitempty,omitzero"`
	// suspend stops all submissions of the account's tasks if it is true. Calls already
	// made are still followed.
	// +optional
	Suspend *bool `json:"suspend,omitempty"` //nolint:kubeapilinter // as in a PrefetchTask
}

// AccountPurgeStatus is EdgeOne's quota of a type of purges today.
type AccountPurgeStatus struct {
	// type is the type of the purges.
	// +required
	Type PurgeType `json:"type,omitempty"`
	// daily is the quota of a day.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Daily *int32 `json:"daily,omitempty"`
	// batch is how many targets a call has at most. It is absent if the plan of the zone
	// has no such purges.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Batch int32 `json:"batch,omitempty"`
	// left is what is left today.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Left *int32 `json:"left,omitempty"`
}

// AccountZoneStatus is the use of a zone today.
type AccountZoneStatus struct {
	// id is the ID of the zone.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`
	// daily is EdgeOne's quota of the zone for a day, if known.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Daily *int32 `json:"daily,omitempty"`
	// batch is how many URLs a call for the zone has at most: EdgeOne's limit or, if
	// EdgeOne does not say it, the operator's --batch. It is absent until EdgeOne was asked.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Batch int32 `json:"batch,omitempty"`
	// left is what EdgeOne's quota leaves today, if known.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Left *int32 `json:"left,omitempty"`
	// used is how many URLs EdgeOne has accepted today from the account's tasks.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Used *int32 `json:"used,omitempty"`
	// purges are EdgeOne's quotas of the types of purges that the account allows, if known.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=4
	Purges []AccountPurgeStatus `json:"purges,omitempty"`
}

// AccountNamespaceStatus is how much a namespace has used today.
type AccountNamespaceStatus struct {
	// name of the namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// used is how many URLs EdgeOne has accepted today from the tasks of the namespace.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Used *int32 `json:"used,omitempty"`
}

// EdgeOneAccountStatus says whether EdgeOne accepts the credentials, and what is used today.
// +kubebuilder:validation:MinProperties=0
type EdgeOneAccountStatus struct {
	// observedGeneration is the generation of the spec that this status is about; -1
	// until the operator has seen the account.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions are Ready (EdgeOne accepts the credentials; Unknown until EdgeOne or STS
	// has answered) and Stalled (user action is required).
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// principal is who EdgeOne meters: the ARN of a role, or a SecretId.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Principal string `json:"principal,omitempty"`
	// dayStartTime is when the day began of which used, left, zones and namespaces are.
	// +optional
	DayStartTime metav1.Time `json:"dayStartTime,omitempty,omitzero"`
	// used is how many URLs EdgeOne has accepted today from the account's tasks. It is
	// written every 10 seconds at most.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Used *int32 `json:"used,omitempty"`
	// left is what spec.limits.dailyURLs leaves today.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Left *int32 `json:"left,omitempty"`
	// zones are the zones of the spec, and those that tasks use, at most 100.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=100
	Zones []AccountZoneStatus `json:"zones,omitempty"`
	// namespaces are the 100 namespaces that have used the most today.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=100
	Namespaces []AccountNamespaceStatus `json:"namespaces,omitempty"`
}

// EdgeOneAccount offers an account of EdgeOne to the tasks of some namespaces. It says who
// signs their calls, which zones and hosts they may prefetch, and how much. A task names it
// in spec.accountRef. The account named default also serves the tasks that name neither an
// account nor a Secret. It contains no secret.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=eoa,categories=teo
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Principal",type=string,JSONPath=`.status.principal`
// +kubebuilder:printcolumn:name="Used",type=integer,JSONPath=`.status.used`
// +kubebuilder:printcolumn:name="Left",type=integer,JSONPath=`.status.left`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
type EdgeOneAccount struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`
	// spec says which credentials the account has, who may use it, and for what.
	// +required
	Spec EdgeOneAccountSpec `json:"spec,omitempty,omitzero"`
	// status says whether EdgeOne accepts the credentials, and what is used today.
	// +optional
	// +default={"observedGeneration":-1}
	Status EdgeOneAccountStatus `json:"status,omitempty,omitzero"`
}

// EdgeOneAccountList is a list of EdgeOneAccounts.
//
// +kubebuilder:object:root=true
type EdgeOneAccountList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EdgeOneAccount `json:"items"`
}

// DefaultAccount is the name of the EdgeOneAccount of tasks that name neither an account
// nor a Secret.
const DefaultAccount = "default"
