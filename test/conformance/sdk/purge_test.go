package sdk

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
	sdk "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo/v20220901"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

const simulatedZone = "zone-2x9examplea"

// vendorOf returns the SDK's client for the demo account of a simulator.
func vendorOf(t *testing.T, sim *simulator.Simulator) *sdk.Client {
	t.Helper()
	p := profile.NewClientProfile()
	p.HttpProfile.Endpoint = intl
	client, err := sdk.NewClient(common.NewCredential("AKIDdemo", "demo-secret-key"), "", p)
	if err != nil {
		t.Fatal(err)
	}
	client.WithHttpTransport(sim.RoundTripper())
	return client
}

// The simulator judges the operator, so the SDK judges the simulator: it signs purges, and
// reads the answers.
func TestTheSDKPurgesInTheSimulator(t *testing.T) {
	config := simulator.Demo()
	config.PurgeDuration = -1
	config.Rules = []simulator.Rule{
		{Action: "CreatePurgeTask", URL: "refused", Refuse: "no"},
		{Action: "CreatePurgeTask", URL: "broken", Status: "failed", FailType: "taskFailed", FailMessage: "it broke"},
	}
	for _, tt := range []struct {
		purgeType, method string
		targets           []string
		domains           []string // of CacheTag
		listed            string   // the target of the row, if it is not the first one
		lists             string   // the method of the row
	}{
		{"purge_url", "", []string{"https://www.example.com/a", "https://www.example.com/refused"}, nil, "", "delete"},
		{"purge_url", "", []string{"https://www.example.com/broken"}, nil, "", "delete"},
		{"purge_prefix", "", []string{"https://www.example.com/a/"}, nil, "", "invalidate"},
		{"purge_prefix", "delete", []string{"https://www.example.com/a/"}, nil, "", "delete"},
		{"purge_host", "delete", []string{"www.example.com"}, nil, "", "delete"},
		{"purge_cache_tag", "", []string{"tag"}, []string{"www.example.com"}, "", "delete"},
		{"purge_all", "invalidate", nil, nil, simulatedZone, "invalidate"},
	} {
		t.Run(tt.purgeType+" "+tt.method, func(t *testing.T) {
			sim := simulator.New(config)
			defer sim.Close()
			client := vendorOf(t, sim)
			create := sdk.NewCreatePurgeTaskRequest()
			create.ZoneId, create.Type, create.Targets = common.StringPtr(simulatedZone), &tt.purgeType, common.StringPtrs(tt.targets)
			if tt.method != "" {
				create.Method = &tt.method
			}
			if tt.domains != nil {
				create.CacheTag = &sdk.CacheTag{Domains: common.StringPtrs(tt.domains)}
			}
			created, err := client.CreatePurgeTask(create)
			if err != nil {
				t.Fatal(err)
			}
			for _, failed := range created.Response.FailedList {
				if want := []string{"https://www.example.com/refused"}; value(failed.Reason) != "no" || !reflect.DeepEqual(common.StringValues(failed.Targets), want) {
					t.Errorf("FailedList is %s", created.ToJsonString())
				}
			}
			if wants := slices.Contains(tt.targets, "https://www.example.com/refused"); wants != (len(created.Response.FailedList) == 1) {
				t.Errorf("FailedList is %s", created.ToJsonString())
			}
			if tt.listed == "" {
				tt.listed = tt.targets[0]
			}
			checkPurge(t, client, value(created.Response.JobId), sdk.Task{Target: &tt.listed, Type: &tt.purgeType, Method: &tt.lists})
		})
	}
}

// checkPurge looks a purge up by its job and by its time, and compares its only row.
func checkPurge(t *testing.T, client *sdk.Client, job string, want sdk.Task) {
	t.Helper()
	byJob, byTime := sdk.NewDescribePurgeTasksRequest(), sdk.NewDescribePurgeTasksRequest()
	byJob.Filters = []*sdk.AdvancedFilter{{Name: common.StringPtr("job-id"), Values: common.StringPtrs([]string{job})}}
	byTime.StartTime, byTime.EndTime = common.StringPtr(time.Now().Add(-time.Hour).Format(time.RFC3339)), common.StringPtr(time.Now().Format(time.RFC3339))
	byTime.Filters = []*sdk.AdvancedFilter{
		{Name: common.StringPtr("type"), Values: []*string{want.Type}},
		{Name: common.StringPtr("target"), Values: []*string{common.StringPtr(value(want.Target)[1:])}, Fuzzy: common.BoolPtr(true)},
		{Name: common.StringPtr("domains"), Values: common.StringPtrs([]string{"www.example.com"})},
		{Name: common.StringPtr("statuses"), Values: common.StringPtrs([]string{"success", "failed"})},
	}
	for name, request := range map[string]*sdk.DescribePurgeTasksRequest{"by its job": byJob, "by its time": byTime} {
		request.ZoneId, request.Limit = common.StringPtr(simulatedZone), common.Int64Ptr(1000)
		listed, err := client.DescribePurgeTasks(request)
		if err != nil {
			t.Fatal(name, err)
		}
		if *listed.Response.TotalCount != 1 || len(listed.Response.Tasks) != 1 {
			t.Fatalf("%s: the SDK reads %s", name, listed.ToJsonString())
		}
		row := listed.Response.Tasks[0]
		if value(row.JobId) != job || value(row.Target) != value(want.Target) || value(row.Type) != value(want.Type) || value(row.Method) != value(want.Method) ||
			time.Since(when(t, row.CreateTime)) > time.Minute || time.Since(when(t, row.UpdateTime)) > time.Minute {
			t.Errorf("%s: the row is %s", name, listed.ToJsonString())
		}
		if value(want.Target) == "https://www.example.com/broken" {
			if value(row.Status) != "failed" || value(row.FailType) != "taskFailed" || value(row.FailMessage) != "it broke" {
				t.Errorf("%s: the row is %s", name, listed.ToJsonString())
			}
		} else if value(row.Status) != "success" {
			t.Errorf("%s: the row is %s", name, listed.ToJsonString())
		}
	}
}

func TestTheSDKReadsTheQuotasOfPurges(t *testing.T) {
	config := simulator.Demo()
	config.Zones[1].Purge = map[string]simulator.Limits{"purge_url": {Batch: 7, Daily: 70}, "purge_host": {NotAllowed: true}}
	sim := simulator.New(config)
	defer sim.Close()
	client := vendorOf(t, sim)
	sim.SetQuota(simulatedZone, "purge_url", 17)
	request := sdk.NewDescribeContentQuotaRequest()
	request.ZoneId = common.StringPtr(simulatedZone)
	described, err := client.DescribeContentQuota(request)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, quota := range described.Response.PurgeQuota {
		types = append(types, value(quota.Type))
	}
	first := described.Response.PurgeQuota[0]
	if want := []string{"purge_url", "purge_prefix", "purge_host", "purge_all", "purge_cache_tag"}; !reflect.DeepEqual(types, want) ||
		*first.Batch != 7 || *first.Daily != 70 || *first.DailyAvailable != 17 || len(described.Response.PrefetchQuota) != 1 {
		t.Errorf("the SDK reads %s", described.ToJsonString())
	}
	purge := sdk.NewCreatePurgeTaskRequest()
	purge.ZoneId, purge.Type, purge.Targets = request.ZoneId, common.StringPtr("purge_host"), common.StringPtrs([]string{"www.example.com"})
	var refused *tcerrors.TencentCloudSDKError
	if _, err := client.CreatePurgeTask(purge); !errors.As(err, &refused) || refused.Code != "LimitExceeded.PackNotAllow" {
		t.Errorf("the SDK reports %v", err)
	}
}
