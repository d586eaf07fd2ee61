"""Which registered model is in use: the gate, the aliases, and the trail of who moved them."""
