"""Where sessions run: this machine or a cluster, behind one small protocol."""
