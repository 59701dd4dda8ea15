module github.com/prefetch-operator/teo-prefetch-operator/hack/bench/baseline

go 1.26.0

require (
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common v1.3.158
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo v1.3.158
	golang.org/x/time v0.15.0
)
