# The image of `make image`, for those who have a container engine:
#   docker build --build-arg VERSION=v0.1.0 --tag registry.example/teo-prefetch-operator:v0.1.0 .
# BASE may be any image: the manager is static and brings the certificates that it trusts.
ARG GO_VERSION=1.26
ARG BASE=gcr.io/distroless/static:nonroot

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
# Another module proxy than Go's, where that cannot be reached.
ARG GOPROXY
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=v0.0.0-unknown
RUN make dist/${TARGETOS}-${TARGETARCH}/manager VERSION=${VERSION} && mv dist/${TARGETOS}-${TARGETARCH}/manager /manager

FROM ${BASE}
ARG VERSION=v0.0.0-unknown
LABEL org.opencontainers.image.title=teo-prefetch-operator \
      org.opencontainers.image.source=https://github.com/prefetch-operator/teo-prefetch-operator \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION}
COPY --from=build /manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
