module github.com/prefetch-operator/teo-prefetch-operator/test/sdk

go 1.26.0

require (
	github.com/prefetch-operator/teo-prefetch-operator v0.0.0
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common v1.3.158
	github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo v1.3.158
)

require (
	golang.org/x/net v0.59.0 // indirect
	golang.org/x/text v0.42.0 // indirect
)

replace github.com/prefetch-operator/teo-prefetch-operator => ../..
