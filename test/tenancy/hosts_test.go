package tenancy

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// hostRules are the hosts of the account in TestNoSpellingOfAHostGetsAroundTheRule.
const hostRules = "{namespaces: {names: [$team]}, zones: [{id: $zone, hosts: [www.example.com, '*.shop.example.com', caf\u00e9.example]}]}"

// isAllowedHost reports whether the rules stand for a name in ASCII.
func isAllowedHost(host string) bool {
	labels, isShop := strings.CutSuffix(host, ".shop.example.com")
	return host == "www.example.com" || host == "xn--caf-dma.example" || isShop && labels != ""
}

// isPlain reports whether a host has only the characters of host names, so that all programs
// read it in the same way.
func isPlain(host string) bool {
	return host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" && !strings.Contains(host, "..")
}

// hostAttacks are URLs, and whether the account allows them. Those that no task may have, in
// its spec or in a ConfigMap, are not valid.
var hostAttacks = []struct {
	url     string
	outcome string
}{
	{"https://www.example.com/a", "allowed"},
	{"https://WWW.Example.COM/a", "allowed"},
	{"https://www.example.com./a", "allowed"},
	{"https://www.example.com:443/a", "allowed"},
	{"http://www.example.com:8080/a", "allowed"},
	{"https://www.example.com?a=https://other.test/", "allowed"},
	{"https://a.shop.example.com/", "allowed"},
	{"https://A.B.Shop.Example.com/", "allowed"},
	{"https://xn--caf-dma.example/", "allowed"},
	{"https://caf\u00e9.example/", "allowed"},
	{"https://CAF\u00c9.example/", "allowed"},
	{"https://cafe\u0301.example/", "allowed"},
	{"https://\uff57\uff57\uff57.example.com/", "allowed"}, // full-width letters

	{"https://evil.test/", "refused"},
	{"https://EVIL.test/", "refused"},
	{"https://shop.example.com/", "refused"},
	{"https://evilshop.example.com/", "refused"},
	{"https://example.com/", "refused"},
	{"https://ww.example.com/", "refused"},
	{"https://wwww.example.com/", "refused"},
	{"https://www-example.com/", "refused"},
	{"https://a.shop.example.com.evil.test/", "refused"},
	{"https://www.example.com.evil.test/", "refused"},
	{"https://www.example.com.evil.test./", "refused"},
	{"https://www.example.com%2eevil.test/", "invalid"},
	{"https://www.example.com\u3002evil.test/", "refused"},   // an ideographic full stop
	{"https://evil.test\uff0f.shop.example.com/", "refused"}, // a full-width slash
	{"https://evil.test\uff1f.shop.example.com/", "refused"}, // a full-width question mark
	{"https://evil.test\uff03.shop.example.com/", "refused"}, // a full-width number sign
	{"https://evil.c\u2100.shop.example.com/", "refused"},    // a/c in one character
	{"https://evil.test\uff1a80.shop.example.com/", "refused"},
	{"https://evil.test;.shop.example.com/", "refused"},
	{"https://evil.test,.shop.example.com/", "refused"},
	{"https://evil.test&.shop.example.com/", "refused"},
	{"https://evil.test?.shop.example.com/", "refused"},
	{"https://evil.test/#.shop.example.com/", "refused"},
	{"https://evil.test/#https://www.example.com/", "refused"},
	{"https://evil.test#.shop.example.com/", "invalid"},
	{"https://evil.test#https://www.example.com/", "invalid"},
	{"https://evil.test/.shop.example.com/", "refused"},
	{"https://evil.test/www.example.com", "refused"},
	{"https://evil.test?www.example.com", "refused"},
	{"https://evil.test:443/www.example.com", "refused"},
	{"https://cafe.example/", "refused"},
	{"https://www.ex\u0430mple.com/", "refused"}, // a Cyrillic letter
	{"https://www.example.c\u043em/", "refused"},
	{"https://xn--www-.example.com/", "refused"},
	{"https://192.0.2.1/", "refused"},
	{"https://3221225985/", "refused"},

	{"https://www.example.com@evil.test/", "invalid"},
	{"https://www.example.com:443@evil.test/", "invalid"},
	{"https://www.example.com%40evil.test/", "invalid"},
	{"https://user:password@www.example.com/", "invalid"},
	{"https://www.example.com\\.evil.test/", "invalid"},
	{"https://evil.test\\@www.example.com/", "invalid"},
	{"https://www.example.com:0/", "invalid"},
	{"https://www.example.com:443:80/", "invalid"},
	{"https://[::1]/", "invalid"},
	{"https://.shop.example.com/", "refused"},
	{"https://www.example.com../", "refused"},
	{"https:///www.example.com/", "invalid"},
	{"https:www.example.com/", "invalid"},
	{"//www.example.com/", "invalid"},
	{"HTTPS://www.example.com/", "invalid"},
	{"https://www.example.com\t.evil.test/", "invalid"},
	{"https://www.exam\u00adple.com/", "invalid"}, // a soft hyphen
	{"https://*.example.com/", "invalid"},
}

// Whatever spelling a URL has, in a task or in a ConfigMap, and whoever encodes it, EdgeOne
// gets it only if every program reads a host in it that the account allows.
func TestNoSpellingOfAHostGetsAroundTheRule(t *testing.T) {
	s := newScene(t)
	a := s.account("", hostRules)
	encodings := []*bool{nil, ptr.To(true), ptr.To(false)}
	tasks := map[string][]*v1alpha1.PrefetchTask{} // by what must become of them
	for i, attack := range hostAttacks {
		for _, isListed := range []bool{false, true} {
			task := a.newTask(s.team, fmt.Sprintf("attack-%d-%v", i, isListed), attack.url)
			task.Spec.EncodeURL = encodings[i%len(encodings)]
			// The first target is allowed: an attack may hide behind it.
			task.Spec.Targets = append([]v1alpha1.Target{v1alpha1.Target(fmt.Sprintf("https://www.example.com/before/%d/%v", i, isListed))}, task.Spec.Targets...)
			outcome := attack.outcome
			if isListed {
				s.moveToConfigMap(task)
			}
			err := s.kube.Create(t.Context(), task)
			switch {
			case outcome == "invalid" && !isListed:
				if !apierrors.IsInvalid(err) {
					t.Errorf("the API server takes %q: %v", attack.url, err)
				}
				continue
			case err != nil:
				t.Errorf("%q: %v", attack.url, err)
				continue
			}
			tasks[outcome] = append(tasks[outcome], task)
		}
	}
	s.until(v1alpha1.ReasonSucceeded, tasks["allowed"]...)
	s.until(v1alpha1.ReasonNotAllowed, tasks["refused"]...)
	s.until(v1alpha1.ReasonTargetsInvalid, tasks["invalid"]...)
	for _, task := range tasks["refused"] {
		if message := ready(task).Message; !strings.Contains(message, "does not allow host") || !isStalled(task) || counts(task)[0] != '0' {
			t.Errorf("%s reports %q, %s", task.Spec.Targets, message, counts(task))
		}
	}
	s.settle()
	asked := a.asked()
	for u := range asked {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Errorf("EdgeOne was asked for %q: %v", u, err)
			continue
		}
		host := strings.TrimSuffix(strings.ToLower(parsed.Hostname()), ".")
		if parsed.User != nil || !isPlain(host) || !isAllowedHost(host) {
			t.Errorf("EdgeOne was asked for %q, whose host is %q", u, host)
		}
	}
	if len(asked) < 20 {
		t.Errorf("EdgeOne was asked for %d URLs only: %v", len(asked), asked)
	}
}

// moveToConfigMap moves the targets of a task to a ConfigMap, which the API server does not
// check.
func (s *scene) moveToConfigMap(task *v1alpha1.PrefetchTask) {
	s.Helper()
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: task.Name}}
	for _, target := range task.Spec.Targets {
		list.Data = map[string]string{"urls": list.Data["urls"] + string(target) + "\n"}
	}
	s.must(s.kube.Create(s.Context(), list))
	task.Spec.Targets = nil
	task.Spec.TargetsFrom.ConfigMapKeyRef = v1alpha1.ConfigMapKeyReference{Name: list.Name, Key: "urls"}
}
