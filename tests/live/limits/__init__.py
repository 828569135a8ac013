"""Each limit, reached on purpose, while another connection goes on undisturbed."""
