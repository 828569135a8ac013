#!/bin/sh
# Once for each cluster, with a token that may do all this: makes the root, says who may have intermediates signed by it,
# and publishes its certificate. BAO_ADDR and BAO_TOKEN, or VAULT_ADDR and VAULT_TOKEN, as their command lines want them.
#
# KUBERNETES_HOST       the API server's URL as OpenBao sees it; default: that of the cluster it runs in
# KUBERNETES_CA         file with the API server's CA, if OpenBao runs elsewhere
# KUBERNETES_REVIEWER   file with a token that may review tokens (token-review.yaml), if OpenBao runs elsewhere
# WORKLOAD_NAMESPACE    where intermediates are used; default: agents
set -eu
cd "$(dirname "$0")"
command -v bao >/dev/null || bao() { vault "$@"; }
namespace=${WORKLOAD_NAMESPACE:-agents}

# The root: its key is made inside and can't be taken out.
bao secrets enable -path=egress-pki -max-lease-ttl=87600h pki
bao write egress-pki/root/generate/internal @root.json >/dev/null

# Its certificate, for those who are to trust it.
bao secrets enable -path=egress-kv -version=2 kv
bao kv put -mount=egress-kv roots certificates="$(bao read -field=certificate egress-pki/cert/ca)" >/dev/null

# Who may do what, proven by a ServiceAccount's token.
bao policy write egress-sign-intermediate sign-intermediate.hcl
bao policy write egress-read-roots read-roots.hcl
bao auth enable kubernetes
bao write auth/kubernetes/config kubernetes_host="${KUBERNETES_HOST:-https://kubernetes.default.svc}" \
  ${KUBERNETES_CA:+kubernetes_ca_cert=@"$KUBERNETES_CA"} \
  ${KUBERNETES_REVIEWER:+token_reviewer_jwt=@"$KUBERNETES_REVIEWER"}
bao write auth/kubernetes/role/egress-issuer token_policies=egress-sign-intermediate token_ttl=10m \
  bound_service_account_names=egress-issuer bound_service_account_namespaces="$namespace" \
  audience="vault://$namespace/egress-root"
bao write auth/kubernetes/role/egress-roots token_policies=egress-read-roots token_ttl=10m \
  bound_service_account_names=egress-roots bound_service_account_namespaces=cert-manager \
  audience=egress-roots
