package main

import (
	"maps"

	xpv1 "github.com/crossplane/crossplane-runtime/apis/common/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// groupVersion is the group and version in crd.yaml.
var groupVersion = schema.GroupVersion{Group: "bench.prefetch-operator.io", Version: "v1alpha1"}

// Prefetch is a managed resource: one URL in EdgeOne's caches. Its external name is
// the JobId.
type Prefetch struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              prefetchSpec   `json:"spec"`
	Status            prefetchStatus `json:"status,omitempty"`
}

type prefetchSpec struct {
	xpv1.ResourceSpec `json:",inline"`
	ForProvider       parameters `json:"forProvider"`
}

type parameters struct {
	ZoneID  string            `json:"zoneID"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
}

type prefetchStatus struct {
	xpv1.ResourceStatus `json:",inline"`
	AtProvider          observation `json:"atProvider,omitempty"`
}

type observation struct {
	State string `json:"state,omitempty"`
}

// PrefetchList is a list of Prefetch objects.
type PrefetchList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Prefetch `json:"items"`
}

// DeepCopy copies a Prefetch.
func (p *Prefetch) DeepCopy() *Prefetch {
	out := &Prefetch{TypeMeta: p.TypeMeta, Status: prefetchStatus{AtProvider: p.Status.AtProvider}}
	p.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	p.Spec.ResourceSpec.DeepCopyInto(&out.Spec.ResourceSpec)
	p.Status.ResourceStatus.DeepCopyInto(&out.Status.ResourceStatus)
	out.Spec.ForProvider = p.Spec.ForProvider
	out.Spec.ForProvider.Headers = maps.Clone(p.Spec.ForProvider.Headers)
	return out
}

// DeepCopyObject copies a Prefetch.
func (p *Prefetch) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject copies a PrefetchList.
func (l *PrefetchList) DeepCopyObject() runtime.Object {
	out := &PrefetchList{TypeMeta: l.TypeMeta}
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopy())
	}
	return out
}

// angryjet generates code like the following for a managed resource.

// GetCondition returns a condition.
func (p *Prefetch) GetCondition(ct xpv1.ConditionType) xpv1.Condition {
	return p.Status.GetCondition(ct)
}

// SetConditions sets conditions.
func (p *Prefetch) SetConditions(c ...xpv1.Condition) { p.Status.SetConditions(c...) }

// GetDeletionPolicy returns the policy.
func (p *Prefetch) GetDeletionPolicy() xpv1.DeletionPolicy { return p.Spec.DeletionPolicy }

// SetDeletionPolicy sets the policy.
func (p *Prefetch) SetDeletionPolicy(policy xpv1.DeletionPolicy) { p.Spec.DeletionPolicy = policy }

// GetManagementPolicies returns the policies.
func (p *Prefetch) GetManagementPolicies() xpv1.ManagementPolicies { return p.Spec.ManagementPolicies }

// SetManagementPolicies sets the policies.
func (p *Prefetch) SetManagementPolicies(policies xpv1.ManagementPolicies) {
	p.Spec.ManagementPolicies = policies
}

// GetProviderConfigReference returns the reference.
func (p *Prefetch) GetProviderConfigReference() *xpv1.Reference {
	return p.Spec.ProviderConfigReference
}

// SetProviderConfigReference sets the reference.
func (p *Prefetch) SetProviderConfigReference(r *xpv1.Reference) { p.Spec.ProviderConfigReference = r }

// GetWriteConnectionSecretToReference returns the reference.
func (p *Prefetch) GetWriteConnectionSecretToReference() *xpv1.SecretReference {
	return p.Spec.WriteConnectionSecretToReference
}

// SetWriteConnectionSecretToReference sets the reference.
func (p *Prefetch) SetWriteConnectionSecretToReference(r *xpv1.SecretReference) {
	p.Spec.WriteConnectionSecretToReference = r
}

// GetPublishConnectionDetailsTo returns the destination.
func (p *Prefetch) GetPublishConnectionDetailsTo() *xpv1.PublishConnectionDetailsTo {
	return p.Spec.PublishConnectionDetailsTo
}

// SetPublishConnectionDetailsTo sets the destination.
func (p *Prefetch) SetPublishConnectionDetailsTo(to *xpv1.PublishConnectionDetailsTo) {
	p.Spec.PublishConnectionDetailsTo = to
}
