"""Networks of one host: bridges, veth pairs, nftables, names."""
