{{- define "dnsproxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dnsproxy.selector" -}}
app.kubernetes.io/name: dnsproxy
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "dnsproxy.labels" -}}
{{ include "dnsproxy.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "dnsproxy.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The configuration of a proxy, from .root and what is special to this kind of it (.own). */}}
{{- define "dnsproxy.config" -}}
{{- $keys := list -}}
{{- range $name, $_ := .root.Values.trustedKeys -}}
{{- $keys = append $keys (printf "/etc/dnsproxy/keys/%s" $name) -}}
{{- end -}}
{{- $made := dict
      "registries" .root.Values.registries
      "learn" (dict "sources" .root.Values.sources "trusted_keys" $keys)
      "forward" (dict "upstreams" .root.Values.upstreams)
      "log" (dict "format" "json") -}}
{{- toYaml (mustMergeOverwrite $made (deepCopy .own) (deepCopy .root.Values.config)) -}}
{{- end -}}

{{- define "dnsproxy.proxyConfig" -}}
{{- include "dnsproxy.config" (dict "root" . "own" (dict
      "serve" (dict "listen" (list "0.0.0.0:5353"))
      "admin" (dict "listen" "0.0.0.0:9153"))) -}}
{{- end -}}

{{- define "dnsproxy.nodeConfig" -}}
{{- $node := .Values.node -}}
{{- include "dnsproxy.config" (dict "root" . "own" (dict
      "serve" (dict
        "listen" (list (printf "%s:53" $node.address))
        "allow" (prepend $node.allow (printf "%s/32" $node.address)))
      "admin" (dict "listen" "127.0.0.1:9153"))) -}}
{{- end -}}

{{- define "dnsproxy.helperConfig" -}}
{{- $made := dict
      "registries" .Values.registries
      "helper" (dict
        "id" .Values.helper.id
        "listen" "0.0.0.0:8953"
        "resolvers" .Values.helper.resolvers
        "signing_key_file" "/run/dnsproxy/helper.key")
      "log" (dict "format" "json") -}}
{{- with .Values.helper.snapshotConfigMap -}}
{{- $_ := set $made.helper "publish" (list (dict "type" "kubernetes" "object" .)) -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite $made (deepCopy .Values.helper.config)) -}}
{{- end -}}

{{/* What the containers of every Pod have in common; nothing is written but mounted volumes. */}}
{{- define "dnsproxy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "dnsproxy.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}
