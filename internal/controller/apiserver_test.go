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

// apiServer is a kube-apiserver in memory, as far as the operator uses one: it
// serves PrefetchTasks (get, list, watch, update of the status), Secrets and
// ConfigMaps (get) in the API's own words, with revisions, optimistic locking, generations
// and UIDs. Users change it by its methods.
type apiServer struct {
	mu       sync.Mutex
	revision int64
	tasks    map[client.ObjectKey]*v1alpha1.PrefetchTask
	secrets  map[client.ObjectKey]*corev1.Secret
	lists    map[client.ObjectKey]*corev1.ConfigMap
	events   []taskEvent   // of all revisions, in order
	changed  chan struct{} // closed at the next event

	// onStatus sees every status write that was applied.
	onStatus func(before, after *v1alpha1.PrefetchTask)
}

type taskEvent struct {
	revision int64
	kind     string // as in a watch
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

// store writes an object as it would be read back: without what JSON does not
// carry.
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

// create makes a new object and returns it.
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

// restore stores an object as it is, status and all, as a restore of etcd does.
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

// touch is a write of something that is no concern of the operator, such as an
// annotation.
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

// updateStatus is a PUT of the status: only that is taken, and only if nobody
// has written since.
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
		return now, nil // a write that changes nothing makes no revision
	}
	stored := s.store("MODIFIED", after)
	s.onStatus(now, stored)
	return stored, nil
}

func conflict(key client.ObjectKey) error {
	return apierrors.NewConflict(controllertest.PrefetchTasks, key.Name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// since returns the events after a revision, and what is closed at the next.
func (s *apiServer) since(revision int64) ([]taskEvent, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.events, revision+1, func(e taskEvent, r int64) int { return int(e.revision - r) })
	return s.events[i:], s.changed
}

// link is what a process has to the world. Cut, the process is gone: nothing of
// it has an effect any more, except for requests that were sent before. Paused,
// the process stands still where it sends a request or receives an answer.
type link struct {
	cut     chan struct{}
	started chan struct{}   // closed when the process has filled its cache
	strays  *sync.WaitGroup // requests under way, of all processes: they end later than those

	mu      sync.Mutex
	resumed chan struct{} // nil unless paused
	armed   bool          // to pause once a claim is written
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

// pass returns when the process may go on.
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

// pauseAfterClaim lets the process stand still between its next claim and the
// call.
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

// await waits for an answer as a transport does. What is under way goes on
// without a caller that gives up.
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

// apiFaults decides what befalls requests to the API server.
type apiFaults interface {
	// request is asked once for each request but those for Secrets.
	request(verb string, key client.ObjectKey) apiFault
	// secret says whether the reading of a Secret fails.
	secret(key client.ObjectKey) error
	// down says whether the server cannot be reached at all.
	down() bool
	// event says how late a watch delivers an event, and how it ends after it:
	// by io.EOF, by errExpired, or not at all.
	event(process string) (late time.Duration, end error)
}

// apiFault is what befalls one request.
type apiFault struct {
	there, back time.Duration // how long request and answer are under way
	refuse      error         // answered instead of doing it
	lose        bool          // the answer
}

var errExpired = apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")

// apiConnection is a process's way to the API server.
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
			// A manager cannot be stopped before it has seen a list: to one that
			// is gone, this is the only answer.
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
		// The Submitter reads Secrets with a mutex held, so in a bubble no time
		// may pass meanwhile.
		key := client.ObjectKey{Namespace: path[3], Name: path[5]}
		if err := c.faults.secret(key); err != nil {
			return answer(req, nil, err), nil
		}
		secret, err := c.server.getSecret(key)
		return answer(req, secret, err), nil
	}
	list := path[0] == "api" && len(path) == 6 && path[4] == "configmaps" // as for Secrets
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

// answer is an object or an error in HTTP.
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

// watchTask answers with a stream of events, which starts with these objects or,
// without any, with all.
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

// watchStream is the body of a watch's answer.
type watchStream struct {
	*apiConnection
	ctx      context.Context
	revision int64 // delivered so far
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

// Read delivers events one by one, each as late as the faults say.
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
