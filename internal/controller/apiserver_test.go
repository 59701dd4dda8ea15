package controller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/controller/controllertest"
)

// apiServer is an in-memory kube-apiserver with the features that the operator uses. It serves
// PrefetchTasks (get, list, watch, update of the status), Secrets and ConfigMaps (get) in the
// wire format of the API, with revisions, optimistic locking, generations and UIDs. Tests call
// its methods to act as users.
type apiServer struct {
	mu       sync.Mutex
	revision int64
	tasks    map[client.ObjectKey]*v1alpha1.PrefetchTask
	secrets  map[client.ObjectKey]*corev1.Secret
	lists    map[client.ObjectKey]*corev1.ConfigMap
	events   []taskEvent   // all events, in the order of their revisions
	changed  chan struct{} // closed by the next event

	// onStatus is called after every applied status write.
	onStatus func(before, after *v1alpha1.PrefetchTask)
}

type taskEvent struct {
	revision int64
	kind     string // the event type, as in a watch
	task     *v1alpha1.PrefetchTask
}

func newAPIServer() *apiServer {
	return &apiServer{
		revision: 1000,
		tasks:    map[client.ObjectKey]*v1alpha1.PrefetchTask{},
		secrets:  map[client.ObjectKey]*corev1.Secret{},
		lists:    map[client.ObjectKey]*corev1.ConfigMap{},
		changed:  make(chan struct{}),
	}
}

// store writes an object as a client would read it back: JSON drops some details. The caller
// passes the type of the event.
func (s *apiServer) store(kind string, task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	s.revision++
	task.ResourceVersion = strconv.FormatInt(s.revision, 10)
	task.APIVersion, task.Kind = v1alpha1.GroupVersion.String(), "PrefetchTask"
	raw, err := json.Marshal(task)
	stored := &v1alpha1.PrefetchTask{}
	if err = errors.Join(err, json.Unmarshal(raw, stored)); err != nil {
		panic(err)
	}
	key := client.ObjectKeyFromObject(stored)
	if s.tasks[key] = stored; kind == "DELETED" {
		delete(s.tasks, key)
	}
	s.events = append(s.events, taskEvent{s.revision, kind, stored})
	close(s.changed)
	s.changed = make(chan struct{})
	return stored
}

// create stores a new object and returns it.
func (s *apiServer) create(task *v1alpha1.PrefetchTask) *v1alpha1.PrefetchTask {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[client.ObjectKeyFromObject(task)] != nil {
		panic("exists already: " + task.Name)
	}
	task = task.DeepCopy()
	task.UID = types.UID(fmt.Sprintf("uid-%d", s.revision))
	task.Generation = 1
	task.CreationTimestamp = metav1.NewTime(time.Now().Truncate(time.Second))
	task.Status = v1alpha1.PrefetchTaskStatus{ObservedGeneration: -1}
	return s.store("ADDED", task)
}

// restore stores an object unchanged, with its status, as a restore of etcd does.
func (s *apiServer) restore(task *v1alpha1.PrefetchTask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store("ADDED", task.DeepCopy())
}

// edit changes an object's spec.
func (s *apiServer) edit(key client.ObjectKey, change func(*v1alpha1.PrefetchTaskSpec)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	task := s.tasks[key].DeepCopy()
	change(&task.Spec)
	task.Generation++
	s.store("MODIFIED", task)
}

// touch writes something that does not matter to the operator, such as an annotation.
func (s *apiServer) touch(key client.ObjectKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if task := s.tasks[key]; task != nil {
		s.store("MODIFIED", task.DeepCopy())
	}
}

// annotate sets an annotation.
func (s *apiServer) annotate(key client.ObjectKey, name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	task := s.tasks[key].DeepCopy()
	metav1.SetMetaDataAnnotation(&task.ObjectMeta, name, value)
	s.store("MODIFIED", task)
}

func (s *apiServer) delete(key client.ObjectKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store("DELETED", s.tasks[key].DeepCopy())
}

func (s *apiServer) get(key client.ObjectKey) *v1alpha1.PrefetchTask {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tasks[key]
}

// list returns all objects in a fixed order.
func (s *apiServer) list() []*v1alpha1.PrefetchTask {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.tasks), func(a, b *v1alpha1.PrefetchTask) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}

// setSecret writes a Secret, or removes it if data is nil.
func (s *apiServer) setSecret(key client.ObjectKey, data map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.secrets, key); data != nil {
		s.secrets[key] = &corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Data:       data,
		}
	}
}

func (s *apiServer) getSecret(key client.ObjectKey) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if secret := s.secrets[key]; secret != nil {
		return secret, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
}

// setList writes a ConfigMap with the key "urls", or removes it if text is empty.
func (s *apiServer) setList(key client.ObjectKey, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.lists, key); text != "" {
		s.lists[key] = &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Data:       map[string]string{"urls": text},
		}
	}
}

func (s *apiServer) getList(key client.ObjectKey) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.lists[key]; list != nil {
		return list, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), key.Name)
}

func (s *apiServer) getTask(key client.ObjectKey) (any, error) {
	if task := s.get(key); task != nil {
		return task, nil
	}
	return nil, apierrors.NewNotFound(controllertest.PrefetchTasks, key.Name)
}

func (s *apiServer) listTasks() (any, error) {
	list := &v1alpha1.PrefetchTaskList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PrefetchTaskList"}}
	for _, task := range s.list() {
		list.Items = append(list.Items, *task)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list.ResourceVersion = strconv.FormatInt(s.revision, 10)
	return list, nil
}

// updateStatus handles a PUT of the status. It ignores all other fields. It returns a conflict
// if the object has changed since the caller read it.
func (s *apiServer) updateStatus(key client.ObjectKey, body []byte) (any, error) {
	var put v1alpha1.PrefetchTask
	if err := json.Unmarshal(body, &put); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.tasks[key]
	switch {
	case now == nil:
		return nil, apierrors.NewNotFound(controllertest.PrefetchTasks, key.Name)
	case put.UID != now.UID || put.ResourceVersion != now.ResourceVersion:
		return nil, conflict(key)
	}
	after := now.DeepCopy()
	after.Status = put.Status
	if equality.Semantic.DeepEqual(now.Status, after.Status) {
		return now, nil // a write without changes creates no revision
	}
	stored := s.store("MODIFIED", after)
	s.onStatus(now, stored)
	return stored, nil
}

func conflict(key client.ObjectKey) error {
	return apierrors.NewConflict(controllertest.PrefetchTasks, key.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// since returns the events after a revision, and a channel that the next event closes.
func (s *apiServer) since(revision int64) ([]taskEvent, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.events, revision+1, func(e taskEvent, r int64) int { return int(e.revision - r) })
	return s.events[i:], s.changed
}

// link is the network connection of a process. When it is cut, the process is gone: nothing that
// the process does has an effect, except for requests that it sent before. When it is paused,
// the process blocks wherever it sends a request or receives a response.
type link struct {
	cut     chan struct{}
	started chan struct{}   // closed when the process has filled its cache
	strays  *sync.WaitGroup // requests in transit of all processes; they can outlive their process

	mu      sync.Mutex
	resumed chan struct{} // nil unless paused
	armed   bool          // pause after the next claim
}

var errCut = errors.New("the process is gone")

func newLink(strays *sync.WaitGroup) *link {
	return &link{cut: make(chan struct{}), started: make(chan struct{}), strays: strays}
}

func (l *link) gone() bool { return isClosed(l.cut) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pass blocks while the process is paused. It returns errCut if the process is gone.
func (l *link) pass() error {
	for {
		l.mu.Lock()
		resumed := l.resumed
		l.mu.Unlock()
		if l.gone() {
			return errCut
		}
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-l.cut:
		}
	}
}

// pauseAfterClaim pauses the process between its next claim and the call.
func (l *link) pauseAfterClaim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = true
}

func (l *link) claimed() {
	l.mu.Lock()
	armed := l.armed
	l.mu.Unlock()
	if armed {
		l.pause()
	}
}

func (l *link) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.armed = false; l.resumed == nil {
		l.resumed = make(chan struct{})
	}
}

func (l *link) paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resumed != nil
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	if l.resumed != nil {
		close(l.resumed)
		l.resumed = nil
	}
}

// await waits for a response as a transport does. A request in transit continues if its caller
// gives up.
func (l *link) await(ctx context.Context, work func() (*http.Response, error)) (*http.Response, error) {
	type result struct {
		response *http.Response
		err      error
	}
	done := make(chan result, 1)
	l.strays.Go(func() {
		response, err := work()
		done <- result{response, err}
	})
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = ctx.Err()
	case <-l.cut:
		r.err = errCut
	}
	if err := l.pass(); err != nil {
		return nil, err
	}
	return r.response, r.err
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
}

// apiFaults decides which requests to the API server fail, and how.
type apiFaults interface {
	// request is called once for each request, except for reads of Secrets.
	request(verb string, key client.ObjectKey) apiFault
	// secret returns the error of reading a Secret, or nil.
	secret(key client.ObjectKey) error
	// down reports whether the server is unreachable.
	down() bool
	// event returns how late a watch delivers an event, and how the watch ends after
	// it: with io.EOF, with errExpired, or not at all (nil).
	event(process string) (late time.Duration, end error)
}

// apiFault describes what happens to one request.
type apiFault struct {
	there, back time.Duration // transit times of request and response
	refuse      error         // returned without serving the request
	lose        bool          // the response is lost
}

var errExpired = apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")

// apiConnection connects a process to the API server.
type apiConnection struct {
	*link
	server  *apiServer
	faults  apiFaults
	process string
}

// RoundTrip serves one request of the operator.
func (c *apiConnection) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		_ = req.Body.Close()
	}
	watching := req.URL.Query().Get("watch") != ""
	if err := c.pass(); err != nil {
		if watching && !isClosed(c.started) {
			// A manager can only be stopped after it has received a list. A
			// process that is gone gets an empty list and nothing else.
			return c.watch(req, map[client.ObjectKey]*v1alpha1.PrefetchTask{}), nil
		}
		return nil, err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	if c.faults.down() {
		return nil, refused()
	}
	if path[0] == "api" && len(path) == 6 && path[4] == "secrets" { // /api/v1/namespaces/NS/secrets/NAME
		// Reads of Secrets take no time in the bubble.
		key := client.ObjectKey{Namespace: path[3], Name: path[5]}
		if err := c.faults.secret(key); err != nil {
			return answer(req, nil, err), nil
		}
		secret, err := c.server.getSecret(key)
		return answer(req, secret, err), nil
	}
	list := path[0] == "api" && len(path) == 6 && path[4] == "configmaps" // the path has the form of a Secret's path
	if !list && (path[0] != "apis" || path[1] != v1alpha1.GroupVersion.Group) {
		return answer(req, nil, apierrors.NewNotFound(corev1.Resource("path"), req.URL.Path)), nil
	}
	verb, key := "LIST", client.ObjectKey{}
	var serve func() (any, error)
	switch path := path[3:]; { // namespaces/NS/prefetchtasks/NAME[/status] or prefetchtasks
	case list:
		verb, key = "READ", client.ObjectKey{Namespace: path[0], Name: path[2]}
		serve = func() (any, error) { return c.server.getList(key) }
	case watching:
		verb = "WATCH"
	case len(path) == 1:
		serve = c.server.listTasks
	case len(path) == 4 && req.Method == http.MethodGet:
		verb, key = "GET", client.ObjectKey{Namespace: path[1], Name: path[3]}
		serve = func() (any, error) { return c.server.getTask(key) }
	case len(path) == 5 && path[4] == "status" && req.Method == http.MethodPut:
		verb, key = "PUT", client.ObjectKey{Namespace: path[1], Name: path[3]}
		serve = func() (any, error) { return c.server.updateStatus(key, body) }
	default:
		return answer(req, nil, apierrors.NewMethodNotSupported(controllertest.PrefetchTasks, req.Method+" "+req.URL.Path)), nil
	}
	fault := c.faults.request(verb, key)
	return c.await(req.Context(), func() (*http.Response, error) {
		time.Sleep(fault.there)
		if c.faults.down() {
			return nil, reset()
		}
		if fault.refuse != nil {
			return answer(req, nil, fault.refuse), nil
		}
		if watching {
			return c.watch(req, nil), nil
		}
		object, err := serve()
		if verb == "PUT" && err == nil && bytes.Contains(body, []byte(`"submission"`)) {
			c.claimed()
		}
		time.Sleep(fault.back)
		if fault.lose || c.faults.down() {
			return nil, reset()
		}
		return answer(req, object, err), nil
	})
}

// answer returns the HTTP response for an object or an error.
func answer(req *http.Request, object any, err error) *http.Response {
	code := http.StatusOK
	header := http.Header{"Content-Type": {"application/json"}}
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			status = apierrors.NewInternalError(err)
		}
		s := status.Status()
		s.APIVersion, s.Kind = "v1", "Status"
		code, object = int(s.Code), s
		if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
			header.Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
		}
	}
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(raw)), ContentLength: int64(len(raw)), Request: req,
	}
}

// watch responds with a stream of events. The stream starts with the given objects, or with all
// objects if the map is nil.
func (c *apiConnection) watch(req *http.Request, objects map[client.ObjectKey]*v1alpha1.PrefetchTask) *http.Response {
	query := req.URL.Query()
	w := &watchStream{apiConnection: c, ctx: req.Context(), closed: make(chan struct{})}
	w.revision, _ = strconv.ParseInt(query.Get("resourceVersion"), 10, 64)
	if query.Get("sendInitialEvents") == "true" {
		w.initialEvents(objects)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: w, ContentLength: -1, Request: req,
	}
}

// watchStream is the body of the response to a watch.
type watchStream struct {
	*apiConnection
	ctx      context.Context
	revision int64 // of the last delivered event
	ready    bytes.Buffer
	end      error
	close    sync.Once
	closed   chan struct{}
}

func (w *watchStream) initialEvents(objects map[client.ObjectKey]*v1alpha1.PrefetchTask) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if objects == nil {
		objects = w.server.tasks
	}
	for _, task := range objects {
		w.write("ADDED", task)
	}
	w.revision = w.server.revision
	bookmark := &v1alpha1.PrefetchTask{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PrefetchTask"}}
	bookmark.ResourceVersion = strconv.FormatInt(w.revision, 10)
	bookmark.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	w.write("BOOKMARK", bookmark)
}

func (w *watchStream) write(kind string, object any) {
	raw, err := json.Marshal(map[string]any{"type": kind, "object": object})
	if err != nil {
		panic(err)
	}
	w.ready.Write(append(raw, '\n'))
}

// Read delivers events one by one, each with the delay that the faults return.
func (w *watchStream) Read(p []byte) (int, error) {
	for w.ready.Len() == 0 {
		if w.end != nil {
			return 0, w.end
		}
		events, changed := w.server.since(w.revision)
		wait := make(<-chan time.Time)
		if len(events) > 0 {
			late, end := w.faults.event(w.process)
			w.revision, w.end = events[0].revision, end
			switch {
			case errors.Is(end, errExpired):
				status := errExpired.Status()
				status.APIVersion, status.Kind = "v1", "Status"
				w.write("ERROR", status)
				w.end = io.EOF
			default:
				w.write(events[0].kind, events[0].task)
			}
			changed, wait = nil, time.After(late)
		}
		select {
		case <-changed:
		case <-wait:
		case <-w.ctx.Done():
			return 0, w.ctx.Err()
		case <-w.closed:
			return 0, io.EOF
		case <-w.cut:
			return 0, errCut
		}
		if err := w.pass(); err != nil {
			return 0, err
		}
		if w.faults.down() {
			return 0, io.EOF
		}
	}
	return w.ready.Read(p)
}

func (w *watchStream) Close() error {
	w.close.Do(func() { close(w.closed) })
	return nil
}
