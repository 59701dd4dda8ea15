package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	accounts "github.com/prefetch-operator/teo-prefetch-operator/internal/account"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	recheck           = 30 * time.Second
	operatorNamespace = "teo-prefetch-system"
)

// world is a controller of accounts in virtual time, with a fake API server and a simulated
// EdgeOne.
type world struct {
	*testing.T
	client   client.Client
	store    *accounts.Store
	usage    *accounts.Usage
	answers  *accounts.Answers
	edgeOne  *simulator.Simulator
	teo      *teo.Client
	r        *Reconciler
	sts      *sts.Client
	token    string // the file with the operator's token
	issuer   *ststest.Issuer
	critical context.CancelFunc
	queue    workqueue.TypedRateLimitingInterface[string]
	stop     func()

	mu     sync.Mutex
	writes []time.Time // of statuses
	events []string
	onPut  func() error // what the next writes of a status return, if not nil
}

// inWorld runs f with a controller of these accounts.
func inWorld(t *testing.T, f func(w *world), objects ...*v1alpha1.EdgeOneAccount) {
	t.Helper()
	inWorldAfter(t, func(*world) {}, f, objects...)
}

// inWorldAfter is inWorld, and calls prepare before the controller starts.
func inWorldAfter(t *testing.T, prepare, f func(w *world), objects ...*v1alpha1.EdgeOneAccount) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, issuer: ststest.NewIssuer(t)}
		w.edgeOne = controllertest.NewEdgeOne(func(c *simulator.Config) { *c = w.issuer.Configure(*c, "a") })
		w.token = w.issuer.WriteToken(w.issuer.Token(map[string]any{"exp": time.Now().Add(100 * time.Hour).Unix()}))
		scheme := runtime.NewScheme()
		w.must(errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
		w.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.EdgeOneAccount{}).
			WithInterceptorFuncs(interceptor.Funcs{SubResourceUpdate: w.update}).Build()
		var err error
		w.teo, err = teo.NewClient(teo.Options{Transport: w.edgeOne.RoundTripper()})
		w.must(err)
		w.sts, err = sts.NewClient(teo.Options{Endpoint: "https://sts.intl.tencentcloudapi.com", Transport: w.edgeOne.RoundTripper()})
		w.must(err)
		w.setKey(controllertest.Creds.SecretKey)
		for _, account := range objects {
			w.must(w.client.Create(t.Context(), account))
		}
		prepare(w)
		w.start()
		f(w)
		w.stop()
	})
}

// update is the interceptor of status writes.
func (w *world) update(ctx context.Context, c client.Client, _ string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
	w.mu.Lock()
	onPut := w.onPut
	w.mu.Unlock()
	if onPut != nil {
		if err := onPut(); err != nil {
			return err
		}
	}
	if err := c.SubResource("status").Update(ctx, obj, opts...); err != nil {
		return err
	}
	w.mu.Lock()
	w.writes = append(w.writes, time.Now())
	w.mu.Unlock()
	w.watch(obj.GetName())
	return nil
}

// watch shows the current version of an account to the store.
func (w *world) watch(name string) {
	if account := w.get(name); account != nil {
		w.store.SetAccount(account)
	} else {
		w.store.DeleteAccount(name)
	}
}

// start starts a process: nothing in memory, and what the API server has.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	critical, endCalls := context.WithCancel(context.Background())
	w.critical = endCalls
	w.usage, w.answers = accounts.NewUsage(0), accounts.NewAnswers()
	w.store = accounts.NewStore(w.usage)
	keys := &credentials.Reader{Live: w.client, MaxAge: recheck, Accounts: w.store.Account, Identity: credentials.Identity{
		Context: ctx, Namespace: operatorNamespace, STS: w.sts, WebIdentity: sts.WebIdentity{ProviderID: ststest.ProviderID, TokenFile: w.token},
	}}
	w.store.Subscribe(keys.OnAccountChange)
	w.r = NewReconciler(Config{
		Client: w.client, Live: w.client, Events: recorder{w: w}, Accounts: w.store, Answers: w.answers,
		Credentials: keys, EdgeOne: w.teo, Critical: critical,
		Batch: 500, RecheckInterval: recheck, WriteTimeout: 10 * time.Second,
	})
	var list v1alpha1.EdgeOneAccountList
	w.must(w.client.List(w.Context(), &list))
	for i := range list.Items {
		w.watch(list.Items[i].Name)
	}
	w.usage.Seal()
	w.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	w.r.UseQueue(w.queue)
	var running sync.WaitGroup
	running.Go(func() { w.must(flusher{w.r}.Start(ctx)) })
	running.Go(func() {
		for {
			name, isDown := w.queue.Get()
			if isDown {
				return
			}
			result, err := w.r.Reconcile(ctx, name)
			w.must(err)
			if result.RequeueAfter > 0 {
				w.queue.AddAfter(name, result.RequeueAfter)
			}
			w.queue.Done(name)
		}
	})
	w.stop = func() {
		cancel()
		w.queue.ShutDown()
		endCalls()
		running.Wait()
	}
}

// recorder keeps Events as text.
type recorder struct {
	events.EventRecorder
	w *world
}

func (r recorder) Eventf(regarding, _ runtime.Object, eventType, reason, _, note string, args ...any) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.events = append(r.w.events, regarding.(client.Object).GetName()+" "+eventType+" "+reason+": "+fmt.Sprintf(note, args...))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// setKey writes the Secret "main", or deletes it if key is "".
func (w *world) setKey(key string) {
	w.Helper()
	w.setSecret("main", key)
}

func (w *world) setSecret(name, key string) {
	w.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}}
	w.must(client.IgnoreNotFound(w.client.Delete(context.Background(), secret)))
	if key != "" {
		secret.Data = map[string][]byte{"secretId": []byte(controllertest.Creds.SecretID), "secretKey": []byte(key)}
		w.must(w.client.Create(context.Background(), secret))
	}
}

// newAccount returns an account with these zones.
func newAccount(zones ...string) *v1alpha1.EdgeOneAccount {
	account := &v1alpha1.EdgeOneAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "main", UID: "uid-1", Generation: 1},
		Spec:       v1alpha1.EdgeOneAccountSpec{Credentials: v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "main"}}},
		Status:     v1alpha1.EdgeOneAccountStatus{ObservedGeneration: -1},
	}
	for _, zone := range zones {
		account.Spec.Zones = append(account.Spec.Zones, v1alpha1.AccountZone{ID: zone})
	}
	return account
}

// get returns an account, or nil.
func (w *world) get(name string) *v1alpha1.EdgeOneAccount {
	w.Helper()
	account := &v1alpha1.EdgeOneAccount{}
	err := w.client.Get(context.Background(), client.ObjectKey{Name: name}, account)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.must(err)
	return account
}

// edit changes the spec of the account.
func (w *world) edit(change func(*v1alpha1.EdgeOneAccountSpec)) {
	w.Helper()
	account := w.get("main")
	change(&account.Spec)
	account.Generation++
	w.must(w.client.Update(w.Context(), account))
	w.watch("main")
}

// use lets the tasks of a namespace use URLs of a zone.
func (w *world) use(namespace, zone string, urls int) *v1alpha1.PrefetchTask {
	w.mu.Lock()
	n := len(w.writes)
	w.mu.Unlock()
	id := fmt.Sprintf("%s-%s-%d-%d", namespace, zone, n, time.Now().UnixNano())
	task := &v1alpha1.PrefetchTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "task", UID: types.UID(id)}}
	task.Spec.ZoneID, task.Spec.AccountRef.Name = zone, "main"
	task.Status.Jobs = []v1alpha1.Job{{
		ID: id, ClaimID: id, Positions: taskstate.AllPositions(urls).String(), SubmitTime: metav1.Now(),
	}}
	w.usage.OnTaskChange(nil, task)
	return task
}

// says checks a condition of the account. A status of "" means that there is none.
func (w *world) says(conditionType string, status metav1.ConditionStatus, reason string, words ...string) {
	w.Helper()
	synctest.Wait()
	account := w.get("main")
	got := meta.FindStatusCondition(account.Status.Conditions, conditionType)
	switch {
	case got == nil && status == "":
		return
	case got == nil:
		w.Errorf("there is no condition %s", conditionType)
		return
	case got.Status != status || got.Reason != reason:
		w.Errorf("%s is %s (%s: %s), want %q (%s)", conditionType, got.Status, got.Reason, got.Message, status, reason)
	case got.ObservedGeneration != account.Generation || account.Status.ObservedGeneration != account.Generation:
		w.Errorf("%s is about generation %d of %d", conditionType, got.ObservedGeneration, account.Generation)
	}
	for _, text := range words {
		if !strings.Contains(got.Message, text) {
			w.Errorf("%s says %q, without %q", conditionType, got.Message, text)
		}
	}
}

// countWrites returns how many statuses were written.
func (w *world) countWrites() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writes)
}

// sent checks that the Events so far start like these.
func (w *world) sent(want ...string) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.EqualFunc(w.events, want, strings.HasPrefix) {
		w.Errorf("the Events are %q, want %q", w.events, want)
	}
}

// countCalls returns how many calls of an action EdgeOne got.
func (w *world) countCalls(action string) (n int) {
	for _, call := range w.edgeOne.Calls() {
		if call.Action == action {
			n++
		}
	}
	return n
}
