package kube

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pagesOf returns an API server whose list has n pages. It counts the requests in asked.
// If fail is set, it can make the request for a page fail.
func pagesOf(n int, asked *atomic.Int32, fail func(page int) error) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		asked.Add(1)
		var page int
		if token := req.URL.Query().Get("continue"); token != "" {
			if _, err := fmt.Sscanf(token, "page-%d", &page); err != nil {
				return nil, err
			}
		}
		if fail != nil {
			if err := fail(page); err != nil {
				return nil, err
			}
		}
		body := fmt.Sprintf(`{"apiVersion":"v1","items":[{"metadata":{"name":"%d"}}],"kind":"List","metadata":{"resourceVersion":"7"}}`, page)
		if page < n-1 {
			body = strings.Replace(body, `{"resourceVersion"`, fmt.Sprintf(`{"continue":"page-%d","resourceVersion"`, page+1), 1)
		}
		w := httptest.NewRecorder()
		_, err := io.WriteString(w, body)
		return w.Result(), err
	})
}

// askFor makes a request and returns the body of the response.
func askFor(t *testing.T, to http.RoundTripper, path, query string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api/"+path+"?"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := to.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestTheNextPageIsAskedForWhileOneIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ahead := NewReadAhead(pagesOf(3, &asked, nil))
		for i, query := range []string{"limit=1", "continue=page-1&limit=1", "continue=page-2&limit=1"} {
			if body := askFor(t, ahead, "prefetchtasks", query); !strings.Contains(body, fmt.Sprintf(`"name":"%d"`, i)) {
				t.Errorf("page %d is %s", i, body)
			}
			synctest.Wait()
			if n := int(asked.Load()); n != min(i+2, 3) {
				t.Errorf("%d pages are asked for after page %d was read", n, i)
			}
		}
		if waiting := len(ahead.(*readAhead).next); waiting != 0 {
			t.Errorf("%d pages are kept", waiting)
		}
	})
}

func TestNothingIsReadAheadOfWhatHasNoPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ahead := NewReadAhead(pagesOf(3, &asked, nil))
		for i, request := range [][2]string{{"prefetchtasks", ""}, {"prefetchtasks", "limit=1&watch=true"}, {"secrets", "limit=1"}, {"prefetchtasks/a", "limit=1"}} {
			askFor(t, ahead, request[0], request[1])
			synctest.Wait()
			if n := int(asked.Load()); n != i+1 {
				t.Errorf("%v: %d requests instead of 1", request, n-i)
			}
		}
	})
}

func TestAListThatBeginsAgainDoesNotGetThePageOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ahead := NewReadAhead(pagesOf(3, &asked, nil))
		askFor(t, ahead, "prefetchtasks", "limit=1")
		for _, query := range []string{"limit=1", "continue=page-2&limit=1"} {
			want := map[string]string{"limit=1": `"name":"0"`, "continue=page-2&limit=1": `"name":"2"`}[query]
			if body := askFor(t, ahead, "prefetchtasks", query); !strings.Contains(body, want) {
				t.Errorf("%s: %s", query, body)
			}
		}
		if body := askFor(t, ahead, "namespaces/a/prefetchtasks", "continue=page-1&limit=1"); !strings.Contains(body, `"name":"1"`) {
			t.Error(body)
		}
	})
}

func TestAPageThatCouldNotBeReadAheadIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		failed := false
		ahead := NewReadAhead(pagesOf(3, &asked, func(page int) error {
			if page == 1 && !failed {
				failed = true
				return io.ErrUnexpectedEOF
			}
			return nil
		}))
		askFor(t, ahead, "prefetchtasks", "limit=1")
		if body := askFor(t, ahead, "prefetchtasks", "continue=page-1&limit=1"); !strings.Contains(body, `"name":"1"`) || !failed {
			t.Error(body)
		}
	})
}

// A list returns the tasks of a namespace together. So a page with the usual number of
// tasks can suddenly have hundreds of large tasks.
func TestAPageOfLargeTasksHasFewerOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const small, large = 100, 1 << 20
		sizes := slices.Concat(slices.Repeat([]int{small}, 3000), slices.Repeat([]int{large}, 60), slices.Repeat([]int{small}, 3000))
		var most, requests int
		api := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			query := req.URL.Query()
			from, _ := strconv.Atoi(query.Get("continue")) // 0 for the first page
			limit, err := strconv.Atoi(query.Get("limit"))
			if err != nil {
				return nil, err
			}
			to := min(from+limit, len(sizes))
			items := make([]io.Reader, 0, to-from)
			for i, size := range sizes[from:to] {
				items = append(items, io.LimitReader(padding{}, int64(size)), strings.NewReader(fmt.Sprintf("<%d>", from+i)))
			}
			end := `{"metadata":{"resourceVersion":"7"}}`
			if to < len(sizes) {
				end = fmt.Sprintf(`{"metadata":{"continue":"%d","resourceVersion":"7"}}`, to)
			}
			requests++
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(io.MultiReader(append(items, strings.NewReader(end))...))}, nil
		})
		ahead, next, query := NewReadAhead(api), 0, "limit=1000"
		for query != "" {
			body := askFor(t, ahead, "prefetchtasks", query)
			most = max(most, len(body))
			if !strings.Contains(body, fmt.Sprintf("<%d>", next)) {
				t.Fatalf("task %d is missing", next)
			}
			next += strings.Count(body, "<")
			end := continues.FindStringSubmatch(body)
			if query = ""; end != nil {
				query = "continue=" + end[1] + "&limit=1000"
			}
			synctest.Wait()
		}
		if next != len(sizes) || most > maxPage {
			t.Errorf("%d tasks of %d were read, a page had up to %d bytes", next, len(sizes), most)
		}
		t.Logf("%d requests, pages of up to %d bytes", requests, most)
		if requests > 40 {
			t.Errorf("%d requests for 6,000 small and 60 large tasks", requests)
		}
	})
}

// padding is an endless reader.
type padding struct{}

func (padding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '-'
	}
	return len(p), nil
}

func TestFewPagesAreKeptAndNoneForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		ahead := NewReadAhead(pagesOf(3, &asked, nil)).(*readAhead)
		for namespace := range 100 {
			if body := askFor(t, ahead, fmt.Sprintf("namespaces/%d/prefetchtasks", namespace), "limit=1"); !strings.Contains(body, `"name":"0"`) {
				t.Fatal(body)
			}
		}
		kept := func() int {
			ahead.mu.Lock()
			defer ahead.mu.Unlock()
			return len(ahead.next)
		}
		synctest.Wait()
		if asked, kept := asked.Load(), kept(); asked != 100+maxAhead || kept != maxAhead {
			t.Errorf("%d pages were asked for, and %d are kept", asked, kept)
		}
		time.Sleep(2*pageTimeout + time.Second)
		synctest.Wait()
		if n := kept(); n != 0 {
			t.Errorf("%d pages are kept of lists that ended early", n)
		}
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
