# What External Secrets may read: the certificates of the roots.
path "egress-kv/data/roots" {
  capabilities = ["read"]
}
