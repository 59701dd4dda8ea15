package simulator

// action is an action of an API.
type action struct {
	service, version string
	params           object
	run              func(*Simulator, *call) (map[string]any, *apiError)
	isUnsigned       bool
	rate             int // per second; 0 means the Rate of the Config
}

// The actions that create jobs. Each has a history of its own.
const (
	createPrefetch = "CreatePrefetchTask"
	createPurge    = "CreatePurgeTask"
)

// actions are the actions of the APIs.
var actions = map[string]action{
	createPrefetch:            {service: "teo", version: teoVersion, params: createParams, run: (*Simulator).createPrefetchTask},
	"DescribePrefetchTasks":   {service: "teo", version: teoVersion, params: describeParams, run: (*Simulator).describePrefetchTasks},
	createPurge:               {service: "teo", version: teoVersion, params: purgeParams, run: (*Simulator).createPurgeTask},
	"DescribePurgeTasks":      {service: "teo", version: teoVersion, params: describeParams, run: (*Simulator).describePurgeTasks},
	"DescribeContentQuota":    {service: "teo", version: teoVersion, params: quotaParams, run: (*Simulator).describeContentQuota},
	assumeRole:                {service: "sts", version: stsVersion, params: assumeRoleParams, run: (*Simulator).assumeRole, rate: stsRate},
	assumeRoleWithWebIdentity: {service: "sts", version: stsVersion, params: webIdentityParams, run: (*Simulator).assumeRoleWithWebIdentity, isUnsigned: true},
}

const teoVersion = "2022-09-01"
