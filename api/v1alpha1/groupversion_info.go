// Package v1alpha1 holds the PrefetchTask API: which URLs Tencent EdgeOne should
// have in its caches, and what became of them.
//
// +kubebuilder:object:generate=true
// +groupName=teo.prefetch-operator.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package.
var GroupVersion = schema.GroupVersion{Group: "teo.prefetch-operator.io", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &PrefetchTask{}, &PrefetchTaskList{}, &EdgeOneAccount{}, &EdgeOneAccountList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
})

// AddToScheme makes a scheme know the types of this package.
var AddToScheme = schemeBuilder.AddToScheme
