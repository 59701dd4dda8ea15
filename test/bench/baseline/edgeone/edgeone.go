// Package edgeone is the client of the baselines: the vendor's own Go SDK with a rate
// limiter.
package edgeone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
	teo "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo/v20220901"
	"golang.org/x/time/rate"
)

// callsPerSecond is EdgeOne's limit for an action of an account. The token buckets have a
// size of 1. With a size of 20, they would allow 40 calls in the first second.
const callsPerSecond = 20

// Client calls EdgeOne.
type Client struct {
	sdk             *teo.Client
	create, lookups *rate.Limiter
}

// New returns a client that uses the credentials in the environment. It is safe for
// concurrent use. retries is the number of times that the SDK repeats a throttled call,
// after 1, 2, 4, … seconds.
func New(endpoint string, retries int) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	p := profile.NewClientProfile()
	p.HttpProfile.Endpoint, p.HttpProfile.Scheme = u.Host, u.Scheme
	p.RateLimitExceededMaxRetries, p.RateLimitExceededRetryDuration = retries, profile.ExponentialBackoff
	sdk, err := teo.NewClient(common.NewCredential(os.Getenv("TENCENTCLOUD_SECRET_ID"), os.Getenv("TENCENTCLOUD_SECRET_KEY")), "", p)
	if err != nil {
		return nil, err
	}
	// By default, Go keeps only two idle connections per host.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = callsPerSecond
	sdk.WithHttpTransport(transport)
	return &Client{sdk, rate.NewLimiter(callsPerSecond, 1), rate.NewLimiter(callsPerSecond, 1)}, nil
}

// Prefetch submits URLs and returns the JobId.
func (c *Client) Prefetch(ctx context.Context, zoneID string, urls []string, headers map[string]string) (jobID string, err error) {
	if err := c.create.Wait(ctx); err != nil {
		return "", err
	}
	request := teo.NewCreatePrefetchTaskRequest()
	request.ZoneId, request.Targets = &zoneID, common.StringPtrs(urls)
	for name, value := range headers {
		request.Headers = append(request.Headers, &teo.Header{Name: &name, Value: &value})
	}
	response, err := c.sdk.CreatePrefetchTaskWithContext(ctx, request)
	if err != nil {
		return "", err
	}
	for _, failed := range response.Response.FailedList {
		return "", fmt.Errorf("refused: %s", *failed.Reason)
	}
	if response.Response.JobId == nil {
		return "", errors.New("no JobId in the answer")
	}
	return *response.Response.JobId, nil
}

// State returns the state of a job with one URL: processing, success, failed, … It returns
// "" while EdgeOne does not list the job.
func (c *Client) State(ctx context.Context, zoneID, jobID string) (string, error) {
	if err := c.lookups.Wait(ctx); err != nil {
		return "", err
	}
	request := teo.NewDescribePrefetchTasksRequest()
	request.ZoneId = &zoneID
	request.Filters = []*teo.AdvancedFilter{{Name: common.StringPtr("job-id"), Values: common.StringPtrs([]string{jobID})}}
	response, err := c.sdk.DescribePrefetchTasksWithContext(ctx, request)
	if err != nil || len(response.Response.Tasks) == 0 {
		return "", err
	}
	return *response.Response.Tasks[0].Status, nil
}
