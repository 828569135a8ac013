"""How the TLS with upstreams is made: whom they are trusted by, who we are to them, what they are refused for."""
