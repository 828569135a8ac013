# What cert-manager may ask for, and no more: an intermediate of one name and one lifetime, under the default root. Its
# path length (0) and key usage are the server's to set; max_path_length, use_csr_values, issuer_ref and all else are refused.
path "egress-pki/root/sign-intermediate" {
  capabilities = ["update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = ["Egress intermediate"]
    "ttl"                  = ["2160h0m0s"]
    "exclude_cn_from_sans" = ["true"]
    "alt_names"            = [""]
    "ip_sans"              = [""]
    "uri_sans"             = [""]
  }
}
