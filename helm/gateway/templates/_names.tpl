{{- define "gateway.name" -}}
{{ .Values.name | default .Release.Name }}
{{- end }}

{{/* A map whose values are all texts, as JSON: annotations and labels take nothing else. Later maps of the list win. */}}
{{- define "gateway.texts" -}}
{{- $texts := dict -}}
{{- range $map := . -}}
{{- range $key, $value := $map -}}
{{- $whole := and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $texts $key (toString (ternary (int64 (ternary $value 0 $whole)) $value $whole)) -}}
{{- end -}}
{{- end -}}
{{- toJson $texts -}}
{{- end }}

{{/* One list of lists of objects with names, as JSON: of two with one name the last stays, where the first stood. Helm merges
such lists by name, and an upgrade that meets a name twice loses it. */}}
{{- define "gateway.named" -}}
{{- $last := dict -}}
{{- range $list := . -}}
{{- range $item := $list -}}
{{- $_ := set $last $item.name $item -}}
{{- end -}}
{{- end -}}
{{- $all := list -}}
{{- $seen := dict -}}
{{- range $list := . -}}
{{- range $item := $list -}}
{{- if not (hasKey $seen $item.name) -}}
{{- $_ := set $seen $item.name true -}}
{{- $all = append $all (get $last $item.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/* Variables from a map, NAME: text, as a JSON list. */}}
{{- define "gateway.variables" -}}
{{- $variables := list -}}
{{- range $name, $text := include "gateway.texts" (list .) | fromJson -}}
{{- $variables = append $variables (dict "name" $name "value" $text) -}}
{{- end -}}
{{- toJson $variables -}}
{{- end }}

{{/* Labels that Gateway objects, the Service and the Deployment select by. */}}
{{- define "gateway.selector" -}}
{{- range $key := list "sidecar.istio.io/inject" "istio.io/rev" -}}
{{- if hasKey $.Values.labels $key -}}
{{- fail (printf "labels: %s is the chart's own (revision, and a proxy by injection) and cannot be replaced" $key) -}}
{{- end -}}
{{- end -}}
{{- $name := include "gateway.name" . -}}
{{ include "gateway.texts" (list (dict "app" $name "istio" (trimPrefix "istio-" $name)) .Values.labels) | fromJson | toYaml }}
{{- end }}

{{/* Labels of every object; those that are selected by win, since they cannot be changed. */}}
{{- define "gateway.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "gateway.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/part-of" "ferromesh"
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{ include "gateway.texts" (list $own (include "gateway.selector" . | fromYaml)) | fromJson | toYaml }}
{{- end }}

{{/* The account of the pods. */}}
{{- define "gateway.account" -}}
{{- $account := .Values.serviceAccount | default (dict "create" true) -}}
{{ $account.name | default (ternary (include "gateway.name" .) "default" $account.create) }}
{{- end }}

{{/* What makes the pods. */}}
{{- define "gateway.kind" -}}
{{ .Values.kind | default "Deployment" }}
{{- end }}
