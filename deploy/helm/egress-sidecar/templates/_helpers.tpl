{{- define "egress.name" -}}
{{- if contains "egress-sidecar" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-egress-sidecar" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "egress.labels" -}}
app.kubernetes.io/name: egress-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "egress.selector" -}}
app.kubernetes.io/name: egress-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "egress.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "egress.configMapOf" -}}
{{ .configMap | default (printf "egress-policy-%s" .name) }}
{{- end }}

{{- /* Namespaces that rules name in full: {"names": […]}, as JSON. */ -}}
{{- define "egress.named" -}}
{{- $named := list }}
{{- range .Values.namespaces }}{{ range .match }}
{{- if not (contains "*" .) }}{{ $named = append $named . }}{{ end }}
{{- end }}{{ end }}
{{- dict "names" ($named | uniq | sortAlpha) | toJson }}
{{- end }}

{{- /* Namespaces that the webhooks never cover: {"names": […]}, as JSON. */ -}}
{{- define "egress.never" -}}
{{- dict "names" (concat (list "kube-system" .Release.Namespace) .Values.neverNamespaces | uniq | sortAlpha) | toJson }}
{{- end }}

{{- /* What the values must not say, since no schema can: rendering fails with the reason. */ -}}
{{- define "egress.check" -}}
{{- $never := (include "egress.never" . | fromJson).names }}
{{- range (include "egress.named" . | fromJson).names }}
{{- if has . $never }}{{ fail (printf "namespaces: %s is never covered; take it out of the rules" .) }}{{ end }}
{{- end }}
{{- $known := list }}{{ range .Values.policies }}{{ $known = append $known .name }}{{ end }}
{{- range .Values.namespaces }}{{ range .policies }}
{{- if not (has . $known) }}{{ fail (printf "namespaces: there is no policy %q; add it to policies" .) }}{{ end }}
{{- end }}{{ end }}
{{- if and .Values.trust.configMap .Values.trust.secret }}{{ fail "trust: configMap and secret exclude each other; keep the one that holds the bundle" }}{{ end }}
{{- if and .Values.policyProtection.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "policyProtection needs Kubernetes 1.30, this is %s; leave it to RBAC" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- $sidecar := get .Values.config "sidecar" | default dict }}
{{- if and (eq (get $sidecar "form") "native") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "config.sidecar.form: native needs Kubernetes 1.29, this is %s; write classic" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}

{{- /* The webhook's configuration file. */ -}}
{{- define "egress.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $sidecar := deepCopy (get $config "sidecar" | default dict) }}
{{- if not (hasKey $sidecar "image") }}{{ $_ := set $sidecar "image" (include "egress.image" .) }}{{ end }}
{{- if not (hasKey $sidecar "imagePullPolicy") }}{{ $_ := set $sidecar "imagePullPolicy" .Values.image.pullPolicy }}{{ end }}
{{- if not (hasKey $sidecar "form") }}
{{- $_ := set $sidecar "form" (ternary "native" "classic" (semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version)) }}
{{- end }}
{{- $_ := set $config "sidecar" $sidecar }}
{{- $_ := set $config "exemptNamespaces" (include "egress.never" . | fromJson).names }}
{{- $rules := list }}
{{- range .Values.namespaces }}{{ $rules = append $rules (omit . "create") }}{{ end }}
{{- $_ := set $config "namespaces" $rules }}
{{- $policies := list }}
{{- range .Values.policies }}
{{- $policies = append $policies (dict "name" .name "configMap" (include "egress.configMapOf" . | trim) "key" (.key | default "policy.yaml")) }}
{{- end }}
{{- $_ := set $config "policies" $policies }}
{{- if .Values.trust.enabled }}
{{- $_ := set $config "inject" .Values.trust.injectAll }}
{{- range $key := list "configMap" "secret" "mountPath" "certFile" "includeNamespaces" "excludeNamespaces" "excludeContainers" }}
{{- with get $.Values.trust $key }}{{ $_ := set $config $key . }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $config }}
{{- end }}
