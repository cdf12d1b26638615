"""What is here and what is wrong with it: this host, the boards, single layers of an artifact."""
