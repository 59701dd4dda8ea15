# Builds the same image as `make image`, with a container engine:
#   docker build --build-arg VERSION=v0.1.0 --tag registry.example/teo-prefetch-operator:v0.1.0 .
# BASE may be any image, because the programs are static and contain their trusted
# certificates.
ARG GO_VERSION=1.26
ARG BASE=gcr.io/distroless/static:nonroot

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
# Sets another module proxy if Go's default is not reachable.
ARG GOPROXY
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=v0.0.0-unknown
RUN make dist/${TARGETOS}-${TARGETARCH}/manager dist/${TARGETOS}-${TARGETARCH}/kubectl-teo_prefetch VERSION=${VERSION} \
 && mv dist/${TARGETOS}-${TARGETARCH} /programs

FROM ${BASE}
ARG VERSION=v0.0.0-unknown
LABEL org.opencontainers.image.title=teo-prefetch-operator \
      org.opencontainers.image.source=https://github.com/prefetch-operator/teo-prefetch-operator \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION}
COPY --from=build /programs /
USER 65532:65532
ENTRYPOINT ["/manager"]
