package endpoint

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
)

// The bounds on the requests that clients cause at the API server. docs/security.md
// documents them.
const (
	// reviewTimeout bounds the TokenReview and the SubjectAccessReview of a client
	// together.
	reviewTimeout = 10 * time.Second
	// allowedFor and refusedFor are how long the verdict on a token is cached.
	allowedFor, refusedFor = time.Minute, 10 * time.Second
	// maxVerdicts is how many verdicts are cached. maxAddresses is how many addresses
	// have a rate limiter of their own. The least recently used are dropped.
	maxVerdicts, maxAddresses = 1024, 1024
	// How many tokens per second are reviewed, and how many at once after a pause. The
	// first pair is for all addresses together. The second pair is for each address, so
	// that one address cannot use up the reviews of the others.
	reviewsPerSecond, reviewBurst               = 10, 20
	addressReviewsPerSecond, addressReviewBurst = 1, 5
)

// access decides who may read the metrics. It delegates the decision to the API server: a
// TokenReview authenticates the bearer of a token, and a SubjectAccessReview says whether
// they may get /metrics. A request without a token causes no request to the API server.
type access struct {
	apiServer kubernetes.Interface
	log       logr.Logger

	verdicts  *cache.LRUExpireCache // verdict, by the SHA-256 of the token
	reviews   *rate.Limiter         // for all addresses together
	mu        sync.Mutex            // guards addresses
	addresses *cache.LRUExpireCache // *rate.Limiter, by IP address
}

// verdict is the response to a request: status 200 if the client may read the metrics, or
// else the status and text of the refusal.
type verdict struct {
	status int
	text   string
}

func newAccess(apiServer kubernetes.Interface) *access {
	return &access{
		apiServer: apiServer,
		log:       ctrl.Log.WithName("endpoint").WithValues("server", "metrics"),
		verdicts:  cache.NewLRUExpireCache(maxVerdicts),
		reviews:   rate.NewLimiter(reviewsPerSecond, reviewBurst),
		addresses: cache.NewLRUExpireCache(maxAddresses),
	}
}

// guard returns a handler that passes only permitted requests to next.
func (a *access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := a.judge(r); v.status != http.StatusOK {
			a.log.V(1).Info("Refused to serve metrics", "status", v.status, "reason", v.text, "address", r.RemoteAddr)
			http.Error(w, v.text, v.status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// judge returns the verdict on a request. It asks the API server only about tokens
// without a cached verdict. It does not cache failures of the API server.
func (a *access) judge(r *http.Request) verdict {
	if r.Method != http.MethodGet {
		return verdict{http.StatusMethodNotAllowed, "Method not allowed"}
	}
	token := bearerToken(r)
	if token == "" {
		return verdict{http.StatusUnauthorized, "Unauthorized"}
	}
	key := sha256.Sum256([]byte(token))
	if known, ok := a.verdicts.Get(key); ok {
		return known.(verdict)
	}
	if !a.mayAsk(r.RemoteAddr) {
		return verdict{http.StatusTooManyRequests, "Too many unknown tokens"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	v, err := a.review(ctx, token)
	if err != nil {
		a.log.V(1).Info("Cannot ask the API server about a reader of the metrics", "error", err.Error())
		return verdict{http.StatusServiceUnavailable, "The API server cannot say who you are"}
	}
	kept := refusedFor
	if v.status == http.StatusOK {
		kept = allowedFor
	}
	a.verdicts.Add(key, v, kept)
	return v
}

// bearerToken returns the token of the request, by the same rules as the API server, or
// "".
func bearerToken(r *http.Request) string {
	scheme, credentials, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	token, _, _ := strings.Cut(credentials, " ")
	return token
}

// mayAsk counts a review against both rate limits, and says whether they allow it.
func (a *access) mayAsk(remote string) bool {
	address, _, err := net.SplitHostPort(remote)
	if err != nil {
		address = remote
	}
	return a.limiterOf(address).Allow() && a.reviews.Allow()
}

// limiterOf returns the rate limiter of an address.
func (a *access) limiterOf(address string) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.addresses.Get(address); ok {
		return known.(*rate.Limiter)
	}
	limiter := rate.NewLimiter(addressReviewsPerSecond, addressReviewBurst)
	a.addresses.Add(address, limiter, time.Hour)
	return limiter
}

// review asks the API server about a token. An error means that the API server did not
// answer; it says nothing about the token.
func (a *access) review(ctx context.Context, token string) (verdict, error) {
	ctx = logr.NewContext(ctx, logr.Discard()) // otherwise client-go logs the token at level 8
	who, err := a.apiServer.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return verdict{}, err
	}
	if !who.Status.Authenticated {
		return verdict{http.StatusUnauthorized, "Unauthorized"}, nil
	}
	user := who.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, value := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(value)
	}
	may, err := a.apiServer.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: metricsPath, Verb: "get"},
			User:                  user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return verdict{}, err
	}
	if !may.Status.Allowed || may.Status.Denied {
		return verdict{http.StatusForbidden, fmt.Sprintf("User %s may not get %s", user.Username, metricsPath)}, nil
	}
	return verdict{http.StatusOK, ""}, nil
}
