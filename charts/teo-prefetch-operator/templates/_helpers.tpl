{{/* The chart's name in labels. */}}
{{- define "teo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects: one that a Service may have, which a release's name need not
be. 45 characters leave room for what is added to it. */}}
{{- define "teo.fullname" -}}
{{- $name := include "teo.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" -}}
{{- end -}}
{{- if regexMatch "^[0-9]" $full -}}
{{- fail (printf "%s cannot be the name of a Service, which begins with a letter: set fullnameOverride" $full) -}}
{{- end -}}
{{- $full | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* The namespace of all objects. */}}
{{- define "teo.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* What selects the pods of the manager and of the check. */}}
{{- define "teo.podLabels" -}}
app.kubernetes.io/name: {{ include "teo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the manager's pods. */}}
{{- define "teo.selectorLabels" -}}
{{ include "teo.podLabels" . }}
app.kubernetes.io/component: manager
{{- end -}}

{{/* The labels of every object. */}}
{{- define "teo.labels" -}}
{{- include "teo.labelsAnd" (list . dict) -}}
{{- end -}}

{{/* The labels of an object that has some of its own, which win. Takes the context and them. */}}
{{- define "teo.labelsAnd" -}}
{{- $ := index . 0 -}}
{{- $all := include "teo.podLabels" $ | fromYaml -}}
{{- $_ := set $all "app.kubernetes.io/version" $.Chart.AppVersion -}}
{{- $_ := set $all "app.kubernetes.io/managed-by" $.Release.Service -}}
{{- $_ := set $all "helm.sh/chart" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- mustMergeOverwrite $all ($.Values.commonLabels | default dict) (index . 1 | default dict) | toYaml -}}
{{- end -}}

{{- define "teo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "teo.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The manager's ServiceAccount as the subjects of a binding. */}}
{{- define "teo.subjects" -}}
- kind: ServiceAccount
  name: {{ include "teo.serviceAccountName" . }}
  namespace: {{ include "teo.namespace" . }}
{{- end -}}

{{- define "teo.image" -}}
{{- $repository := required (printf "image.repository must name an image that you have built and pushed (make image PUSH=registry.example/teo-prefetch-operator VERSION=%s), as none is published yet" .Chart.AppVersion) .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The URL of the EdgeOne API. */}}
{{- define "teo.endpoint" -}}
{{- $hosts := dict "international" "teo.intl.tencentcloudapi.com" "china" "teo.tencentcloudapi.com" -}}
{{- $endpoint := .Values.edgeone.endpoint | default (get $hosts .Values.edgeone.site) -}}
{{- if contains "://" $endpoint }}{{ $endpoint }}{{ else }}https://{{ $endpoint }}{{ end -}}
{{- end -}}

{{/* The Secret with the operator's own credentials; empty if there is none. */}}
{{- define "teo.credentialsSecret" -}}
{{- if and .Values.workloadIdentity.enabled .Values.workloadIdentity.roleARN -}}
{{- if .Values.credentials.secretId }}{{ fail "workloadIdentity.roleARN and credentials.secretId are two sources of credentials: set one of them" }}{{ end -}}
{{- else if .Values.credentials.secretId -}}
{{ include "teo.fullname" . }}-credentials
{{- else -}}
{{ .Values.credentials.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The name of the Lease: --leader-election-id in extraArgs, or the name of all objects. */}}
{{- define "teo.leaseName" -}}
{{- $name := include "teo.fullname" . -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^--?leader-election-id=" . }}{{ $name = regexReplaceAll "^[^=]*=" . "" }}{{ end -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The Deployment's strategy. Without leader election a new pod must not work alongside the old one. */}}
{{- define "teo.strategy" -}}
{{- $strategy := .Values.strategy | default dict -}}
{{- if not .Values.leaderElection.enabled -}}
{{- if not $strategy -}}
{{- /* not Recreate, to which a server-side apply cannot change a Deployment that rolls */ -}}
{{- $strategy = dict "type" "RollingUpdate" "rollingUpdate" (dict "maxSurge" 0 "maxUnavailable" 1) -}}
{{- else if and (ne (dig "type" "" $strategy) "Recreate") (not (has (dig "rollingUpdate" "maxSurge" "25%" $strategy | toString) (list "0" "0%"))) -}}
{{- fail "strategy would start a new pod before the old one stops, which needs leaderElection.enabled: set strategy.type to Recreate or strategy.rollingUpdate.maxSurge to 0" -}}
{{- end -}}
{{- end -}}
{{- with $strategy }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* The arguments that the manager and its check have in common. */}}
{{- define "teo.args" -}}
- --teo-endpoint={{ include "teo.endpoint" . }}
- --teo-qps={{ .Values.edgeone.qps }}
{{- if include "teo.credentialsSecret" . }}
- --credentials-dir=/etc/teo-credentials
{{- end }}
{{- with .Values.workloadIdentity }}
{{- if .enabled }}
{{- with .roleARN }}
- --role-arn={{ . }}
{{- end }}
{{- with .providerID }}
- --role-provider-id={{ . }}
{{- end }}
- --web-identity-token-file=/var/run/secrets/teo-prefetch-operator/token
{{- with .stsEndpoint }}
- --sts-endpoint={{ if contains "://" . }}{{ . }}{{ else }}https://{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.accounts.enabled }}
- --accounts=false
{{- else if .Values.accounts.allowCVMRole }}
- --allow-cvm-role
{{- end }}
{{- if and (kindIs "slice" .Values.allowPurge) (ne (join "," .Values.allowPurge) "URL") }}
- --allow-purge={{ join "," .Values.allowPurge }}
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- if .Values.leaderElection.enabled }}
- --leader-elect
- --leader-election-namespace={{ include "teo.namespace" . }}
{{- if ne (include "teo.fullname" .) "teo-prefetch-operator" }}
- --leader-election-id={{ include "teo.fullname" . }}
{{- end }}
{{- end }}
- --metrics-bind-address={{ if .Values.metrics.enabled }}:{{ .Values.metrics.port }}{{ else }}0{{ end }}
{{- if and .Values.metrics.enabled (not .Values.metrics.secure) }}
- --metrics-secure=false
{{- end }}
- --zap-log-level={{ eq (toString .Values.log.level) "warn" | ternary "error" .Values.log.level }}
- --zap-encoder={{ .Values.log.encoder }}
{{- end -}}

{{/* The parts of a container that the manager and its check have in common. */}}
{{- define "teo.container" -}}
image: {{ include "teo.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnv }}
env:
{{ toYaml . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
{{ toYaml . }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
{{ toYaml . | indent 2 }}
{{- end }}
{{- if or (include "teo.credentialsSecret" .) .Values.workloadIdentity.enabled .Values.extraVolumeMounts }}
volumeMounts:
{{- if .Values.workloadIdentity.enabled }}
- name: web-identity-token
  mountPath: /var/run/secrets/teo-prefetch-operator
  readOnly: true
{{- end }}
{{- if include "teo.credentialsSecret" . }}
- name: teo-credentials
  mountPath: /etc/teo-credentials
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The parts of a pod that the manager and its check have in common. */}}
{{- define "teo.pod" -}}
serviceAccountName: {{ include "teo.serviceAccountName" . }}
automountServiceAccountToken: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
{{ toYaml . }}
{{- end }}
{{- with .Values.initContainers }}
initContainers:
{{ toYaml . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with .Values.affinity }}
affinity:
{{ toYaml . | indent 2 }}
{{- end }}
{{- if or (include "teo.credentialsSecret" .) .Values.workloadIdentity.enabled .Values.extraVolumes }}
volumes:
{{- with .Values.workloadIdentity }}
{{- if .enabled }}
- name: web-identity-token
  projected:
    sources:
    - serviceAccountToken:
        audience: {{ .audience }}
        expirationSeconds: {{ .expirationSeconds }}
        path: token
{{- end }}
{{- end }}
{{- with include "teo.credentialsSecret" . }}
- name: teo-credentials
  secret:
    secretName: {{ . }}
    optional: {{ and $.Values.credentials.optional (not $.Values.credentials.secretId) }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The values of the ServiceMonitor or the PodMonitor, whichever is enabled, as YAML; empty if none is. */}}
{{- define "teo.monitor" -}}
{{- $metrics := .Values.metrics -}}
{{- if and $metrics.serviceMonitor.enabled $metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled: set one of them only, or Prometheus scrapes each pod twice" -}}
{{- end -}}
{{- range $name := list "serviceMonitor" "podMonitor" -}}
{{- $monitor := get $metrics $name -}}
{{- if and $monitor.enabled (not $metrics.enabled) }}{{ fail (printf "metrics.%s.enabled needs metrics.enabled" $name) }}{{ end -}}
{{- if $monitor.enabled }}{{ toYaml $monitor }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The name of the chart's own account to read the metrics with, and of the Secret with its token; empty if there
is none. The monitor needs it if it has no other credentials. */}}
{{- define "teo.readerName" -}}
{{- $monitor := include "teo.monitor" . | fromYaml -}}
{{- if and $monitor .Values.metrics.secure (not (dig "authorization" "credentials" "name" "" $monitor)) (not $monitor.scrapeClass) -}}
{{ include "teo.fullname" . }}-metrics-reader
{{- end -}}
{{- end -}}

{{/* The endpoint of the ServiceMonitor or the PodMonitor. */}}
{{- define "teo.scrape" -}}
{{- $monitor := include "teo.monitor" . | fromYaml -}}
- port: metrics
  interval: {{ $monitor.interval }}
  scrapeTimeout: {{ $monitor.scrapeTimeout }}
  {{- if .Values.metrics.secure }}
  scheme: https
  {{- $reader := include "teo.readerName" . }}
  {{- $credentials := $monitor.authorization.credentials }}
  {{- if or $reader $credentials.name }}
  authorization:
    credentials:
      name: {{ $reader | default $credentials.name }}
      key: {{ ternary "token" $credentials.key (ne $reader "") }}
  {{- end }}
  tlsConfig:
    insecureSkipVerify: true # the manager signs its certificate itself
  {{- end }}
  {{- with $monitor.relabelings }}
  relabelings:
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $monitor.metricRelabelings }}
  metricRelabelings:
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Whether there is a role that extends a cluster role ("view", "edit" or "admin"), or, with "", whether there are
roles for users at all. Takes the context and the cluster role. Empty means no. */}}
{{- define "teo.aggregates" -}}
{{- $values := (index . 0).Values -}}
{{- $all := kindIs "invalid" $values.rbac.aggregateRoles | ternary $values.crds.enabled $values.rbac.aggregateRoles -}}
{{- $one := index $values.rbac (printf "aggregateTo%s" (title (index . 1))) -}}
{{- if kindIs "invalid" $one | ternary $all $one }}true{{ end -}}
{{- end -}}

{{/* The rules of a role in config/rbac. Takes the context and the file's name. */}}
{{- define "teo.rules" -}}
rules:
{{ (index . 0).Files.Get (printf "files/rbac/%s.yaml" (index . 1)) | fromYaml | dig "rules" list | toYaml }}
{{- end -}}
